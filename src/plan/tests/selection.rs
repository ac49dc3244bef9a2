//! Which refs the rules select.

use super::*;

#[test]
fn an_empty_selection_selects_nothing() {
    let none = Rules { branches: Branches::Protected(vec![]), ..rules(Divergent::Overwrite, Prune::Mirror) };
    let seen = observed(vec![facts("refs/heads/main"), facts("refs/tags/v1"), deletable("refs/heads/x")]);
    assert!(none.selects_no_branch());
    assert_eq!(decided(&none, &seen), ["forced update"], "the tag alone");
}

#[test]
fn what_is_not_selected_is_invisible() {
    let some = Rules {
        branches: Branches::Matching(regex::bytes::Regex::new("^(main|release/.*)$").expect("valid")),
        tags: Tags::Matching(vec![Pattern::new(b"v*")]),
        namespaces: vec![Pattern::new(b"refs/notes/*")],
        excluded: vec![Pattern::new(b"refs/heads/release/secret*"), Pattern::new(b"refs/notes/x")],
        ..rules(Divergent::Overwrite, Prune::Mirror)
    };
    for (refname, selected) in [
        ("refs/heads/main", true),
        ("refs/heads/release/1", true),
        ("refs/heads/release/secret/1", false),
        ("refs/notes/x", false),
        ("refs/heads/maintenance", false),
        ("refs/tags/v1", true),
        ("refs/tags/x1", false),
        ("refs/notes/commits", true),
        ("refs/pull/1/head", false),
    ] {
        assert_eq!(some.selects(name(refname).borrowed()), selected, "{refname}");
        for situation in [facts(refname), deletable(refname)] {
            assert_eq!(plan(&some, &observed(vec![situation])).decisions.len(), usize::from(selected), "{refname}");
        }
    }
}
