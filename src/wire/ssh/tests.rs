//! The command lines of ssh, and what its messages mean.

use super::*;
use crate::wire::{Class, Ssh, Timeouts};

/// A target over ssh with these files.
fn target(identity: Option<&Path>, known_hosts: Option<&Path>, egress: Option<Egress>) -> Target {
    let limit = Duration::from_secs(30);
    Target {
        address: crate::wire::parse("ssh://git@192.0.2.1/x.git").expect("valid").0,
        credentials: crate::credentials::Credentials::default(),
        ssh: Ssh {
            identity: identity.map(Into::into),
            known_hosts: known_hosts.map(Into::into),
            askpass: None,
            options: Vec::new(),
            contacts: Contacts::One,
        },
        ca_file: None,
        proxy: None,
        timeouts: Timeouts { connect: limit, stall: limit, whole: limit },
        egress,
    }
}

fn arguments(target: &Target) -> (Vec<String>, Kind) {
    let (ssh, _, _) = prepare(Some("git"), "192.0.2.1", None, "x", target, None).expect("prepared");
    let words = ssh.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    (words, kind(&ssh, "git@h", None, target))
}

#[test]
fn only_pinned_host_keys_and_the_mirrors_own_key_are_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    for name in ["key", "pins"] {
        std::fs::write(path(name), name).expect("written");
    }
    let has = |words: &[String], word: &str| words.iter().any(|given| given == &format!("-o{word}"));
    let (pinned, _) = arguments(&target(Some(&path("key")), Some(&path("pins")), None));
    for word in ["StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "CheckHostIP=no", "IdentitiesOnly=yes"]
    {
        assert!(has(&pinned, word), "{word}: {pinned:?}");
    }
    assert!(!has(&pinned, "PubkeyAuthentication=no"));
    let (plain, _) = arguments(&target(None, None, None));
    assert!(has(&plain, "StrictHostKeyChecking=yes") && !has(&plain, "GlobalKnownHostsFile=/dev/null"));
    let confined = Some(Egress::new(Vec::new()));
    let (keyless, _) = arguments(&target(None, Some(&path("pins")), confined.clone()));
    for word in ["PubkeyAuthentication=no", "HostName=192.0.2.1", "HostKeyAlias=192.0.2.1", "IdentityAgent=none"] {
        assert!(has(&keyless, word), "{word}: {keyless:?}");
    }
    assert_eq!(keyless[..2], ["-F", "none"], "ssh reads no configuration file");
    // A confined mirror must not use the keys that the administrator's options name.
    let options = ["IdentityFile=/root/key", "identityagent /run/agent", "Compression=yes"].map(str::to_owned);
    for (key, egress, is_named) in [(None, None, true), (Some(path("key")), confined.clone(), false)] {
        let mut target = target(key.as_deref(), Some(&path("pins")), egress);
        target.ssh.options = options.to_vec();
        let (words, _) = arguments(&target);
        let found = options.each_ref().map(|option| has(&words, option));
        assert_eq!(found, [is_named, is_named, true], "{words:?}");
    }
    assert!(
        prepare(None, "192.0.2.1", None, "x", &target(None, None, confined), None).is_err(),
        "a confined mirror needs pinned host keys"
    );
}

#[test]
fn mirrors_with_different_keys_or_pins_share_no_connection() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let kind = |key: &Path, pins: &Path| arguments(&target(Some(key), Some(pins), None)).1;
    let (one, same, other) = (file("one", "a key"), file("same", "a key"), file("other", "another key"));
    let (pins, more) = (file("pins", "a pin"), file("more", "another pin"));
    assert!(kind(&one, &pins) == kind(&same, &pins), "the same contents in other files");
    assert!(kind(&one, &pins) != kind(&other, &pins), "another key");
    assert!(kind(&one, &pins) != kind(&one, &more), "another pin");
}

#[test]
fn quotes_the_path_for_the_shell_of_the_mirror() {
    let expected = r"git-receive-pack '/srv/it'\''s'\!'.git'";
    assert_eq!(remote_command(Service::ReceivePack, "/srv/it's!.git"), expected);
}

#[test]
fn knows_what_a_person_must_fix() {
    let class = |message| {
        let error = error_of("ssh".into(), " with exit status 255".into(), message, None);
        (error.class(), error.to_string())
    };
    for (message, expected) in [
        ("ssh: Could not resolve hostname nowhere: Name or service not known", Class::Temporary),
        ("ssh: connect to host h port 22: Connection refused", Class::Temporary),
        ("Connection closed by 127.0.0.1 port 22", Class::Temporary),
        ("git@h: Permission denied (publickey).", Class::Permanent),
        (
            "No ED25519 host key is known for [127.0.0.1]:22 and you have requested strict checking.\nHost key verification failed.",
            Class::Permanent,
        ),
        ("fatal: '/x.git' does not appear to be a git repository", Class::Permanent),
        ("ERROR: Repository not found.\nfatal: Could not read from remote repository.", Class::Permanent),
    ] {
        assert_eq!(class(message).0, expected, "{message}");
    }
}
