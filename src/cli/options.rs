//! The options that `add` and `set` share. Their doc comments are the texts of `--help` and of the manual page.

use clap::{Args, ValueEnum};

use crate::config::Change;
use crate::credentials;
use crate::mirror::Keys;

/// What `add` and `set` have in common.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// The direction: the mirror gets our refs, we take its refs, or both
    #[arg(long, value_name = "DIRECTION")]
    pub(super) direction: Option<Direction>,
    /// Mirror protected branches only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) only_protected_branches: Option<bool>,
    /// Mirror branches that match this regex (RE2, unanchored, 255 characters at most); empty: all
    #[arg(long, value_name = "RE")]
    pub(super) mirror_branch_regex: Option<String>,
    /// What happens to a ref that someone changed on the mirror
    #[arg(long, value_name = "POLICY")]
    pub(super) divergent_refs: Option<Divergent>,
    /// The same as --divergent-refs=keep; with =false, overwrite
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        conflicts_with = "divergent_refs")]
    pub(super) keep_divergent_refs: Option<bool>,
    /// Which tags: all, none, or a pattern (may be repeated)
    #[arg(long, value_name = "all|none|PATTERN")]
    pub(super) tags: Vec<String>,
    /// Which refs to delete on the mirror if they are not here
    #[arg(long, value_name = "POLICY")]
    pub(super) prune: Option<Prune>,
    /// How to authenticate
    #[arg(long, value_name = "METHOD")]
    pub(super) auth_method: Option<AuthMethod>,
    /// Generate a key of this type; it replaces the mirror's key
    #[arg(long, value_name = "TYPE")]
    pub(super) key_type: Option<KeyType>,
    /// The user name for http
    #[arg(long, value_name = "USER")]
    pub(super) username: Option<String>,
    /// Read the password or token from standard input
    #[arg(long)]
    pub(super) password_stdin: bool,
    /// A host key to pin, as ssh-keyscan(1) prints it (may be repeated); it replaces those pinned before
    #[arg(long, value_name = "LINE")]
    pub(super) host_key: Vec<String>,
    /// A namespace to mirror besides branches and tags, like 'refs/notes/*'; '^refs/heads/private/*' leaves refs out (may be repeated)
    #[arg(long, value_name = "PATTERN")]
    pub(super) refspec: Vec<String>,
}

impl Settings {
    /// The keys that the options change.
    pub(super) fn keys(&self) -> Keys {
        let mut keys = Keys::new();
        if let Some(direction) = self.direction {
            keys.push(("direction", Change::Text(direction.word().into())));
        }
        if let Some(only) = self.only_protected_branches {
            keys.push(("only_protected_branches", Change::Flag(only)));
        }
        match self.mirror_branch_regex.as_deref() {
            None => {}
            Some("") => keys.push(("mirror_branch_regex", Change::Unset)),
            Some(regex) => keys.push(("mirror_branch_regex", Change::Text(regex.to_owned()))),
        }
        let keep = self.keep_divergent_refs.map(|keep| if keep { Divergent::Keep } else { Divergent::Overwrite });
        if let Some(divergent) = self.divergent_refs.or(keep) {
            let word = match divergent {
                Divergent::Overwrite => "overwrite",
                Divergent::Keep => "keep",
                Divergent::Fail => "fail",
            };
            keys.push(("divergent_refs", Change::Text(word.into())));
        }
        match self.tags.as_slice() {
            [] => {}
            [word] if word == "all" || word == "none" => keys.push(("tags", Change::Text(word.clone()))),
            patterns => keys.push(("tags", Change::List(patterns.to_vec()))),
        }
        if let Some(prune) = self.prune {
            let word = match prune {
                Prune::Merged => "merged",
                Prune::Deleted => "deleted",
                Prune::Mirror => "mirror",
                Prune::Never => "never",
            };
            keys.push(("prune", Change::Text(word.into())));
        }
        if let Some(method) = self.auth_method {
            let word = match method {
                AuthMethod::Password => "password",
                AuthMethod::SshPublicKey => "ssh_public_key",
                AuthMethod::None => "none",
            };
            keys.push(("auth_method", Change::Text(word.into())));
        }
        keys.extend(self.username.clone().map(|user| ("username", Change::Text(user))));
        if !self.refspec.is_empty() {
            keys.push(("refspecs", Change::List(self.refspec.clone())));
        }
        keys
    }

    /// The type of the key that is to be made.
    pub(super) fn key_type(&self) -> Option<credentials::KeyType> {
        self.key_type.map(|kind| match kind {
            KeyType::Ed25519 => credentials::KeyType::Ed25519,
            KeyType::Rsa => credentials::KeyType::Rsa,
        })
    }
}

/// `direction`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Direction {
    /// The mirror gets what is pushed here
    Push,
    /// This repository takes what changes in the mirror
    Pull,
    /// Whichever side changed a ref, the other side gets it
    Both,
}

impl Direction {
    /// The value of the key.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Both => "both",
        }
    }
}

/// `divergent_refs`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Divergent {
    /// Our value replaces the mirror's
    Overwrite,
    /// Keep the mirror's value, update the other refs, and report the mirror as failed
    Keep,
    /// Push nothing at all, and report the mirror as failed
    Fail,
}

/// `prune`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Prune {
    /// Refs deleted here whose commits are in the default branch
    Merged,
    /// Refs deleted here that nobody changed on the mirror
    Deleted,
    /// Every ref that is not here
    Mirror,
    /// None
    Never,
}

/// `auth_method`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum AuthMethod {
    /// User name and password or token
    #[value(name = "password")]
    Password,
    /// The key in the mirror's directory
    #[value(name = "ssh_public_key", alias = "ssh-public-key")]
    SshPublicKey,
    /// No credentials of ours: ssh uses its own keys, or the server needs none
    #[value(name = "none")]
    None,
}

/// The type of a key.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum KeyType {
    /// Ed25519
    Ed25519,
    /// RSA with 4096 bits
    Rsa,
}
