//! The table of failures in `wire/error.rs`: the tests cause each of them, with a real server if one can fail in that way.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Sandbox, script};
use crate::scene::servers::{Kind, PASSWORD, Server};

const TABLE: &str = include_str!("../../../src/wire/error.rs");

fn rows() -> Vec<[String; 3]> {
    let lines = TABLE.lines().filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"));
    let cells = lines.map(|line| line.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    cells.skip(1).map(|cells| cells.try_into().unwrap()).collect()
}

/// A server that sends `says` after the first bytes of each connection and hangs up. With `None` it sends nothing and does not hang up.
fn rude(says: Option<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut client in listener.incoming().flatten() {
            match says {
                None => open.push(client),
                Some(words) => {
                    let _ = client.read(&mut [0; 4096]).and_then(|_| client.write_all(words.as_bytes()));
                }
            }
        }
    });
    port
}

/// The servers and repositories of one test.
struct Servers {
    sandbox: Sandbox,
    mirror: PathBuf,
    source: PathBuf,
    servers: Vec<(Kind, Server)>,
}

impl Servers {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let source = sandbox.source("mirror.git", &[]);
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main", "main:topic"]);
        Self { sandbox, mirror, source, servers: Vec::new() }
    }

    /// The server of this kind, started once.
    fn server(&mut self, kind: Kind) -> &Server {
        if !self.servers.iter().any(|(known, _)| *known == kind) {
            self.servers.push((kind, Server::start(&self.sandbox, kind)));
        }
        &self.servers.iter().find(|(known, _)| *known == kind).unwrap().1
    }

    fn hook(&self, name: &str, text: &str) {
        let hook = self.mirror.join("hooks").join(name);
        script(&hook, &format!("#!/bin/sh\n{text}\n"));
    }

    /// Sets the stage for a failure; returns the URL and lines of configuration.
    fn stage(&mut self, transport: &str, failure: &str) -> (String, &'static str) {
        let scheme = if transport == "https" { "http" } else { transport };
        let at = |port: u16| format!("{scheme}://127.0.0.1:{port}/mirror.git");
        const SHORT: &str = "stall_timeout = \"1s\"";
        if let Some(status) = failure.strip_prefix("status ") {
            return (format!("http://127.0.0.1:{}/status/{status}/x.git", self.server(Kind::Http).port()), "");
        }
        match (transport, failure) {
            ("path", "confined, and on this machine") => (self.mirror.display().to_string(), "confined = true"),
            (_, "confined, and on this machine") => (at(1), "confined = true"),
            ("path", failure) => (self.stage_path(failure), SHORT),
            (_, "host name unknown") => (format!("{scheme}://nowhere.invalid/x.git"), ""),
            (_, "connection refused") => (at(1), ""),
            (_, "hangs up") => (at(rude(Some(""))), ""),
            (_, "sends nonsense") => (at(rude(Some("I am a teapot, and this is no protocol at all\r\n"))), ""),
            (_, "says nothing") => (at(rude(None)), SHORT),
            ("git", "no such repository") => (self.server(Kind::Git).url("none.git"), ""),
            ("git", "pushing not enabled") => {
                self.sandbox.git(&self.mirror, &["config", "daemon.receivepack", "false"]);
                (self.server(Kind::Git).url("mirror.git"), "")
            }
            ("http", "no such repository") => (self.server(Kind::Http).url("none.git"), "allow_insecure_http = true"),
            ("http", "password over plain http") => (self.server(Kind::Http).url("mirror.git"), ""),
            ("http", "not smart HTTP") => {
                (format!("http://127.0.0.1:{}/dumb/x.git", self.server(Kind::Http).port()), "")
            }
            ("ssh", failure) => (self.stage_ssh(failure), ""),
            ("https", failure) => self.stage_https(failure),
            other => panic!("a row that no test makes happen: {other:?}"),
        }
    }

    fn stage_path(&self, failure: &str) -> String {
        let mirror = self.mirror.display().to_string();
        match failure {
            "no such directory" => return "/nowhere/mirror.git".into(),
            "no repository in it" => return self.sandbox.path("home").display().to_string(),
            "another object format" => {
                let formats = (self.sandbox.other_hash(), self.sandbox.formats().1);
                return self.sandbox.bare_of("other.git", formats).display().to_string();
            }
            "a repository of another user" => std::os::unix::fs::chown(&self.mirror, Some(65_534), None).unwrap(),
            "receive-pack dies" => self.hook("update", "kill -9 $PPID"),
            "receive-pack stalls" => self.hook("pre-receive", "exec sleep 55"),
            "a ref is locked there" => {
                let lock = if self.sandbox.formats().1 == "files" {
                    "refs/heads/topic.lock"
                } else {
                    "reftable/tables.list.lock"
                };
                std::fs::write(self.mirror.join(lock), "").unwrap();
            }
            "a ref is refused there" => self.hook("update", "[ $1 != refs/heads/topic ]"),
            other => panic!("a row that no test makes happen: {other}"),
        }
        mirror
    }

    fn stage_ssh(&mut self, failure: &str) -> String {
        let name = if failure == "no such repository" { "none.git" } else { "mirror.git" };
        let url = self.server(Kind::Ssh).url(name);
        self.server(Kind::Ssh);
        let (_, server) = self.servers.iter().find(|(kind, _)| *kind == Kind::Ssh).unwrap();
        server.configure_access(&self.sandbox, &self.source, "m");
        let directory = self.source.join("mirror-push/remotes/m");
        match failure {
            "no such repository" => {}
            "key refused" => std::fs::write(self.sandbox.path("ssh/authorized_keys"), "").unwrap(),
            "key readable by others" => {
                let key = directory.join("id_ed25519");
                std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
            }
            "host key unknown" => std::fs::write(directory.join("known_hosts"), "").unwrap(),
            "host key changed" => {
                let known = std::fs::read_to_string(directory.join("known_hosts")).unwrap();
                let client = std::fs::read_to_string(self.sandbox.path("ssh/client.pub")).unwrap();
                let host = known.split(' ').next().unwrap();
                std::fs::write(directory.join("known_hosts"), format!("{host} {client}")).unwrap();
            }
            other => panic!("a row that no test makes happen: {other}"),
        }
        url
    }

    fn stage_https(&mut self, failure: &str) -> (String, &'static str) {
        let port = self.server(Kind::Https).port();
        match failure {
            "authority not trusted" => (format!("https://localhost:{port}/mirror.git"), ""),
            "certificate of another host" => {
                (format!("https://127.0.0.1:{port}/mirror.git"), "ca_file = \"tls/ca.pem\"")
            }
            "no TLS at that port" => {
                let port = rude(Some("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
                (format!("https://127.0.0.1:{port}/mirror.git"), "")
            }
            other => panic!("a row that no test makes happen: {other}"),
        }
    }
}

/// Makes one row happen; returns the class that the mirror's status shows, and the text of the failure.
fn observed(transport: &str, failure: &str) -> (&'static str, String) {
    let mut servers = Servers::new();
    let (url, lines) = servers.stage(transport, failure);
    let config = servers.source.join("mirror-push/config.toml");
    let had_known_hosts = known_hosts(&servers.source);
    servers.sandbox.mirror_push_ok(&servers.source, &["set", "m", "--url", &url]);
    if let Some(text) = had_known_hosts {
        std::fs::write(servers.source.join("mirror-push/remotes/m/known_hosts"), text).unwrap();
    }
    let lines = lines.replace("tls/", &format!("{}/", servers.sandbox.path("tls").display()));
    servers.sandbox.add_mirror_config(&servers.source, &lines);
    let said = servers.sandbox.mirror_push(&servers.source, &["sync", "--json"]);
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(!said.out.contains(PASSWORD) && !text.contains(PASSWORD), "{said:?}");
    let report = said.json()[0].clone();
    let failed = report["refs"].as_array().unwrap().iter().filter(|entry| entry["outcome"] != "created").count();
    let class = match (said.status, report["update_status"].as_str().unwrap()) {
        (1, "scheduled") => "temporary",
        (1, "failed") if failed == 1 => "one ref",
        (1, "failed") => "permanent",
        _ => panic!("{transport}, {failure}: {said:?}"),
    };
    let error = report["error"].as_str().unwrap_or_default().to_owned();
    assert!(!error.contains('\n'), "{transport}, {failure}: {error}");
    (class, format!("{error} {}", report["refs"]))
}

fn known_hosts(source: &Path) -> Option<String> {
    std::fs::read_to_string(source.join("mirror-push/remotes/m/known_hosts")).ok()
}

/// What the text of some failures must hold.
fn words(transport: &str, failure: &str) -> &'static str {
    match (transport, failure) {
        (_, "confined, and on this machine") => "is blocked: ",
        ("path", "no such directory") => "is not a directory on this machine",
        ("path", "another object format") => "--object-format=",
        ("path", "receive-pack stalls") | (_, "says nothing") => "stall_timeout",
        ("path", "a ref is locked there") => "cannot lock ref",
        ("git", "host name unknown") => "cannot resolve the host name 'nowhere.invalid'",
        ("git", "connection refused") | ("http", "connection refused") => "cannot connect to '127.0.0.1'",
        ("git" | "http" | "ssh", "no such repository") => "was not found",
        ("git", "pushing not enabled") => "access denied or repository not exported",
        ("ssh", "connection refused") => "Connection refused",
        ("ssh", "key refused") => "refused the credentials",
        ("ssh", "key readable by others") => "id_ed25519', which other users can read; chmod 600 it",
        ("ssh", "host key unknown") => "is not known",
        ("ssh", "host key changed") => "has CHANGED: it offers SHA256:",
        ("http", "status 301" | "status 308") => "redirects are not followed",
        ("http", "status 401" | "status 403" | "status 407") => "refused the credentials",
        ("http", "not smart HTTP") => "does not speak git's smart HTTP protocol",
        ("http", "password over plain http") => "plain http",
        ("https", "authority not trusted") => "was refused: no authority that is trusted here has signed it",
        ("https", "certificate of another host") => "was refused: it is for another host",
        // nginx does not send this status: it hangs up.
        ("http", "status 408") => "broke",
        (_, failure) => failure.strip_prefix("status ").filter(|s| !["404", "410"].contains(s)).map_or("", |_| "HTTP"),
    }
}

