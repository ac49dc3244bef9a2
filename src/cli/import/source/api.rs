//! The mirrors of GitLab, and of Gitea and Forgejo, by their API: pages of projects, then the mirrors of each, four requests at a time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Named, there, wish};
use crate::cli::args::Import;
use crate::cli::{Base, Usage};
use crate::config::DEFAULT_TIMEOUTS;
use crate::credentials::{Credentials, read_token};
use crate::import::{Found, gitea_pull, gitea_push, gitlab_paths, gitlab_pull, gitlab_push};
use crate::wire::{Address, Api, Pool, Reply, Scheme, Ssh, Target, parse, path_segment};

/// Requests at once.
const AT_ONCE: usize = 4;
/// How often a request is sent at most, if the host answers that there are too many.
const TRIES: usize = 5;
/// The longest wait that we accept.
const MAX_WAIT: Duration = Duration::from_secs(120);
/// The largest number of pages that are read.
const MAX_PAGES: usize = 10_000;

/// Opens the API of the host at `url`.
fn open(base: &Base, asked: &Import, url: &str, below: &str, scheme: Scheme) -> anyhow::Result<Api> {
    let Some(file) = &asked.token_file else {
        return Err(Usage("this source needs --token-file FILE, with a token that may read everything".into()).into());
    };
    let url = url.trim_end_matches('/');
    let url = if url.ends_with(below) { url.to_owned() } else { format!("{url}{below}") };
    let (address, user) = parse(&url).map_err(|refused| Usage(refused.to_string()))?;
    if !matches!(address, Address::Http { .. }) || user.username.is_some() || user.secret.is_some() {
        return Err(Usage("the source is the http or https address of a host, without a user name".into()).into());
    }
    let is_loopback = |host: &str| host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let is_here = address.host().is_some_and(|host| host == "localhost" || is_loopback(host));
    if address.is_plain_http() && !is_here {
        return Err(Usage("the token would go over plain http; use https".into()).into());
    }
    let token = read_token(&base.start().join(file), None)?;
    let target = Target {
        address,
        credentials: Credentials::default(),
        ssh: Ssh::default(),
        ca_file: None,
        proxy: None,
        timeouts: DEFAULT_TIMEOUTS,
        egress: None,
    };
    Ok(Api::new(&url, scheme, &token, &target, &Pool::default())?)
}

/// Sends a GET request. If the host asks to wait, waits and sends it again.
fn get(base: &Base, api: &Api, path: &str) -> anyhow::Result<Reply> {
    for _ in 1..TRIES {
        let reply = api.get(path)?;
        let Some(wait) = reply.wait() else { return Ok(reply) };
        let seconds = wait.as_secs();
        if wait > MAX_WAIT {
            bail!("the host wants no more requests for {seconds} s; try again then");
        }
        base.say(&format!("the host asks to wait {seconds} s"));
        std::thread::sleep(wait);
    }
    Ok(api.get(path)?)
}

/// The list in an answer to a request that must succeed.
fn list(reply: Reply) -> anyhow::Result<Vec<Value>> {
    match (reply.status, reply.body) {
        (200, Value::Array(all)) => Ok(all),
        (200, Value::Object(mut map)) if map.get("data").is_some_and(Value::is_array) => match map.remove("data") {
            Some(Value::Array(all)) => Ok(all),
            _ => Ok(Vec::new()),
        },
        (status, body) => {
            let said = body["message"].as_str().or(body["error"].as_str()).unwrap_or("no list came").to_owned();
            bail!("the host answered HTTP {status}: {said}")
        }
    }
}

