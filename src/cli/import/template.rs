//! If the mirrors of all repositories differ only in the URL, one template in the server's file can
//! replace them.
//!
//! A template applies to every repository below the roots. So we make a template only if every
//! repository has the mirror. Otherwise more would be sent than before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Addition, Judged, Verdict};
use crate::cli::Base;
use crate::config::{Change, NewTemplate, Placed, common_url};
use crate::credentials::Secret;

/// With fewer repositories, no template is made.
const FEWEST: usize = 10;

/// The mirrors that one template can replace.
pub(super) struct Group {
    pub(super) template: NewTemplate,
    /// Their indexes.
    pub(super) members: Vec<usize>,
}

/// Finds the groups of mirrors that differ only in the URL.
pub(super) fn groups(base: &Base, additions: &BTreeMap<PathBuf, Vec<usize>>, judged: &[Judged]) -> Vec<Group> {
    let Ok(all) = base.server.repositories() else { return Vec::new() };
    if all.len() < FEWEST {
        return Vec::new();
    }
    let all: BTreeSet<&PathBuf> = all.iter().collect();
    // The mirrors, grouped by everything but the URL.
    let mut alike: BTreeMap<String, Vec<(&PathBuf, usize, &Addition)>> = BTreeMap::new();
    for (path, at) in additions.iter().flat_map(|(path, all)| all.iter().map(move |at| (path, *at))) {
        if let Verdict::Add(addition) = &judged[at].verdict {
            alike.entry(rule(addition)).or_default().push((path, at, addition));
        }
    }
    let group = |members: Vec<(&PathBuf, usize, &Addition)>| {
        let there: BTreeSet<&PathBuf> = members.iter().map(|(path, ..)| *path).collect();
        let urls: Vec<(Placed, &str)> = members
            .iter()
            .map(|(path, _, addition)| Some((base.server.place(path)?, url_of(addition)?)))
            .collect::<Option<_>>()?;
        let url = common_url(&urls).filter(|_| there == all && members.len() == all.len())?;
        let first = members.first()?.2;
        let mut keys = first.keys.clone();
        keys.iter_mut().filter(|(key, _)| *key == "url").for_each(|(_, change)| *change = Change::Text(url.clone()));
        let template = NewTemplate { name: first.name.clone(), keys, secret: first.secret.clone() };
        Some(Group { template, members: members.into_iter().map(|(_, at, _)| at).collect() })
    };
    alike.into_values().filter_map(group).collect()
}

fn url_of(addition: &Addition) -> Option<&str> {
    addition.keys.iter().find_map(|(key, change)| match change {
        Change::Text(url) if *key == "url" => Some(&**url),
        _ => None,
    })
}

/// Everything but the URL. It is only compared, and never shown.
fn rule(addition: &Addition) -> String {
    let keys: Vec<_> = addition.keys.iter().filter(|(key, _)| *key != "url").collect();
    format!("{} {keys:?} {:?}", addition.name, addition.secret.as_ref().map(Secret::expose))
}

/// Names the templates that `--template` would write.
pub(super) fn propose(base: &Base, additions: &BTreeMap<PathBuf, Vec<usize>>, judged: &[Judged]) {
    for group in groups(base, additions, judged) {
        let (count, name) = (group.members.len(), &group.template.name);
        base.say(&format!(
            "mirror '{name}' is the same in all {count} repositories; --template writes it once, in the server's conf.d"
        ));
    }
}