/// The fix that the text of some failures must contain, with the real name of the mirror.
fn fix(transport: &str, failure: &str) -> &'static str {
    match (transport, failure) {
        ("path" | "git" | "ssh" | "http", "no such directory" | "no repository in it" | "no such repository") => {
            "git mirror-push set m --url URL"
        }
        ("http", "status 404" | "status 410") => "or give the token access to it",
        ("http", "status 401" | "status 403") => "git mirror-push credential m",
        ("http", "status 407") => "put its URL with both into http_proxy",
        ("http", "status 301" | "status 308") => "git mirror-push set m --url URL",
        ("http", "not smart HTTP") => "give the one that 'git clone' takes: git mirror-push set m",
        ("http", "password over plain http") => "allow_insecure_http = true",
        ("ssh", "key refused") => "git mirror-push set m --auth-method ssh_public_key",
        ("ssh", "host key unknown" | "host key changed") => "git mirror-push host-keys m --detect",
        ("https", "authority not trusted") => "git mirror-push set m ca_file=FILE",
        ("https", "certificate of another host") => "use the name that the certificate has",
        ("https", "no TLS at that port") => "is it an http:// server, or another port?",
        ("path", "another object format") => "git init --bare --object-format=",
        (_, "confined, and on this machine") => "allowed_hosts",
        _ => "",
    }
}

fn check(transports: &[&str]) {
    let rows: Vec<_> = rows().into_iter().filter(|[transport, ..]| transports.contains(&&**transport)).collect();
    assert!(rows.len() > 5, "{rows:?}");
    for [transport, failure, class] in rows {
        if failure == "a repository of another user"
            && !crate::scene::sandbox::is_root("a mirror of another owner is needed")
        {
            continue;
        }
        let (seen, text) = observed(&transport, &failure);
        assert_eq!(seen, class, "{transport}, {failure}: {text}");
        let words = words(&transport, &failure);
        assert!(text.contains(words), "{transport}, {failure}: '{words}' is not in {text}");
        let fix = fix(&transport, &failure);
        assert!(text.contains(fix), "{transport}, {failure}: '{fix}' is not in {text}");
        assert!(!text.contains("NAME"), "{transport}, {failure}: no real name in {text}");
    }
}

#[test]
fn of_a_path() {
    check(&["path"]);
}

#[test]
fn of_git_daemon() {
    check(&["git"]);
}

#[test]
fn of_ssh() {
    check(&["ssh"]);
}

#[test]
fn of_http() {
    check(&["http", "https"]);
}
