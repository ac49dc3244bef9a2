//! Parameters of a request, read as GitLab's API reads them: first those of the query, then those of the body, which is a form or JSON. A
//! later value replaces an earlier one, except that the lists of query and form are joined. Pure.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::Value;

use super::failure::Failure;

/// Parameters by name. In a query or form, `NAME[]` adds a value to the list `NAME`.
#[derive(Debug, Default)]
pub(super) struct Parameters(BTreeMap<String, Value>);

impl Parameters {
    /// Reads them.
    pub(super) fn read(query: Option<&str>, kind: Option<&str>, body: &[u8]) -> Result<Self, Failure> {
        let mut all = Self::default();
        all.take_form(query.unwrap_or_default().as_bytes());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match &*kind {
            _ if body.is_empty() => {}
            "application/json" => match serde_json::from_slice(body) {
                Ok(Value::Object(given)) => all.0.extend(given),
                _ => return Err(Failure::parameter("message body does not match declared format")),
            },
            "" | "application/x-www-form-urlencoded" => all.take_form(body),
            other => {
                let text = format!("The provided content-type '{}' is not supported.", other.escape_debug());
                return Err(Failure::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text));
            }
        }
        Ok(all)
    }

    fn take_form(&mut self, text: &[u8]) {
        for (name, value) in form_urlencoded::parse(text) {
            let value = Value::String(value.into_owned());
            match name.strip_suffix("[]") {
                None => {
                    self.0.insert(name.into_owned(), value);
                }
                Some(list) => match self.0.entry(list.to_owned()).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(values) => values.push(value),
                    other => *other = Value::Array(vec![value]),
                },
            }
        }
    }

    /// Whether it is given, `null` included.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether no other parameter is given.
    pub(super) fn has_only(&self, name: &str) -> bool {
        self.0.keys().all(|given| given == name)
    }

    /// Whether it is given as `null`.
    pub(super) fn is_null(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Null))
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(invalid(name)),
        }
    }

    /// A boolean. `None` if it is absent, `null` or empty.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::Number(number)) if number.as_u64() == Some(1) => Ok(Some(true)),
            Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(Some(false)),
            Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
                "" => Ok(None),
                "1" | "on" | "t" | "true" | "y" | "yes" => Ok(Some(true)),
                "0" | "off" | "f" | "false" | "n" | "no" => Ok(Some(false)),
                _ => Err(invalid(name)),
            },
            Some(_) => Err(invalid(name)),
        }
    }

    /// A list of texts. A single text is a list of one, and `null` an empty list.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Failure> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(Vec::new())),
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            Some(Value::Array(values)) => {
                let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| invalid(name));
                values.iter().map(text).collect::<Result<Vec<_>, _>>().map(Some)
            }
            Some(_) => Err(invalid(name)),
        }
    }

    /// One of these words.
    pub(super) fn word(&self, name: &str, words: &[&'static str]) -> Result<Option<&'static str>, Failure> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let word = words.iter().find(|word| **word == text);
        word.copied().map(Some).ok_or_else(|| no_valid_value(name))
    }

    /// A number, at least 1. `None` if it is absent, `null` or empty.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, Failure> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(count) if count >= 1 => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
            Ok(_) => Err(no_valid_value(name)),
            Err(_) => Err(invalid(name)),
        }
    }
}

fn invalid(name: &str) -> Failure {
    Failure::parameter(&format!("{name} is invalid"))
}

/// The error for a value that is not one of the allowed ones.
pub(super) fn no_valid_value(name: &str) -> Failure {
    Failure::parameter(&format!("{name} does not have a valid value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_forms_and_json_alike() {
        let form = b"url=https%3A%2F%2Fh%2Fx&enabled=1&host_keys[]=a+b&host_keys%5B%5D=c";
        let json = br#"{"url": "https://h/x", "enabled": true, "host_keys": ["a b", "c"], "x": null}"#;
        for (kind, body) in [(None, &form[..]), (Some("application/json; charset=utf-8"), &json[..])] {
            let read = Parameters::read(Some("url=no&page=2"), kind, body).expect("valid");
            assert_eq!(read.text("url").expect("text").as_deref(), Some("https://h/x"));
            assert_eq!(read.flag("enabled").expect("flag"), Some(true));
            assert_eq!(read.texts("host_keys").expect("texts"), Some(vec!["a b".into(), "c".into()]));
            assert_eq!(read.count("page").expect("count"), Some(2));
            assert_eq!(read.flag("none").expect("none"), None);
        }
        for (kind, body) in [("application/json", "[]"), ("application/json", "{"), ("text/xml", "<x/>")] {
            assert!(Parameters::read(None, Some(kind), body.as_bytes()).is_err(), "{kind} {body}");
        }
        let read = Parameters::read(Some("enabled=perhaps&page=0&per_page=x&url[]=1"), None, b"").expect("valid");
        assert!(read.flag("enabled").is_err() && read.count("page").is_err() && read.count("per_page").is_err());
        assert!(read.text("url").is_err() && read.word("enabled", &["a"]).is_err());
    }
}
