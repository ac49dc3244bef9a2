//! Gitea and Forgejo: `POST /orgs/{org}/repos` and `POST /user/repos` of their API, version 1.

use serde_json::json;

use super::facts::Facts;
use super::host::{Host, Rights};
use super::{Error, Made};
use crate::config::Visibility;

pub(super) fn create(host: &Host, facts: &Facts, visibility: Visibility) -> Result<Made, Error> {
    let mut body = json!({
        "name": host.repository,
        "description": facts.description,
        "private": visibility != Visibility::Public,
        "auto_init": false,
        "object_format_name": facts.object_format,
    });
    if let Some(branch) = &facts.default_branch {
        body["default_branch"] = json!(branch);
    }
    let rights = Rights {
        needed: "the scopes 'write:organization' and 'write:repository', or 'write:user' for the user's own",
        exists: &["already exists"],
    };
    host.create_for_group_or_user(&body, &rights)
}
