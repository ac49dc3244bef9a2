//! Whom a repository is shared with, as `core.sharedRepository` says it (git-config(1)). Only two functions change a file.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

/// The permissions that the files of a repository have for others than their owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// What the umask leaves.
    Umask,
    /// Permission bits of files that git adds for a group, or for everybody.
    Add(u32),
    /// An octal value: exactly these bits of files.
    Exactly(u32),
}

impl Sharing {
    /// Reads the value as git does; one that git would not know counts as `umask`.
    #[must_use]
    pub fn from_config(value: Option<&str>) -> Self {
        match value.unwrap_or("umask").to_ascii_lowercase().as_str() {
            "group" | "true" | "yes" | "on" | "1" => Self::Add(0o660),
            "all" | "world" | "everybody" | "2" => Self::Add(0o664),
            octal => match u32::from_str_radix(octal, 8) {
                Ok(mode) if mode & 0o600 == 0o600 && mode > 2 => Self::Exactly(mode & 0o666),
                _ => Self::Umask,
            },
        }
    }

    /// Whether the group may write.
    #[must_use]
    pub fn is_writable_for_others(self) -> bool {
        self.private_mode() & 0o020 != 0
    }

    /// The permissions of a new directory; `None` leaves them to the umask.
    #[must_use]
    pub fn directory_mode(self) -> Option<u32> {
        let with_search = |files: u32| files | (files & 0o444) >> 2;
        match self {
            Self::Umask => None,
            Self::Add(files) | Self::Exactly(files) => Some(0o2700 | with_search(files)),
        }
    }

    /// The permissions of a file that only the owner may open, and the group if the repository is shared with it.
    #[must_use]
    pub fn private_mode(self) -> u32 {
        match self {
            Self::Umask => 0o600,
            Self::Add(files) | Self::Exactly(files) => 0o600 | files & 0o060,
        }
    }

    /// Makes a new file readable for everybody, and writable for the group if the repository is shared with it. An octal value of
    /// `core.sharedRepository` sets the bits exactly.
    ///
    /// # Errors
    /// The operating system's.
    pub fn publish(self, file: &File) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(self.mode()))
    }

    /// Makes a new file readable for the same users, and writable for the owner alone: what it says counts as the owner's word.
    ///
    /// # Errors
    /// The operating system's.
    pub fn publish_to_readers(self, file: &File) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(self.mode() & !0o022))
    }

    /// The permissions of a file.
    fn mode(self) -> u32 {
        match self {
            Self::Umask => 0o644,
            Self::Add(files) => 0o644 | files,
            Self::Exactly(files) => files,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_git_reads() {
        let modes = [
            (None, None),
            (Some("umask"), None),
            (Some("0"), None),
            (Some("nonsense"), None),
            (Some("group"), Some(0o2770)),
            (Some("1"), Some(0o2770)),
            (Some("True"), Some(0o2770)),
            (Some("world"), Some(0o2775)),
            (Some("2"), Some(0o2775)),
            (Some("0660"), Some(0o2770)),
            (Some("0640"), Some(0o2750)),
        ];
        for (value, mode) in modes {
            assert_eq!(Sharing::from_config(value).directory_mode(), mode, "{value:?}");
        }
    }
}