/// Does `one` for each, four at a time, and keeps the order.
fn each<T: Sync, R: Send>(all: &[T], one: impl Fn(&T) -> anyhow::Result<R> + Sync) -> anyhow::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(all.len()) {
            scope.spawn(|| {
                while let Some((at, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, all.get(at)?)))
                {
                    match one(item) {
                        Ok(result) => done.lock().push((at, result)),
                        Err(error) => {
                            // The other threads end with the request that they wait for.
                            next.store(all.len(), Ordering::Relaxed);
                            failed.lock().get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// What a person is told of a project whose mirrors the token may not see.
fn unreadable(status: u16, needs: &str) -> Vec<Found> {
    vec![Found::Person {
        from: "the API".into(),
        why: format!("the token may not see its mirrors (HTTP {status}): it needs {needs}"),
    }]
}

/// GitLab's push and pull mirrors.
pub(super) fn gitlab(base: &Base, asked: &Import, url: &str, roots: &[PathBuf]) -> anyhow::Result<Named> {
    let api = open(base, asked, url, "/api/v4", Scheme::PrivateToken)?;
    let first = "/projects?pagination=keyset&order_by=id&sort=asc&per_page=100&min_access_level=40&archived=false";
    let (mut projects, mut next) = (Vec::new(), Some(first.to_owned()));
    for _ in 0..MAX_PAGES {
        let Some(path) = next.take() else { break };
        let reply = get(base, &api, &path)?;
        next = reply.header("link").and_then(next_of);
        if next.as_ref().is_some_and(|next| !api.holds(next)) {
            bail!("the host names a next page at another address, which is not asked");
        }
        projects.extend(list(reply).context("cannot list the projects")?);
    }
    if next.is_some() {
        bail!("the host names more than {MAX_PAGES} pages of projects");
    }
    each(&projects, |project| {
        let (path, hashed) = gitlab_paths(project).context("a project has no path")?;
        let id = &project["id"];
        let reply = get(base, &api, &format!("/projects/{id}/remote_mirrors?per_page=100"))?;
        let mut found = match reply.status {
            401 | 403 | 404 => unreadable(reply.status, "the role Maintainer, and the scope read_api"),
            _ => list(reply)
                .with_context(|| format!("cannot list the mirrors of '{path}'"))?
                .iter()
                .map(gitlab_push)
                .collect(),
        };
        if project["mirror"] == true {
            let reply = get(base, &api, &format!("/projects/{id}/mirror/pull"))?;
            found.extend(gitlab_pull(project, Some(&reply.body).filter(|_| reply.status == 200)));
        }
        let is_hashed = there(&path, roots).is_none() && there(&hashed, roots).is_some();
        Ok((if is_hashed { hashed } else { path }, found))
    })
}

/// The address after `rel="next"` in a `Link` header (RFC 8288).
fn next_of(link: &str) -> Option<String> {
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(part.split_once('<')?.1.split_once('>')?.0.to_owned())
}

/// The push and pull mirrors of Gitea and Forgejo.
pub(super) fn gitea(base: &Base, asked: &Import, url: &str) -> anyhow::Result<Named> {
    let api = open(base, asked, url, "/api/v1", Scheme::Token)?;
    let repositories = pages(base, &api, "/repos/search?limit=50").context("cannot list the repositories")?;
    each(&repositories, |repository| {
        let name = repository["full_name"].as_str().context("a repository has no name")?;
        let escaped: Vec<String> = name.split('/').map(path_segment).collect();
        let first = format!("/repos/{}/push_mirrors?limit=50", escaped.join("/"));
        let reply = get(base, &api, &format!("{first}&page=1"))?;
        let mut found: Vec<Found> = match reply.status {
            401 | 403 | 404 => unreadable(reply.status, "the rights of an administrator of the repository"),
            // "Mirror feature is disabled"
            400 => Vec::new(),
            _ => all_of(base, &api, &first, reply)?.iter().map(|mirror| gitea_push(mirror, wish(asked))).collect(),
        };
        found.extend(gitea_pull(repository));
        // On the disk, names are in lower case.
        Ok((name.to_lowercase(), found))
    })
}

fn pages(base: &Base, api: &Api, path: &str) -> anyhow::Result<Vec<Value>> {
    let reply = get(base, api, &format!("{path}&page=1"))?;
    all_of(base, api, path, reply)
}

/// The items of the first page and of the pages after it. `X-Total-Count` is the number of all
/// items. Without this header, only the first page is read.
fn all_of(base: &Base, api: &Api, path: &str, first: Reply) -> anyhow::Result<Vec<Value>> {
    let total = first.header("x-total-count").and_then(|count| count.parse::<usize>().ok());
    let mut all = list(first)?;
    for page in 2..MAX_PAGES {
        if all.len() >= total.unwrap_or(0) {
            break;
        }
        let more = list(get(base, api, &format!("{path}&page={page}"))?)?;
        if more.is_empty() {
            break;
        }
        all.extend(more);
    }
    Ok(all)
}
