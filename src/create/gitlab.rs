//! GitLab: `GET /namespaces/:id` and `POST /projects` of its REST API, version 4.

use serde_json::json;

use super::facts::Facts;
use super::host::{Host, Rights};
use super::{Error, Made};
use crate::config::Visibility;
use crate::wire::path_segment;

const RIGHTS: Rights<'_> = Rights {
    needed: "the scope 'api', and a role that may create projects there (Maintainer, if the group does not say otherwise)",
    exists: &["has already been taken"],
};

pub(super) fn create(host: &Host, facts: &Facts, visibility: Visibility) -> Result<Made, Error> {
    let namespace = host.api.get(&format!("/namespaces/{}", path_segment(&host.group)))?;
    if namespace.status == 404 {
        return Err(Error::Refused(format!(
            "'{}' has no group or user '{}' that the token can see; create it first, or give the token access",
            host.name, host.group
        )));
    }
    let Some(id) = namespace.body["id"].as_u64().filter(|_| namespace.status == 200) else {
        // Without an id, a successful status is not enough.
        let judged = host.judge(&namespace, &RIGHTS)?;
        return Err(Error::Refused(format!("'{}' answered without a numeric id of the group ({judged:?})", host.name)));
    };
    let mut body = json!({
        "name": host.repository,
        "path": host.repository,
        "namespace_id": id,
        "description": facts.description,
        "visibility": visibility.as_str(),
    });
    if facts.is_sha256() {
        body["repository_object_format"] = json!("sha256");
    }
    host.judge(&host.api.post("/projects", &body)?, &RIGHTS)
}
