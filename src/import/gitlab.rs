//! Mirrors of GitLab: the answers of its REST API, version 4 (Project remote mirrors, Project pull mirroring). Pure.

use serde_json::Value;
use sha2::Digest;

use super::list::name_of;
use super::{Found, Proposed};
use crate::config::Change;
use crate::mirror::Keys;

/// The two paths of a project's repository: by names, for a copy of the repositories, and in
/// GitLab's hashed storage. `None` if this is no project.
#[must_use]
pub fn gitlab_paths(project: &Value) -> Option<(String, String)> {
    let path = project["path_with_namespace"].as_str()?.to_owned();
    let digest = sha2::Sha256::digest(project["id"].as_u64()?.to_string());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some((path, format!("@hashed/{}/{}/{hex}.git", &hex[..2], &hex[2..4])))
}

/// Reads one of `GET /projects/:id/remote_mirrors`.
#[must_use]
pub fn gitlab_push(mirror: &Value) -> Found {
    let masked = mirror["url"].as_str().unwrap_or_default();
    let url = without_user(masked);
    let (mut keys, mut notes) = chosen(mirror, "only_protected_branches");
    if mirror["keep_divergent_refs"] == true {
        keys.push(("divergent_refs", Change::Text("keep".into())));
    }
    let is_by_key = mirror["auth_method"] == "ssh_public_key";
    if is_by_key {
        keys.push(("auth_method", Change::Text("ssh_public_key".into())));
        notes.push("GitLab keeps its private key, so a new one is made; 'git mirror-push public-key NAME' prints the key that the host must accept".into());
    }
    for key in mirror["host_keys"].as_array().into_iter().flatten() {
        if let Some(fingerprint) = key["fingerprint_sha256"].as_str() {
            notes.push(format!("GitLab trusted the host key {fingerprint}: compare it when you pin (git mirror-push host-keys NAME --detect)"));
        }
    }
    notes.push("GitLab pushes to it too, until you switch its mirror off (Settings, Repository, Mirroring repositories; or PUT enabled=false)".into());
    let hides_password = !is_by_key && is_masked(masked);
    Found::Mirror(Proposed {
        name: name_of(&url),
        url,
        keys,
        from: "GitLab's push mirrors".into(),
        notes,
        hides_password,
    })
}

/// Reads `GET /projects/:id/mirror/pull`. Without that answer, as before GitLab 17.5, it reads the
/// fields of the project. `None` if the project has no pull mirror.
#[must_use]
pub fn gitlab_pull(project: &Value, pull: Option<&Value>) -> Option<Found> {
    if project["mirror"] != true {
        return None;
    }
    let said = pull.unwrap_or(project);
    let from = || "GitLab's pull mirror".to_owned();
    let Some(masked) = said["url"].as_str().or(project["import_url"].as_str()) else {
        let why = "it is a pull mirror, but the token may not see its upstream; add it by hand (git mirror-push add)";
        return Some(Found::Person { from: from(), why: why.into() });
    };
    let url = without_user(masked);
    let (mut keys, mut notes) = chosen(said, "only_mirror_protected_branches");
    keys.push(("direction", Change::Text("pull".into())));
    if said["mirror_overwrites_diverged_branches"] == true {
        keys.push(("divergent_refs", Change::Text("overwrite".into())));
    }
    notes.push("GitLab also fetches from upstream, until you switch its mirror off".into());
    let hides_password = is_masked(masked);
    Some(Found::Mirror(Proposed { name: "upstream".into(), url, keys, from: from(), notes, hides_password }))
}

/// The keys that push and pull mirrors share, and notes.
fn chosen(said: &Value, only_protected: &str) -> (Keys, Vec<String>) {
    let (mut keys, mut notes) = (Keys::new(), Vec::new());
    if said["enabled"] == false {
        keys.push(("enabled", Change::Flag(false)));
    }
    if said[only_protected] == true {
        keys.push(("only_protected_branches", Change::Flag(true)));
        notes.push("it mirrors protected branches only: protect those of GitLab here too (git mirror-push protect PATTERN), or only the default branch is mirrored".into());
    }
    if let Some(regex) = said["mirror_branch_regex"].as_str().filter(|regex| !regex.is_empty()) {
        keys.push(("mirror_branch_regex", Change::Text(regex.into())));
    }
    (keys, notes)
}

/// Whether GitLab has masked a part of the URL.
fn is_masked(url: &str) -> bool {
    url.contains("*****")
}

/// The URL without user and password, which are masked or not ours.
pub(super) fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    // Over ssh the user is no secret, unless it is masked.
    if scheme == "ssh" && !is_masked(&rest[..end]) {
        url.to_owned()
    } else {
        format!("{scheme}://{host}{}", &rest[end..])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mirror(found: Option<Found>) -> Proposed {
        match found {
            Some(Found::Mirror(mirror)) => mirror,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_push_mirror_keeps_its_settings() {
        let said = json!({
            "enabled": true, "url": "https://*****:*****@github.com/acme/x.git", "only_protected_branches": false,
            "keep_divergent_refs": true, "mirror_branch_regex": "^release/", "auth_method": "password", "host_keys": [],
        });
        let found = mirror(Some(gitlab_push(&said)));
        assert_eq!(
            (&*found.name, &*found.url, found.hides_password),
            ("github", "https://github.com/acme/x.git", true)
        );
        let keys = vec![
            ("mirror_branch_regex", Change::Text("^release/".into())),
            ("divergent_refs", Change::Text("keep".into())),
        ];
        assert_eq!(found.keys, keys);
        let said = json!({
            "enabled": false, "url": "ssh://git@h/x.git", "only_protected_branches": true, "keep_divergent_refs": null,
            "mirror_branch_regex": null, "auth_method": "ssh_public_key", "host_keys": [{"fingerprint_sha256": "SHA256:abc"}],
        });
        let found = mirror(Some(gitlab_push(&said)));
        assert_eq!((&*found.url, found.hides_password), ("ssh://git@h/x.git", false));
        let keys = vec![
            ("enabled", Change::Flag(false)),
            ("only_protected_branches", Change::Flag(true)),
            ("auth_method", Change::Text("ssh_public_key".into())),
        ];
        assert_eq!(found.keys, keys);
        assert!(found.notes.iter().any(|note| note.contains("SHA256:abc")), "{:?}", found.notes);
    }

    #[test]
    fn a_pull_mirror_is_read_from_either_answer() {
        let pull = ("direction", Change::Text("pull".into()));
        let project = json!({"id": 1, "mirror": true, "import_url": "https://user:pw@h/x.git", "mirror_overwrites_diverged_branches": true});
        let found = mirror(gitlab_pull(&project, None));
        assert_eq!((&*found.name, &*found.url), ("upstream", "https://h/x.git"));
        assert_eq!(found.keys, vec![pull.clone(), ("divergent_refs", Change::Text("overwrite".into()))]);
        let said = json!({"enabled": true, "url": "https://h/y.git", "only_mirror_protected_branches": null});
        let found = mirror(gitlab_pull(&project, Some(&said)));
        assert_eq!((&*found.url, found.keys), ("https://h/y.git", vec![pull]));
        assert_eq!(gitlab_pull(&json!({"id": 1, "mirror": false}), None), None);
    }

    #[test]
    fn a_project_has_two_paths() {
        let project = json!({"id": 1, "path_with_namespace": "acme/x"});
        let hashed = "@hashed/6b/86/6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b.git";
        assert_eq!(gitlab_paths(&project), Some(("acme/x".into(), hashed.into())));
        assert_eq!(gitlab_paths(&json!({"id": 1})), None);
    }
}
