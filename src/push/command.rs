//! The request of a push: update commands, capabilities, push options (gitprotocol-pack(5), "Reference Update Request").

use gix_transport::packetline::blocking_io::encode;

use super::{Capabilities, Progress};
use crate::refs::{Oid, RefName};

/// One update command. The old value is the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The value that the mirror must have; null for a create.
    pub old: Oid,
    /// The value that it gets; null for a delete.
    pub new: Oid,
    /// The ref.
    pub name: RefName,
}

/// What is asked of a mirror at once.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The commands, in sending order.
    pub commands: &'a [Command],
    /// Where our history ends (`shallow` lines, gitprotocol-pack(5)).
    pub shallow: &'a [Oid],
    /// Sent when the mirror offers `push-options`.
    pub push_options: &'a [String],
    /// All or nothing.
    pub is_atomic: bool,
    /// Receives the progress. If it is `None` or nobody watches it, the request asks for `quiet`.
    pub progress: Option<&'a Progress>,
}

impl Request<'_> {
    /// Whether a pack must follow. Every command but a delete needs one, even if the pack holds no object.
    #[must_use]
    pub fn needs_pack(&self) -> bool {
        self.commands.iter().any(|command| !command.new.is_null())
    }

    /// The packet lines before the pack.
    pub(super) fn encode(&self, capabilities: &Capabilities) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.commands.len() * 128 + 256);
        let sends_options = capabilities.push_options && !self.push_options.is_empty();
        let mut wanted = self.wanted(capabilities, sends_options);
        for boundary in self.shallow {
            encode::data_to_write(format!("shallow {boundary}").as_bytes(), &mut out).expect("an id is short");
        }
        for command in self.commands {
            let mut line = format!("{} {} ", command.old, command.new).into_bytes();
            line.extend_from_slice(command.name.as_bytes());
            line.append(&mut wanted);
            encode::data_to_write(&line, &mut out).expect("a ref name fits in a packet line");
        }
        out.extend_from_slice(b"0000");
        if sends_options {
            for option in self.push_options {
                encode::data_to_write(option.as_bytes(), &mut out).expect("the configuration bounds push options");
            }
            out.extend_from_slice(b"0000");
        }
        out
    }

    fn wanted(&self, offered: &Capabilities, sends_options: bool) -> Vec<u8> {
        let format = format!("object-format={}", offered.object_format);
        let wanted = [
            (offered.report_status_v2, "report-status-v2"),
            (offered.report_status && !offered.report_status_v2, "report-status"),
            (offered.side_band_64k, "side-band-64k"),
            (offered.quiet && !self.progress.is_some_and(Progress::is_watched), "quiet"),
            (offered.atomic && self.is_atomic, "atomic"),
            (sends_options, "push-options"),
            (offered.is_format_said, &*format),
            (offered.agent, concat!("agent=git-mirror-push/", env!("CARGO_PKG_VERSION"))),
        ];
        let words: Vec<&str> = wanted.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, word)| word).collect();
        format!("\0 {}", words.join(" ")).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_only_for_what_is_offered() {
        let oid = Oid::from_hex(&[b'1'; 40]).expect("valid");
        let name = |text: &str| RefName::new(text.as_bytes()).expect("valid");
        let commands = [
            Command { old: oid.null(), new: oid, name: name("refs/heads/a") },
            Command { old: oid, new: oid.null(), name: name("refs/heads/b") },
        ];
        let request = Request {
            commands: &commands,
            shallow: &[],
            push_options: &["x".into()],
            is_atomic: false,
            progress: None,
        };
        let offered =
            Capabilities { report_status: true, quiet: true, object_format: "sha1".into(), ..Default::default() };
        let (ones, zeros) = ("1".repeat(40), "0".repeat(40));
        let expected =
            format!("0077{zeros} {ones} refs/heads/a\0 report-status quiet0062{ones} {zeros} refs/heads/b0000");
        assert_eq!(String::from_utf8_lossy(&request.encode(&offered)), expected);
        assert!(request.needs_pack());
        // With a watcher, the mirror must send its progress.
        let progress = Progress::default();
        let watched = Request { progress: Some(&progress), ..request };
        assert_eq!(String::from_utf8_lossy(&watched.encode(&offered)), expected, "nobody watches yet");
        progress.watch();
        assert!(!String::from_utf8_lossy(&watched.encode(&offered)).contains("quiet"));
        let shallow = Request { shallow: &[oid], ..request };
        assert!(shallow.encode(&offered).starts_with(format!("0034shallow {ones}0077{zeros}").as_bytes()));
        let with_options = Capabilities { push_options: true, ..offered };
        assert!(request.encode(&with_options).ends_with(b"00000005x0000"));
    }
}
