//! `create_command`: a configured program creates the repository.

use std::time::Duration;

use serde::Serialize;

use super::facts::Facts;
use super::{Error, Made, Wanted};
use crate::credentials::Redactor;
use crate::process;

/// How long the program may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What the program reads from its standard input.
#[derive(Serialize)]
struct Asked<'a> {
    repository: String,
    name: &'a str,
    url: String,
    visibility: &'a str,
    description: &'a str,
    default_branch: Option<&'a str>,
    object_format: &'a str,
}

/// Runs the program. Its exit status 0 means that the repository is there now.
pub(super) fn create(words: &[String], wanted: &Wanted<'_>, facts: &Facts) -> Result<Made, Error> {
    let asked = Asked {
        repository: wanted.repository.git_dir().display().to_string(),
        name: &wanted.mirror.name,
        url: wanted.target.address.plain(),
        visibility: wanted.create.visibility.as_str(),
        description: &facts.description,
        default_branch: facts.default_branch.as_deref(),
        object_format: facts.object_format,
    };
    let input = serde_json::to_vec(&asked).expect("texts become JSON");
    let redactor = Redactor::new(&wanted.target.credentials);
    match process::run("create_command", &mut process::configured(words), &input, LIMIT) {
        Ok(_) => Ok(Made::Now),
        Err(process::Error::Failed { status, message, .. }) => {
            let why = message.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
            let why: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
            let why = redactor.clean(&why);
            Err(Error::Program(format!("create_command failed{status}: {why}")))
        }
        Err(error) => Err(Error::Program(error.to_string())),
    }
}
