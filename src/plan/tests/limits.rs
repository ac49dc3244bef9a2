//! What one push holds, and what a mirror must be able to do.

use super::*;

#[test]
fn a_push_holds_what_the_limits_allow() {
    let names = ["refs/heads/a", "refs/heads/b", "refs/heads/c", "refs/heads/d"];
    let create = |refname| RefFacts { remote: None, ..facts(refname) };
    let mut seen = observed(names.map(create).to_vec());
    let usual = rules(Divergent::Overwrite, Prune::Merged);
    let sent = |rules: &Rules, seen: &Observed| {
        plan(rules, seen).next_push().iter().map(|decision| decision.name.short()).collect::<Vec<_>>().concat()
    };
    let group = |names: &&str| names.chars().map(|letter| name(&format!("refs/heads/{letter}"))).collect();
    #[rustfmt::skip]
    let table = [
        // at most  groups             the next push
        (None,      &[][..],           "abcd"),
        (Some(3),   &[],               "abc"),
        (Some(0),   &[],               "a"),
        (Some(1),   &["cd", "b"],      "b"),
        (None,      &["ac", "x"],      "ac"),
        (None,      &["x", ""],        "abcd"),
        (Some(2),   &["abd"],          "abd"),
    ];
    for (refs, groups, expected) in table {
        seen.limits = Limits { refs, groups: groups.iter().map(group).collect(), ..Limits::default() };
        assert_eq!(sent(&usual, &seen), expected, "{refs:?} {groups:?}");
        assert_eq!(plan(&usual, &seen).order.len(), 4, "all are sent in the end");
        assert_eq!(sent(&Rules { is_atomic: true, ..usual.clone() }, &seen), "abcd", "an atomic push is not divided");
    }
}

#[test]
fn the_lone_default_branch_has_companions() {
    let create = |refname| RefFacts { remote: None, ..facts(refname) };
    let mut empty = observed(["refs/heads/a", "refs/heads/main", "refs/tags/v1", "refs/tags/v2"].map(create).to_vec());
    empty.mirror.is_empty = true;
    let usual = rules(Divergent::Overwrite, Prune::Merged);
    let packed = |rules: &Rules, seen: &Observed, companions| {
        let limits = Limits { companions, ..seen.limits.clone() };
        let plan = plan(rules, &Observed { limits, ..seen.clone() });
        assert_eq!(plan.next_push()[..], plan.next_pack()[..plan.next.len()]);
        let names: Vec<_> = plan.next_pack()[plan.next.len()..].iter().map(|d| d.name.short()).collect();
        names.join(" ")
    };
    assert_eq!(packed(&usual, &empty, 9), "a v1 v2");
    assert_eq!(packed(&usual, &empty, 2), "a v1");
    assert_eq!(packed(&usual, &empty, 0), "");
    assert_eq!(packed(&Rules { is_atomic: true, ..usual.clone() }, &empty, 9), "", "all is one push");
    let groups = vec![[name("refs/heads/a")].into()];
    let declined = Observed { limits: Limits { groups, ..Limits::default() }, ..empty.clone() };
    assert_eq!(packed(&usual, &declined, 9), "", "another ref is the next push");
    empty.mirror.is_empty = false;
    assert_eq!(packed(&usual, &empty, 9), "");
    assert_eq!(packed(&usual, &observed(vec![]), 9), "");
}

#[test]
fn a_branch_that_goes_alone_goes_in_steps() {
    let usual = rules(Divergent::Overwrite, Prune::Merged);
    let mut seen = observed(["refs/heads/a", "refs/heads/b"].map(facts).to_vec());
    seen.limits = Limits { refs: Some(1), step: Some((name("refs/heads/a"), oid(3))), ..Limits::default() };
    let values = |seen: &Observed| {
        let new_value = |decision: &Decision| (decision.local, decision.new_value());
        plan(&usual, seen).decisions.iter().map(new_value).collect::<Vec<_>>()
    };
    let (whole, in_steps) = ((Some(oid(1)), Some(oid(1))), (Some(oid(1)), Some(oid(3))));
    assert_eq!(values(&seen), [in_steps, whole]);
    seen.limits.step = Some((name("refs/heads/b"), oid(3)));
    assert_eq!(values(&seen), [whole, whole], "another branch than that of the next push");
    seen.limits = Limits { step: Some((name("refs/heads/a"), oid(3))), ..Limits::default() };
    assert_eq!(values(&seen), [whole, whole], "it does not go alone");
}

#[test]
fn a_mirror_that_cannot_do_what_every_push_needs_is_sent_nothing() {
    let usual = rules(Divergent::Overwrite, Prune::Merged);
    let atomic = Rules { is_atomic: true, ..usual.clone() };
    let same = RefFacts { remote: Some(oid(1)), ancestry: Ancestry::Equal, ..facts("refs/heads/c") };
    #[rustfmt::skip]
    let table = [
        // reports, atomic    usual                   an atomic push
        (true,  true,         None,                   None),
        (true,  false,        None,                   Some(Stop::NoAtomic)),
        (false, true,         Some(Stop::NoReport),   Some(Stop::NoReport)),
        (false, false,        Some(Stop::NoReport),   Some(Stop::NoReport)),
    ];
    for (can_report, can_push_atomically, as_usual, as_atomic) in table {
        let mut seen = observed(vec![facts("refs/heads/a")]);
        seen.mirror = Mirror { can_report, can_push_atomically, ..seen.mirror };
        assert_eq!([plan(&usual, &seen).stop, plan(&atomic, &seen).stop], [as_usual, as_atomic]);
        seen.refs = vec![same.clone()];
        assert_eq!(plan(&atomic, &seen).stop, None, "there is nothing to send");
    }
}
