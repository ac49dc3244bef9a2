//! Likely mistakes in a configuration. A command or the API refuses them; in a file they are a warning, so that no existing set-up stops.
//! Pure.

use super::{Config, Mirror};
use crate::refs::RefName;
use crate::wire::Address;

/// What is wrong with the URL of a mirror, and the form that was probably meant.
#[must_use]
pub fn misread_url(address: &Address) -> Option<String> {
    if let Address::Ssh { user, host, port: None, path } = address {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) {
            let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
            return Some(format!(
                "'{host}:{path}' names the path '{path}', not port {first}; for the port write ssh://{user}{host}:{first}/{rest}, for the path {user}{host}:./{path}"
            ));
        }
    }
    if let Some(repository) = web_page_of(address) {
        return Some(format!(
            "the URL is the address of a web page; the URL of its repository is probably {repository}"
        ));
    }
    let url = address.plain();
    let (_, rest) = url.split_once('{')?;
    let (name, _) = rest.split_once('}')?;
    Some(format!(
        "the URL has '{{{name}}}', but only [remotes.NAME] of the server's file has placeholders ({{path}}, {{path_dash}}, {{path_underscore}}, {{name}}); write the URL in full"
    ))
}

/// The URL of the repository that a page of GitHub, GitLab, Gitea or Bitbucket shows. `None` if the
/// address is not that of such a page.
fn web_page_of(address: &Address) -> Option<String> {
    const PARTS: [&str; 9] =
        ["/-/", "/tree/", "/blob/", "/commits/", "/commit/", "/pull/", "/issues/", "/src/branch/", "/src/commit/"];
    let Address::Http { url, .. } = address else { return None };
    if url.ends_with(".git") {
        return None;
    }
    let path = url.find("://").and_then(|at| Some(at + 3 + url[at + 3..].find('/')?))?;
    let part = PARTS.iter().filter_map(|part| url[path..].find(part)).min()?;
    // What stands before the part must be the path of a repository: at least a group and a name.
    let repository = &url[..path + part];
    let is_deep = url[path..path + part].matches('/').count() >= 2;
    is_deep.then(|| format!("{}.git", repository.trim_end_matches(".git")))
}

/// The name of another mirror of the repository that has the same address and selects one of the same refs. Both must be enabled. `refs`
/// are the refs of the repository.
#[must_use]
pub fn twin<'c>(
    config: &'c Config,
    mirror: &Mirror,
    default_branch: Option<&RefName>,
    refs: &[RefName],
) -> Option<&'c str> {
    let rules = config.rules(mirror, default_branch);
    let identity = mirror.address.identity();
    let samples = ["refs/heads/main", "refs/tags/v1"].into_iter().filter_map(|name| RefName::new(name.as_bytes()));
    let names: Vec<RefName> = refs.iter().cloned().chain(default_branch.cloned()).chain(samples).collect();
    let is_twin = |other: &&Mirror| {
        let theirs = config.rules(other, default_branch);
        let is_common = |name: &RefName| rules.selects(name.borrowed()) && theirs.selects(name.borrowed());
        other.name != mirror.name
            && other.is_enabled
            && mirror.is_enabled
            && other.address.identity() == identity
            && names.iter().any(is_common)
    };
    config.mirrors.iter().find(is_twin).map(|other| &*other.name)
}

/// The likely mistakes in a mirror's configuration, a sentence each.
#[must_use]
pub fn warnings(config: &Config, mirror: &Mirror, default_branch: Option<&RefName>, refs: &[RefName]) -> Vec<String> {
    let twin = twin(config, mirror, default_branch, refs).map(|other| {
        format!(
            "mirror '{other}' has the same URL and selects some of the same refs; remove one of the two, or change its only_protected_branches, mirror_branch_regex or tags"
        )
    });
    misread_url(&mirror.address).into_iter().chain(twin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_an_scp_style_url_is_told_from_a_path() {
        let misread = |url: &str| misread_url(&crate::wire::parse(url).expect("valid").0);
        let told = misread("git@host:2222/acme/x.git").expect("misread");
        assert!(
            told.contains("ssh://git@host:2222/acme/x.git") && told.contains("git@host:./2222/acme/x.git"),
            "{told}"
        );
        assert!(misread("host:2222/x").is_some() && misread("host:2222").is_some());
        for url in
            ["git@host:acme/2222.git", "ssh://git@host:2222/x", "host:./2222/x", "ssh://host/2222/x", "/srv/2222/x"]
        {
            assert_eq!(misread(url), None, "{url}");
        }
        assert!(misread("https://h/{path_dash}.git").expect("a placeholder").contains("{path_dash}"));
        assert!(misread("/srv/{name}").is_some());
    }

    #[test]
    fn the_address_of_a_web_page_is_told_from_that_of_a_repository() {
        for (url, repository) in [
            ("https://github.com/acme/w/tree/main", Some("https://github.com/acme/w.git")),
            ("https://github.com/acme/w/blob/main/tree/x", Some("https://github.com/acme/w.git")),
            ("https://gitlab.com/a/b/w/-/merge_requests", Some("https://gitlab.com/a/b/w.git")),
            ("https://codeberg.org/acme/w/src/branch/main", Some("https://codeberg.org/acme/w.git")),
            ("https://h:8443/acme/w.git/tree/main", Some("https://h:8443/acme/w.git")),
            ("https://github.com/acme/tree", None),
            ("https://h/tree/w.git", None),
            ("https://h/git/tree-of/w.git", None),
            ("https://h/group/issues/w.git", None),
            ("https://h/group/sub/tree/w.git", None),
            ("ssh://git@h/acme/w/tree/main", None),
        ] {
            let told = misread_url(&crate::wire::parse(url).expect("valid").0);
            let expected = repository.map(|repository| {
                format!("the URL is the address of a web page; the URL of its repository is probably {repository}")
            });
            assert_eq!(told, expected, "{url}");
        }
    }
}
