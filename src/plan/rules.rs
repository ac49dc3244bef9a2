//! What a mirror's configuration says about refs, in the form that decisions need.

use regex::bytes::Regex;

use super::Pattern;
use crate::refs::NameRef;

/// The rules of one mirror.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Which branches are mirrored.
    pub branches: Branches,
    /// Which tags are mirrored.
    pub tags: Tags,
    /// Full-name patterns of the namespaces that the configuration adds.
    pub namespaces: Vec<Pattern>,
    /// Full-name patterns of refs that are left out, whatever else selects them.
    pub excluded: Vec<Pattern>,
    /// What happens to a ref that diverged.
    pub divergent: Divergent,
    /// Of a two-way mirror: what happens to a ref that both sides moved.
    pub conflicts: Option<Conflicts>,
    /// Which refs are deleted on the side that is updated, if the other side lacks them.
    pub prune: Prune,
    /// The guard against a mass deletion.
    pub max_deletes: MaxDeletes,
    /// `atomic`: whether all commands of a run are one push.
    pub is_atomic: bool,
}

/// Which branches are mirrored.
#[derive(Clone, Debug)]
pub enum Branches {
    /// Every branch.
    All,
    /// `only_protected_branches`: those that a pattern matches; none when there is no pattern.
    Protected(Vec<Pattern>),
    /// `mirror_branch_regex`: those whose name without `refs/heads/` matches, unanchored.
    Matching(Regex),
}

/// Which tags are mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// Every tag.
    All,
    /// No tag.
    None,
    /// Those whose name without `refs/tags/` matches a pattern.
    Matching(Vec<Pattern>),
}

/// `divergent_refs`: what happens to a ref that diverged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergent {
    /// The value of the side that is updated is replaced.
    Overwrite,
    /// The ref keeps its value, the other refs are updated, and the mirror is reported as failed.
    Keep,
    /// Nothing at all is pushed or taken.
    Fail,
}

impl Divergent {
    /// The words of files and JSON.
    pub const WORDS: [&str; 3] = ["overwrite", "keep", "fail"];

    /// The word in files and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overwrite => "overwrite",
            Self::Keep => "keep",
            Self::Fail => "fail",
        }
    }
}

/// `conflicts`: what happens to a ref that both sides moved, each to a value that does not contain the other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflicts {
    /// Neither side changes, and the ref is reported.
    #[default]
    Keep,
    /// The mirror gets our value.
    Ours,
    /// We take the mirror's value.
    Theirs,
}

/// `prune`: which refs are deleted on the side that is updated, if the other side lacks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prune {
    /// Those that the other side deleted and whose values are in the default branch of the other
    /// side.
    Merged,
    /// Those that the other side deleted and that nobody changed on the side that is updated.
    Deleted,
    /// All.
    Mirror,
    /// None.
    Never,
}

impl Prune {
    /// The words of files and JSON.
    pub const WORDS: [&str; 4] = ["merged", "deleted", "mirror", "never"];

    /// The word in files and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Merged => "merged",
            Self::Deleted => "deleted",
            Self::Mirror => "mirror",
            Self::Never => "never",
        }
    }
}

/// `max_deletes`: how many refs one run may delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxDeletes {
    /// Unset: at most 50, or half of the selected refs of the side that is updated if that is more.
    Default,
    /// This many.
    Limit(usize),
    /// `--allow-mass-delete`.
    Unlimited,
}

impl Rules {
    /// Whether the ref is mirrored at all. Any other ref is invisible: it is never pushed, taken,
    /// deleted or reported.
    #[must_use]
    pub fn selects(&self, name: NameRef<'_>) -> bool {
        if self.excluded.iter().any(|pattern| pattern.matches(name.as_bytes())) {
            false
        } else if let Some(branch) = name.branch() {
            match &self.branches {
                Branches::All => true,
                Branches::Protected(patterns) => patterns.iter().any(|pattern| pattern.matches(branch)),
                Branches::Matching(regex) => regex.is_match(branch),
            }
        } else if let Some(tag) = name.tag() {
            match &self.tags {
                Tags::All => true,
                Tags::None => false,
                Tags::Matching(patterns) => patterns.iter().any(|pattern| pattern.matches(tag)),
            }
        } else {
            self.namespaces.iter().any(|pattern| pattern.matches(name.as_bytes()))
        }
    }

    /// Beginnings of names: every ref that is selected has one of them.
    #[must_use]
    pub fn prefixes(&self) -> Vec<Vec<u8>> {
        let below = |directory: &[u8], patterns: &[Pattern]| -> Vec<Vec<u8>> {
            patterns.iter().map(|pattern| [directory, pattern.beginning()].concat()).collect()
        };
        let mut prefixes = match &self.branches {
            Branches::All | Branches::Matching(_) => vec![b"refs/heads/".to_vec()],
            Branches::Protected(patterns) => below(b"refs/heads/", patterns),
        };
        prefixes.extend(match &self.tags {
            Tags::All => vec![b"refs/tags/".to_vec()],
            Tags::None => Vec::new(),
            Tags::Matching(patterns) => below(b"refs/tags/", patterns),
        });
        prefixes.extend(below(b"", &self.namespaces));
        prefixes
    }

    /// Whether no branch at all can be selected, which `status` mentions.
    #[must_use]
    pub fn selects_no_branch(&self) -> bool {
        matches!(&self.branches, Branches::Protected(patterns) if patterns.is_empty())
    }
}
