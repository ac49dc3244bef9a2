//! What a new mirror takes over from our repository.

use crate::repo::{Error, Repository};

/// What a new mirror takes over.
pub(super) struct Facts {
    /// The name of the branch that HEAD names, without `refs/heads/`. `None` if HEAD names no branch.
    pub(super) default_branch: Option<String>,
    /// `sha1` or `sha256`
    pub(super) object_format: &'static str,
    /// One line; empty if the repository has no description of its own.
    pub(super) description: String,
}

/// Longest description, in characters: GitHub's limit.
const MAX_DESCRIPTION: usize = 350;

impl Facts {
    pub(super) fn of(repository: &Repository) -> Result<Self, Error> {
        let branch = repository.default_branch()?;
        let name = branch.as_ref().and_then(|name| name.branch()).and_then(|name| std::str::from_utf8(name).ok());
        Ok(Self {
            default_branch: name.map(str::to_owned),
            object_format: repository.object_format(),
            description: described(&repository.description()),
        })
    }

    /// Whether its ids are those of SHA-256.
    pub(super) fn is_sha256(&self) -> bool {
        self.object_format == "sha256"
    }
}

/// The description in the text of git's file `description`: its first line, unless that is the one of git's template.
fn described(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    if line.starts_with("Unnamed repository") {
        return String::new();
    }
    line.chars().filter(|c| !c.is_control()).take(MAX_DESCRIPTION).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_one_line_and_not_that_of_the_template() {
        for (text, expected) in [
            ("Unnamed repository; edit this file 'description' to name the repository.\n", ""),
            ("Widgets for all\nmore\n", "Widgets for all"),
            ("a\u{7}b", "ab"),
            ("", ""),
        ] {
            assert_eq!(described(text), expected);
        }
        assert_eq!(described(&"é".repeat(400)).chars().count(), MAX_DESCRIPTION);
    }
}
