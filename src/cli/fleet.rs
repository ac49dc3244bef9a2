//! `fleet` and `status --fleet`: what the database of the fleet knows of all machines.

use std::io::Write;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::args::{Fleet, FleetAction, FleetInit, Status, Switch};
use super::{BEHIND, Base, DONE, now, print_json, render};
use crate::credentials::Redactor;
use crate::fleet::{Access, Error, Look, Only, SeenHost, SeenNode, Shown, init, print};
use crate::status::{Standing, render_time};

/// How many mirrors that are not up to date are listed one by one.
const MAX_SHOWN: usize = 20;
/// How many copies are read at once.
const PAGE: usize = 500;
/// If a clock is wrong by more than this many milliseconds, a line says so.
const CLOCK_OFF: u64 = 5000;

impl Base {
    /// How the database of the fleet is reached.
    pub(super) fn fleet(&self) -> Result<Access, Error> {
        Access::of(&self.server).ok_or(Error::NoFleet)
    }
}

/// `fleet`
pub(super) fn fleet(base: &Base, asked: &Fleet, out: &mut dyn Write) -> anyhow::Result<u8> {
    let access = base.fleet()?;
    match &asked.action {
        None => return show(base, &mut Look::open(&access)?, out),
        Some(FleetAction::Init(FleetInit { print: true })) => out.write_all(print(&access).as_bytes())?,
        Some(FleetAction::Init(_)) => match init(&access)? {
            0 => base.say("made the tables in the schema git_mirror_push"),
            _ => base.say("the tables are up to date"),
        },
        Some(FleetAction::Forget(node)) => Look::open(&access)?.forget(&node.name)?,
    }
    Ok(DONE)
}

/// `silent --fleet`
pub(super) fn silent(base: &Base, state: Switch) -> anyhow::Result<u8> {
    Look::open(&base.fleet()?)?.set_silent(state == Switch::On)?;
    if state == Switch::On {
        base.say("silent: the daemons of the fleet send nothing; pushes are still spooled");
    }
    Ok(DONE)
}

/// Shows the nodes and the hosts, whether silent mode is on, and the URLs that more than one mirror
/// pushes to.
fn show(base: &Base, look: &mut Look, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (nodes, hosts, twins, is_silent) = (look.nodes()?, look.hosts()?, look.twins()?, look.is_silent()?);
    let is_right = nodes.iter().all(|node| node.reachable);
    let status = if is_right { DONE } else { BEHIND };
    // Only live nodes are compared.
    let mut known = nodes.iter().filter(|node| node.reachable).map(|node| &node.limits);
    let first = known.next();
    let is_same = known.all(|other| Some(other) == first);
    if base.global.json {
        let twins: Vec<Value> =
            twins.iter().map(|twins| json!({ "url": twins.url, "mirrors": twins.mirrors })).collect();
        let nodes: Vec<Value> = nodes.iter().map(as_json).collect();
        let hosts: Vec<Value> = hosts.iter().map(host_as_json).collect();
        print_json(
            out,
            &json!({ "nodes": nodes, "hosts": hosts, "hosts_differ": !is_same, "silent": is_silent, "double_urls": twins }),
        )?;
        return Ok(status);
    }
    if nodes.is_empty() {
        base.say("no node yet; a daemon joins when [fleet] is in its configuration");
    }
    for node in &nodes {
        row(base, node, out)?;
    }
    for host in &hosts {
        host_row(host, out)?;
    }
    if is_silent {
        writeln!(out, "silent: the daemons send nothing; 'git mirror-push silent --fleet off' ends it")?;
    }
    if !is_same {
        writeln!(out, "warning: [hosts] is not the same in the configurations of all nodes")?;
    }
    for twins in &twins {
        writeln!(out, "warning: more than one mirror pushes to {}:", twins.url)?;
        for twin in &twins.mirrors {
            writeln!(out, "  {}  {}  {}", twin.node, twin.repository, twin.name)?;
        }
    }
    Ok(status)
}

fn row(base: &Base, node: &SeenNode, out: &mut dyn Write) -> anyhow::Result<()> {
    let counts: Vec<String> = node.mirrors.iter().map(|(state, count)| format!("{count} {}", shown(*state))).collect();
    let all = render::counted(node.mirrors.values().sum(), "mirror", "mirrors");
    let mirrors = if counts.is_empty() { all } else { format!("{all}: {}", counts.join(", ")) };
    let SeenNode { node: name, program, running, waiting, .. } = node;
    let work = match node.reachable {
        true => format!("{running} running, {waiting} waiting"),
        false => format!("last heard from at {}", render_time(node.as_of)),
    };
    writeln!(out, "{name}  {}  {program}  {work}  {mirrors}", render::live(base, node.reachable))?;
    if node.reachable && node.clock_ahead_ms.unsigned_abs() > CLOCK_OFF {
        let side = if node.clock_ahead_ms > 0 { "ahead of" } else { "behind" };
        let seconds = node.clock_ahead_ms.unsigned_abs() / 1000;
        writeln!(out, "  its clock is {seconds} seconds {side} that of the database")?;
    }
    Ok(())
}

fn host_row(host: &SeenHost, out: &mut dyn Write) -> anyhow::Result<()> {
    let limit = |limit: Option<usize>, words: &str| limit.map(|limit| format!("{limit} {words}"));
    let limits = [limit(host.max_jobs, "at once"), limit(host.max_per_minute, "a minute")];
    let limits = limits.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let nodes =
        host.nodes.iter().map(|node| format!("{}: {} running, {} waiting", node.node, node.running, node.waiting));
    let parts = [limits, nodes.collect::<Vec<_>>().join("; ")];
    let parts: Vec<&str> = parts.iter().map(|part| &**part).filter(|part| !part.is_empty()).collect();
    writeln!(out, "{}  {}", host.host, parts.join("  "))?;
    if let Some(until) = until(host) {
        let clean =
            |text: &Option<String>| Redactor::default().clean(text.as_deref().unwrap_or_default()).on_one_line();
        let (said, node) = (clean(&host.said), clean(&host.said_to));
        writeln!(out, "  it has asked node {node} to wait until {}: {said}", render_time(until))?;
    }
    Ok(())
}

