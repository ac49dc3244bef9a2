//! GitHub and GitHub Enterprise: `POST /orgs/{org}/repos` and `POST /user/repos` of the REST API, version 2022-11-28.

use serde_json::json;

use super::facts::Facts;
use super::host::{Host, Rights};
use super::{Error, Made};
use crate::config::Visibility;

pub(super) fn create(host: &Host, facts: &Facts, visibility: Visibility) -> Result<Made, Error> {
    if facts.is_sha256() {
        return Err(Error::Refused("GitHub has no SHA-256 repositories, and this repository uses SHA-256".into()));
    }
    let body = json!({
        "name": host.repository,
        "description": facts.description,
        "private": visibility != Visibility::Public,
        "visibility": visibility.as_str(),
        "has_issues": false,
        "has_projects": false,
        "has_wiki": false,
        "auto_init": false,
    });
    let rights = Rights {
        needed: "the permission 'Administration: write', or the scope 'repo'",
        exists: &["name already exists on this account"],
    };
    host.create_for_group_or_user(&body, &rights)
}
