//! Addresses as people write them, and what is refused.

use super::*;

fn shown(text: &str) -> String {
    parse(text)
        .map_or_else(|refused| format!("refused: {refused}"), |(address, credentials)| address.shown(&credentials))
}

#[test]
fn two_addresses_of_one_repository_have_one_identity() {
    let identity = |text: &str| parse(text).expect("valid").0.identity();
    for (one, two) in [
        ("git@H:acme/x", "ssh://git@h:22/~/acme/x/"),
        // All users of a forge connect as `git`. An address without a user counts as one with
        // `git`.
        ("git@h:acme/x", "h:acme/x"),
        ("alice@h:x", "ssh://alice@h/~/x"),
        ("alice@h:x", "ssh://bob@h/~alice/x"),
        ("ssh://alice@h/srv/x", "ssh://bob@h/srv/x"),
        ("https://a:b@h/x/", "https://H:443/x"),
        ("file:///srv//x/", "/srv/x"),
    ] {
        assert_eq!(identity(one), identity(two));
    }
    for (one, two) in [
        ("alice@h:x", "bob@h:x"),
        ("alice@h:x", "git@h:x"),
        ("ssh://alice@h/~/x", "ssh://bob@h/~/x"),
        ("h:x", "h:/x"),
        ("ssh://h/x", "ssh://h:2222/x"),
        ("http://h/x", "https://h/x"),
        ("https://h/x", "https://h/X"),
    ] {
        assert_ne!(identity(one), identity(two));
    }
}

#[test]
fn reads_and_shows_every_form() {
    for (text, expected) in [
        ("https://github.com/acme/widget.git", "https://github.com/acme/widget.git"),
        ("https://bot:p%40ss@github.com/acme/widget.git/", "https://bot@github.com/acme/widget.git"),
        ("HTTPS://token@h:8443/x", "https://token@h:8443/x"),
        ("https://ghp_abc@github.com/x", "https://*****@github.com/x"),
        ("https://github_pat_11AB@github.com/x", "https://*****@github.com/x"),
        ("https://glpat-x_y@gitlab.com/x", "https://*****@gitlab.com/x"),
        ("https://0123456789abcdef0123@h/x", "https://*****@h/x"),
        ("https://0123456789abcdef0123:secret@h/x", "https://0123456789abcdef0123@h/x"),
        ("https://ghp_abc:x-oauth-basic@github.com/x", "https://*****@github.com/x"),
        ("https://good.example%2fx%40:pw@h/x", "https://good.example%2Fx%40@h/x"),
        ("ssh://git@h:2222/srv/x.git", "ssh://git@h:2222/srv/x.git"),
        ("ssh://alice@[::1]/~/x.git", "ssh://alice@[::1]/~/x.git"),
        ("git@h:acme/x.git", "ssh://git@h/acme/x.git"),
        ("h:~/x", "ssh://h/~/x"),
        ("[::1]:x", "ssh://[::1]/x"),
        ("h:/]x", "ssh://h/]x"),
        ("git://h/x.git", "git://h/x.git"),
        ("git://[::1]:9999/x", "git://[::1]:9999/x"),
        ("file:///srv/x.git", "/srv/x.git"),
        ("/srv/a:b", "/srv/a:b"),
        ("./a:b", "./a:b"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
    let (_, credentials) = parse("https://bot:p%40ss@h/x").expect("valid");
    assert_eq!(credentials.username.as_deref(), Some("bot"));
    assert_eq!(credentials.secret.expect("given").expose(), "p@ss");
}

#[test]
fn refuses_what_could_run_a_program_or_be_misread() {
    for text in [
        "",
        "-oProxyCommand=x",
        "ssh://-oProxyCommand=x/y",
        "-oProxyCommand=x:y",
        "a@-oProxyCommand=x:y",
        "h:-oProxyCommand=x",
        "ssh://-u@h/x",
        "ext::sh -c id",
        "foo::https://h/x",
        "ftp://h/x",
        "https://h",
        "https:///x",
        "https://h/x?y",
        "git://u@h/x",
        "https://h\n/x",
        "ssh://h:0x/y",
        "file://host/x",
        "git://h/%00",
        "https://h%20/x",
        "ssh://$(id)/x",
        "a;b@h:x",
        "h`id`:x",
        // In each of these, two parsers could find different hosts.
        "http://[192.0.2.1].127.0.0.1/x",
        "http://[::1]x/x",
        "http://127.0.0.1:80:80/x",
        "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/x",
        "http://127.0.0.1\\@h/x",
        "ssh://git@h:22:22/x",
        "git://h:1:2/x",
        "ssh://h:+22/x",
        "http://h:+80/x",
        "git://h:0/x",
        "[h]x:y",
    ] {
        assert!(shown(text).starts_with("refused"), "{text:?} gave {}", shown(text));
    }
}