/// Until when a host has asked for no contact, by the clock of this machine.
fn until(host: &SeenHost) -> Option<Timestamp> {
    let left = host.wait_ms.filter(|left| *left > 0)?;
    now().checked_add(SignedDuration::from_millis(left)).ok()
}

fn host_as_json(host: &SeenHost) -> Value {
    let until = until(host);
    json!({
        "host": host.host, "max_jobs": host.max_jobs, "max_per_minute": host.max_per_minute, "nodes": host.nodes,
        "wait_until": until.map(render_time), "said": host.said.as_ref().filter(|_| until.is_some()),
        "said_to": host.said_to.as_ref().filter(|_| until.is_some()),
    })
}

fn as_json(node: &SeenNode) -> Value {
    let mirrors: serde_json::Map<String, Value> =
        node.mirrors.iter().map(|(state, count)| (state.word().to_owned(), (*count).into())).collect();
    json!({
        "node": node.node, "reachable": node.reachable, "as_of": render_time(node.as_of), "since": render_time(node.since),
        "program": node.program, "advertise": Some(&node.advertise).filter(|url| !url.is_empty()),
        "clock_ahead_ms": node.clock_ahead_ms, "running": node.running, "waiting": node.waiting, "mirrors": mirrors,
    })
}

fn shown(state: Standing) -> String {
    state.word().replace('_', " ")
}

/// Whether a mirror in this state is not up to date.
fn is_behind(state: Standing) -> bool {
    !matches!(state, Standing::UpToDate | Standing::NeverTried | Standing::Disabled)
}

/// `status --fleet`
pub(super) fn status(base: &Base, asked: &Status, out: &mut dyn Write) -> anyhow::Result<u8> {
    let mut look = Look::open(&base.fleet()?)?;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let only = Only { node: text(&asked.node), host: text(&asked.host), state: asked.state };
    let (counts, nodes) = (look.counts(&only)?, look.nodes()?);
    anyhow::ensure!(
        only.node.is_empty() || nodes.iter().any(|node| node.node == only.node),
        Error::NoNode(only.node.clone())
    );
    let gone: Vec<&SeenNode> =
        nodes.iter().filter(|node| !node.reachable && (only.node.is_empty() || node.node == only.node)).collect();
    let behind = counts.mirrors.iter().filter(|(state, _)| is_behind(**state)).map(|(_, count)| count).sum::<usize>();
    if base.global.json {
        all_as_json(&mut look, &only, out)?;
    } else {
        let of: Vec<String> =
            counts.mirrors.iter().map(|(state, count)| format!("{count} {}", shown(*state))).collect();
        let all = render::counted(counts.mirrors.values().sum(), "mirror", "mirrors");
        writeln!(out, "{}", if of.is_empty() { all } else { format!("{all}: {}", of.join(", ")) })?;
        for node in &gone {
            let since = render_time(node.as_of);
            writeln!(out, "node {} is gone since {since}; its mirrors are shown as they were then", node.node)?;
        }
        let listed = some_as_text(base, &mut look, &only, out)?;
        if behind > listed && base.global.verbose == 0 {
            writeln!(out, "and {} more; -v shows them all", behind - listed)?;
        }
    }
    Ok(if behind > 0 || !gone.is_empty() { BEHIND } else { DONE })
}

/// Lists the first mirrors that are not up to date; with `-v`, all mirrors. Returns how many.
fn some_as_text(base: &Base, look: &mut Look, only: &Only, out: &mut dyn Write) -> anyhow::Result<usize> {
    let is_verbose = base.global.verbose > 0;
    let mut listed = 0;
    each(look, only, if is_verbose { PAGE } else { MAX_SHOWN }, &mut |mirror| {
        let is_meant = is_verbose || mirror.state().is_some_and(is_behind) && listed < MAX_SHOWN;
        if is_meant {
            listed += 1;
            render::copied(base, mirror, out)?;
        }
        Ok(is_meant)
    })?;
    Ok(listed)
}

fn all_as_json(look: &mut Look, only: &Only, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut before = "[";
    each(look, only, PAGE, &mut |mirror| {
        let mut shown = mirror.shown.clone();
        shown.insert("node".into(), mirror.node.as_str().into());
        shown.insert("reachable".into(), mirror.reachable.into());
        shown.insert("as_of".into(), render_time(mirror.as_of).into());
        // The layout is the same as when serde_json prints an array.
        write!(out, "{before}\n  {}", serde_json::to_string_pretty(&shown)?.replace('\n', "\n  "))?;
        before = ",";
        Ok(true)
    })?;
    Ok(writeln!(out, "{}", if before == "[" { "[]" } else { "\n]" })?)
}

/// Calls `act` with the mirrors in the order of [`Look::mirrors`], until it returns `false`.
fn each(
    look: &mut Look,
    only: &Only,
    page: usize,
    act: &mut dyn FnMut(&Shown) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut last: Option<Shown> = None;
    loop {
        let found = look.mirrors(only, last.as_ref(), page)?;
        for mirror in &found {
            if !act(mirror)? {
                return Ok(());
            }
        }
        if found.len() < page {
            return Ok(());
        }
        last = found.into_iter().next_back();
    }
}
