//! Offset pagination with GitLab's headers. Pure.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::failure::Failure;
use super::parameters::Parameters;

/// Default and largest `per_page`.
const PER_PAGE: (usize, usize) = (20, 100);
/// With more rows than this, the answer does not say how many there are, as in GitLab's API.
const MAX_COUNTED: usize = 10_000;

/// One page of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    page: usize,
    per_page: usize,
}

impl Pages {
    /// Reads the requested page.
    pub(super) fn read(parameters: &Parameters) -> Result<Self, Failure> {
        let page = parameters.count("page")?.unwrap_or(1);
        let per_page = parameters.count("per_page")?.unwrap_or(PER_PAGE.0).min(PER_PAGE.1);
        Ok(Self { page, per_page })
    }

    /// How many rows come before it.
    pub(super) fn skip(self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }

    /// How many rows it has.
    pub(super) fn per_page(self) -> usize {
        self.per_page
    }

    /// The rows of this page, out of all `rows`.
    pub(super) fn cut<T>(self, rows: Vec<T>) -> Vec<T> {
        rows.into_iter().skip(self.skip()).take(self.per_page).collect()
    }

    /// The headers for `total` rows. `base` is scheme and host as the client knows them.
    pub(super) fn headers(self, total: usize, base: &str, uri: &Uri) -> HeaderMap {
        let last = total.div_ceil(self.per_page).max(1);
        let next = (self.page < last).then_some(self.page + 1);
        let previous = (self.page > 1).then_some(self.page - 1);
        let shown = |page: Option<usize>| page.map(|page| page.to_string()).unwrap_or_default();
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        put("x-per-page", self.per_page.to_string());
        put("x-page", self.page.to_string());
        put("x-next-page", shown(next));
        put("x-prev-page", shown(previous));
        let is_counted = total <= MAX_COUNTED;
        if is_counted {
            put("x-total", total.to_string());
            put("x-total-pages", last.to_string());
        }
        let rest = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let rest: Vec<_> = rest.filter(|(name, _)| name != "page" && name != "per_page").collect();
        let link = |relation: &str, page: usize| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(&rest).append_pair("page", &page.to_string());
            query.append_pair("per_page", &self.per_page.to_string());
            format!("<{base}{}?{}>; rel=\"{relation}\"", uri.path(), query.finish())
        };
        let links = [
            previous.map(|page| link("prev", page)),
            next.map(|page| link("next", page)),
            Some(link("first", 1)),
            is_counted.then(|| link("last", last)),
        ];
        put("link", links.into_iter().flatten().collect::<Vec<_>>().join(", "));
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(query: &str, total: usize) -> HeaderMap {
        let read = Parameters::read(Some(query), None, b"").and_then(|all| Pages::read(&all)).expect("valid");
        let uri: Uri = format!("/api/v4/x?{query}").parse().expect("valid");
        read.headers(total, "https://h", &uri)
    }

    #[test]
    fn headers_are_gitlabs() {
        let value =
            |headers: &HeaderMap, name: &str| headers.get(name).map(|value| value.to_str().expect("text").to_owned());
        let middle = headers("search=a%20b&page=2&per_page=10", 35);
        for (name, expected) in [
            ("x-per-page", "10"),
            ("x-page", "2"),
            ("x-next-page", "3"),
            ("x-prev-page", "1"),
            ("x-total", "35"),
            ("x-total-pages", "4"),
        ] {
            assert_eq!(value(&middle, name).as_deref(), Some(expected), "{name}");
        }
        let link = value(&middle, "link").expect("there");
        assert!(link.starts_with("<https://h/api/v4/x?search=a+b&page=1&per_page=10>; rel=\"prev\", <"), "{link}");
        assert!(link.ends_with("page=4&per_page=10>; rel=\"last\""), "{link}");
        let only = headers("", 0);
        assert_eq!(value(&only, "x-next-page").as_deref(), Some(""), "empty, not absent");
        assert_eq!(value(&only, "x-total-pages").as_deref(), Some("1"));
        let many = headers("per_page=1000", 10_001);
        assert_eq!((value(&many, "x-total"), value(&many, "x-per-page").as_deref()), (None, Some("100")));
        assert!(!value(&many, "link").expect("there").contains("last"));
    }
}
