//! Each row of the table, with git's own spellings.

use super::*;

fn remote(name: &str, url: &str) -> GitRemote {
    let urls = vec![url.to_owned()];
    GitRemote { name: name.into(), urls: urls.clone(), push_urls: urls, ..GitRemote::default() }
}

/// What becomes of a remote: `NAME DIRECTION URL KEY=VALUE…`, or `person: …`.
fn said(remote: &GitRemote, wish: Wish<'_>) -> Vec<String> {
    let notes = [("refs/notes/".to_owned(), 12)];
    let text = |found: Found| match found {
        Found::Person { why, .. } => format!("person: {why}"),
        Found::Mirror(mirror) => {
            let value = |change: &Change| match change {
                Change::Text(text) | Change::Toml(text) => text.clone(),
                Change::List(texts) => texts.join(","),
                other => format!("{other:?}"),
            };
            let keys = mirror.keys.iter().filter(|(key, _)| *key != "direction");
            let keys: String = keys.map(|(key, change)| format!(" {key}={}", value(change))).collect();
            format!("{} {} {}{keys}", mirror.name, mirror.direction(), mirror.url)
        }
    };
    propose(remote, &notes, wish).into_iter().map(text).collect()
}

#[test]
fn each_remote_becomes_what_its_row_says() {
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let usual = Wish::default();
    let exact = Wish { is_exact: true, ..usual };
    let plain = GitRemote { fetch: strings(&["+refs/heads/*:refs/remotes/origin/*"]), ..remote("origin", "u") };
    assert_eq!(said(&plain, usual), [""; 0]);
    // git remote add --mirror=push
    let mirror = GitRemote { is_mirror: true, ..remote("gh", "u") };
    assert_eq!(said(&mirror, usual), ["gh push u"]);
    assert_eq!(said(&mirror, exact), ["gh push u prune=mirror refspecs=refs/notes/*"]);
    // git pushes to each URL.
    let three = GitRemote { push_urls: strings(&["/a", "/b", "/c"]), has_push_url: true, ..mirror.clone() };
    assert_eq!(said(&three, usual), ["gh push /a", "gh-2 push /b", "gh-3 push /c"]);
    // git clone --mirror
    let clone = GitRemote { fetch: strings(&["+refs/*:refs/*"]), is_mirror: true, ..remote("origin", "u") };
    assert_eq!(said(&clone, usual), ["origin pull u"]);
    let grokked = GitRemote { name: "_grokmirror".into(), ..clone.clone() };
    assert_eq!(said(&grokked, usual), ["grokmirror pull u"]);
    // git remote add --mirror=fetch, and the old git remote add --mirror
    let fetched = GitRemote { is_mirror: false, name: "up".into(), ..clone.clone() };
    assert_eq!(said(&fetched, usual), ["up pull u"]);
    let old = GitRemote { name: "up".into(), ..clone.clone() };
    assert!(said(&old, usual)[0].contains("--direction"));
    for direction in ["push", "pull", "both"] {
        assert_eq!(said(&old, Wish { direction: Some(direction), ..usual }), [format!("up {direction} u")]);
    }
    let relay = GitRemote { push_urls: strings(&["/p"]), has_push_url: true, ..clone };
    assert_eq!(said(&relay, usual), ["origin pull u", "origin-push push /p"]);
    let forbidden = GitRemote { push_urls: strings(&["DISABLED"]), has_push_url: true, ..remote("gh", "/u") };
    assert_eq!(said(&GitRemote { is_mirror: true, ..forbidden }, usual), [""; 0]);
    // A pushurl counts only if the remote has `mirror` or `push`. Some pushurls are no URLs.
    let unpushed = GitRemote { is_mirror: false, ..relay.clone() };
    assert_eq!(said(&unpushed, usual), ["origin pull u"]);
    assert_eq!(said(&GitRemote { push_urls: strings(&["no_push"]), ..relay.clone() }, usual), ["origin pull u"]);
    let urls =
        |url: &str, push: &str| GitRemote { urls: strings(&[url]), push_urls: strings(&[push]), ..relay.clone() };
    for (url, push) in
        [("https://h/a.git", "ssh://git@h/a.git"), ("https://h/a.git", "https://h/a"), ("git@h:a", "https://h/a")]
    {
        assert!(said(&urls(url, push), usual)[0].contains("one repository"), "{url} {push}");
    }
    // Somebody left GitHub's refs/pull out, or some branches.
    let edited = |specs: &[&str]| GitRemote {
        fetch: strings(specs),
        push_urls: strings(&["u"]),
        has_push_url: false,
        ..relay.clone()
    };
    let both = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    assert_eq!(said(&edited(&both), usual), ["origin pull u"]);
    assert_eq!(said(&edited(&both[..1]), usual), ["origin pull u tags=none"]);
    assert_eq!(said(&edited(&["+refs/*:refs/*", "^refs/pull/*"]), usual), ["origin pull u refspecs=^refs/pull/*"]);
    assert!(said(&edited(&["+refs/heads/*:refs/heads/up/*"]), usual)[0].contains("renames"));
    let broken = GitRemote { error: Some("bad".into()), ..mirror.clone() };
    assert_eq!(said(&broken, usual), ["person: bad"]);
    let nowhere = GitRemote { urls: Vec::new(), push_urls: Vec::new(), ..mirror };
    assert_eq!(said(&nowhere, usual), ["person: it has no URL"]);
}

#[test]
fn refspecs_that_keep_names_choose_refs() {
    let pushes = |specs: &[&str]| {
        let push = specs.iter().map(|spec| (*spec).to_owned()).collect();
        said(&GitRemote { push, ..remote("x", "u") }, Wish::default()).join("; ")
    };
    for (specs, expected) in [
        (&["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"][..], "x push u prune=never"),
        (&["+refs/*:refs/*"], "x push u prune=never"),
        (&["refs/heads/*:refs/heads/*"], "x push u prune=never divergent_refs=keep tags=none"),
        (&["+main"], "x push u prune=never mirror_branch_regex=^main$ tags=none"),
        (
            &["+refs/heads/release/*", "+refs/heads/v1.x", "+refs/tags/v*"],
            "x push u prune=never mirror_branch_regex=^(release/.*|v1\\.x)$ tags=v*",
        ),
        (
            &["+refs/heads/*:refs/heads/*", "+refs/notes/*:refs/notes/*"],
            "x push u prune=never tags=none refspecs=refs/notes/*",
        ),
        (&["+refs/tags/*"], "person: it pushes no branches, and a mirror of ours always has branches"),
        (&["main:master"], "person: 'main:master' renames refs; a mirror keeps their names"),
        (&["+refs/*:refs/*", "^refs/tags/x", "+refs/notes/*"], "x push u prune=never refspecs=^refs/tags/x"),
        (&["main", "^private"], "person: '^private' excludes refs, but does not name them in full (refs/...)"),
        (&["HEAD"], "person: 'HEAD' does not name a branch in full"),
        (&["+tags/v1"], "person: '+tags/v1' does not name a branch in full"),
        (&["+main:refs/heads/main"], "x push u prune=never mirror_branch_regex=^main$ tags=none"),
        (&[":"], "person: ':' pushes matching branches, or deletes, which has no counterpart here"),
        (
            &["+refs/heads/*:refs/heads/*", "^refs/heads/private/*"],
            "x push u prune=never tags=none refspecs=^refs/heads/private/*",
        ),
    ] {
        assert_eq!(pushes(specs), expected, "{specs:?}");
    }
}
