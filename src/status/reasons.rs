//! The sentences for the reasons of the plan. Pure.

use crate::credentials::{Cleaned, Redactor};
use crate::plan::{PullReason, Reason};
use crate::refs::Oid;

/// Why a ref is not updated, for people.
pub(super) fn sentence(reason: &Reason) -> Cleaned {
    Redactor::default().clean(&text(reason))
}

fn text(reason: &Reason) -> String {
    let short = |oid: &Option<Oid>| oid.map_or_else(|| "nothing".to_owned(), |oid| oid.short());
    match reason {
        Reason::NameTooLong => "its name is too long for the push protocol".into(),
        Reason::Unreadable => "the ref cannot be read in this repository; see 'git fsck'".into(),
        Reason::MirrorUnreadable => "the mirror's ref, which is on this machine, cannot be read".into(),
        Reason::NoDeletes => "the mirror does not allow deletions (no delete-refs capability)".into(),
        Reason::OtherDiverges => "nothing is updated while another ref diverges (divergent_refs = \"fail\")".into(),
        Reason::Unconfirmed => "nothing is sent before the first contact is confirmed".into(),
        Reason::FirstContact(remote) => format!(
            "the mirror has {}, which this repository does not have, and this is the first contact with it",
            remote.short()
        ),
        Reason::NotHere(remote) => {
            format!("the mirror has {}, which this repository does not have: someone pushed there", remote.short())
        }
        Reason::NotInHistory(remote) => {
            format!("the mirror has {}, which is not in our history: someone else changed it there", remote.short())
        }
        Reason::Flapping { remote, local } => format!(
            "flapping: the mirror has {}, here it is {}, and such an update was undone at least twice within an hour; does another mirror write to this ref? It is sent again when it has a new value, or with 'git mirror-push sync'",
            short(remote),
            short(local)
        ),
        Reason::Conflict { local, remote, base } => format!(
            "both sides moved it from {}: here it is {}, there {}, and neither contains the other; 'git mirror-push conflicts' shows how to resolve it",
            short(base),
            short(local),
            short(remote)
        ),
        Reason::Moved => "the ref changed during this run; the next run decides again".into(),
        Reason::Incomplete(why) => {
            format!("not deleted: the refs of this repository could not be listed completely: {why}")
        }
        Reason::NoRefs => "not deleted: this repository has no refs at all".into(),
        Reason::PruneNever => "this repository does not have it, and prune = \"never\"".into(),
        Reason::NeverHad => "this repository never had it".into(),
        Reason::RemoteNotMerged => "deleted here, but what the mirror has is not merged into the default branch".into(),
        Reason::ValueNotMerged => "deleted here, but what was deleted is not merged into the default branch".into(),
        Reason::Foreign => "deleted here, but the mirror has a value that this repository never had".into(),
        Reason::NotOverwritten => {
            "this repository never had the mirror's value, and divergent_refs is not \"overwrite\"".into()
        }
        Reason::MaybeSymbolic => {
            let why = "it may be a symbolic ref, and deleting it would delete the ref that it names; if it is not, delete it on the mirror by hand";
            format!("this repository never had it, and another ref of the mirror has the same value: {why}")
        }
        Reason::Head { default_branch } => format!(
            "the mirror's HEAD names it; first give the mirror another default branch (git symbolic-ref HEAD refs/heads/{})",
            default_branch.as_ref().map_or_else(|| "NAME".into(), |name| name.short())
        ),
        Reason::HeadUnreadable(why) => {
            format!("not deleted: the mirror's HEAD, which may name it, cannot be read: {why}")
        }
        Reason::Pull(reason) => text_of_pull(reason),
        Reason::TooManyDeletes { count, limit } => format!(
            "{count} refs would be deleted at once and the limit is {limit}; if that is right: git mirror-push sync --allow-mass-delete"
        ),
    }
}

fn text_of_pull(reason: &PullReason) -> String {
    match reason {
        PullReason::DeletedHere => {
            "deleted here, and upstream has not changed it since; to take it again: git mirror-push sync --restore"
                .into()
        }
        PullReason::MovedHere(upstream) => {
            format!("upstream has {}, and someone moved the ref here", upstream.short())
        }
        PullReason::NotMergedUpstream => {
            "upstream deleted it, but what is here is not merged into upstream's default branch".into()
        }
        PullReason::GoneAndMoved => "upstream deleted it, but someone moved it here".into(),
        PullReason::NothingUpstream => "nothing is changed while upstream shows no refs".into(),
        PullReason::Hidden => {
            "the mirror hides it from readers and may still have it; let the mirror's account read it, or leave it out with mirror_branch_regex".into()
        }
        PullReason::OurHead => "upstream deleted it, but HEAD of this repository names it".into(),
        PullReason::Unrelated => "nothing is taken before the first contact is confirmed".into(),
        PullReason::NotContained(upstream) => format!(
            "upstream has {}, whose history does not contain what is here, and this is the first contact with it",
            upstream.short()
        ),
        PullReason::TakenByOther(other) => {
            format!("pull mirror '{other}' selects this ref too; let only one of the two select it")
        }
        PullReason::Unfetched(why) => format!("its value cannot be fetched from upstream: {why}"),
    }
}
