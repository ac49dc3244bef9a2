//! What a mirror's configuration can say of the connection: time limits, proxies, push options, atomic pushes. Also the server's file and
//! the commit-graph.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::scene::Scene;
use crate::scene::sandbox::{Sandbox, script};
use crate::scene::servers::{Kind, Server};

/// A server that takes connections and says nothing.
fn mute() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn a_mirror_that_says_nothing_is_given_up_within_its_limits() {
    let sandbox = Sandbox::new();
    let (_listener, port) = mute();
    let stalled = "no data was sent or received within stall_timeout";
    for (url, stall, words) in [
        (format!("git://127.0.0.1:{port}/x.git"), "1s", stalled),
        (format!("http://127.0.0.1:{port}/x.git"), "1s", stalled),
        (format!("ssh://127.0.0.1:{port}/x.git"), "1s", stalled),
        (format!("ssh://127.0.0.1:{port}/x.git"), "30s", "timed out"),
    ] {
        let source = sandbox.bare("source.git");
        sandbox.mirror_push_ok(&source, &["add", "m", &url, "--disabled"]);
        sandbox.add_mirror_config(&source, &format!("connect_timeout = \"1s\"\nstall_timeout = \"{stall}\""));
        let config = source.join("mirror-push/config.toml");
        let text = std::fs::read_to_string(&config).unwrap().replace("enabled = false\n", "");
        std::fs::write(&config, text).unwrap();
        let begin = Instant::now();
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        let took = begin.elapsed();
        let report = said.json()[0].clone();
        assert_eq!(report["update_status"], "scheduled", "{said:?}");
        assert!(report["error"].as_str().unwrap().contains(words), "{url}: {said:?}");
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(6), "{url}: {took:?}");
        std::fs::remove_dir_all(&source).unwrap();
    }
}

#[test]
fn a_mirror_that_stalls_midway_or_takes_too_long_is_ended_with_all_its_processes() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let mark = sandbox.path("mark");
    script(&mirror.join("hooks/pre-receive"), &format!("#!/bin/sh\necho $$ > '{}'\nexec sleep 77\n", mark.display()));
    for (line, words) in [
        ("stall_timeout = \"1s\"", "no data was sent or received within stall_timeout"),
        ("timeout = \"1s\"", "the update took longer than the configured timeout"),
    ] {
        let source = sandbox.source("mirror.git", &[]);
        sandbox.add_mirror_config(&source, line);
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        let begin = Instant::now();
        let said = sandbox.mirror_push(&source, &["drain", "--json"]);
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
        let report = said.json()[0].clone();
        assert!(report["error"].as_str().unwrap().contains(words), "{said:?}");
        assert_eq!(
            (&report["update_status"], &report["refs"][0]["outcome"]),
            (&"scheduled".into(), &"remote_failed".into())
        );
        let hook = std::fs::read_to_string(&mark).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", hook.trim())).unwrap_or_default();
        crate::scene::sandbox::wait_for("the end of the mirror's hook", || {
            state().is_empty() || state().contains(") Z ")
        });
        std::fs::remove_dir_all(&source).unwrap();
        std::fs::remove_dir_all(sandbox.path("source.git.work")).unwrap();
    }
}

/// A proxy that serves only CONNECT. Returns its port and the number of connections to it.
fn proxy() -> (u16, std::sync::Arc<std::sync::atomic::AtomicU32>) {
    let (listener, port) = mute();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&count);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::thread::spawn(move || serve_proxied(client));
        }
    });
    (port, count)
}

fn serve_proxied(mut client: TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let Some(target) = text.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else { return };
    let mut server = TcpStream::connect(target).unwrap();
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    let _ = std::io::copy(&mut server, &mut client);
}

#[test]
fn the_proxy_of_the_environment_or_of_the_configuration_is_used() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Https);
    let source = server.source(&sandbox, "mirror.git", &[]);
    let (port, count) = proxy();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let output =
        sandbox.program(&source).arg("drain").env("https_proxy", format!("http://127.0.0.1:{port}")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let served = || count.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((sandbox.refs(&mirror), served()), (sandbox.refs(&source), 1));
    sandbox.add_mirror_config(&source, &format!("proxy = \"http://127.0.0.1:{port}\""));
    work.commit("two");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!((sandbox.refs(&mirror), served()), (sandbox.refs(&source), 2));
}

#[test]
fn push_options_reach_the_mirrors_hooks() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let seen = sandbox.path("seen");
    script(
        &mirror.join("hooks/pre-receive"),
        &format!("#!/bin/sh\necho $GIT_PUSH_OPTION_COUNT $GIT_PUSH_OPTION_0 > '{}'\n", seen.display()),
    );
    let source = sandbox.source("mirror.git", &[]);
    sandbox.add_mirror_config(&source, "push_options = [\"ci.skip\"]");
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "1 ci.skip\n");
    // A mirror that does not advertise push options gets none. That is no failure.
    sandbox.git(&mirror, &["config", "receive.advertisePushOptions", "false"]);
    work.commit("two");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(std::fs::read_to_string(&seen).unwrap().trim(), "0");
}

#[test]
fn an_atomic_mirror_takes_all_refs_or_none() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    let one = work.commit("one");
    work.push(&["main", "main:topic"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.add_mirror_config(&source, "atomic = true");
    script(&mirror.join("hooks/update"), "#!/bin/sh\n[ \"$1\" != refs/heads/topic ]\n");
    work.commit("two");
    work.push(&["main", "main:topic"]);
    let said = sandbox.mirror_push(&source, &["drain", "--json"]);
    assert_eq!(said.status, 1);
    assert!(sandbox.outcomes(&said).iter().all(|(_, outcome)| outcome == "remote_rejected"), "{said:?}");
    assert_eq!(sandbox.oid(&mirror, "main"), one);
    std::fs::remove_file(mirror.join("hooks/update")).unwrap();
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn the_servers_file_counts_for_all_repositories() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let server = sandbox.path("server.toml");
    std::fs::write(&server, "silent = true\nprotected_branches = [\"x-*\"]\n").unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let named = ["--config", server.to_str().unwrap()];
    let said = sandbox.mirror_push_ok(&source, &[named[0], named[1], "drain"]);
    assert!(said.err.contains("silent") && sandbox.refs(&mirror).is_empty(), "{said:?}");
    assert_eq!(sandbox.mirror_push_ok(&source, &[named[0], named[1], "protected"]).out, "x-*\n");
    let by_environment = sandbox.program(&source).arg("drain").env("GIT_MIRROR_PUSH_CONFIG", &server).output().unwrap();
    assert!(by_environment.status.success() && sandbox.refs(&mirror).is_empty());
    std::fs::write(&server, "\nsilnet = true\n").unwrap();
    let said = sandbox.mirror_push(&source, &[named[0], named[1], "drain"]);
    assert!(said.status == 128 && said.err.contains("server.toml:2: unknown key 'silnet'"), "{said:?}");
    assert_eq!(sandbox.mirror_push(&source, &["--config", "/none.toml", "drain"]).status, 128);
}

#[test]
fn ancestry_is_the_same_with_and_without_a_commit_graph() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    let work = sandbox.work(&source);
    for n in 0..30 {
        work.commit(&n.to_string());
    }
    work.git(&["branch", "side", "HEAD~20"]);
    work.push(&["main", "side"]);
    let outcomes = |prepare: &[&str]| {
        sandbox.git(&source, prepare);
        for (name, value) in [("main", "HEAD~7"), ("side", "HEAD")] {
            let oid = work.git(&["rev-parse", value]);
            sandbox
                .git(&work.path, &["push", "-q", "-f", mirror.to_str().unwrap(), &format!("{oid}:refs/heads/{name}")]);
        }
        std::fs::remove_dir_all(source.join("mirror-push/remotes/m/mirrored")).ok();
        for entry in std::fs::read_dir(source.join("mirror-push/remotes/m/queue")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        sandbox.outcomes(&sandbox.mirror_push(&source, &["sync", "--json"]))
    };
    let plain = outcomes(&["gc", "-q"]);
    assert_eq!(
        plain,
        [("refs/heads/main", "fast_forwarded"), ("refs/heads/side", "divergent")].map(|(n, w)| (n.into(), w.into()))
    );
    assert_eq!(outcomes(&["commit-graph", "write", "--reachable"]), plain);
    let graph = source.join("objects/info/commit-graph");
    std::fs::set_permissions(&graph, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(graph, "damaged").unwrap();
    assert_eq!(outcomes(&["version"]), plain, "a damaged commit-graph only costs time");
}

#[test]
fn a_proxy_that_is_down_is_named() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("http://mirror.example/x.git", &[]);
    sandbox.add_mirror_config(&source, "proxy = \"http://127.0.0.1:1\"");
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    let error = said.json()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("cannot connect to 'mirror.example' through the proxy '127.0.0.1:1': "), "{error}");
}

#[test]
fn a_mirror_that_takes_no_atomic_push_gets_a_plan_but_no_commands() {
    let scene = Scene::local(&[]).with(&["main"]);
    scene.sandbox.git(&scene.mirror, &["config", "receive.advertiseAtomic", "false"]);
    scene.sandbox.add_mirror_config(&scene.source, "atomic = true");
    scene.push(&["main", "main:topic"]);
    let planned = scene.sandbox.mirror_push(&scene.source, &["plan", "--json"]);
    let mut outcomes = scene.sandbox.outcomes(&planned);
    outcomes.sort();
    let expected = [("refs/heads/main", "fast_forwarded"), ("refs/heads/topic", "created")];
    assert_eq!(outcomes, expected.map(|(name, word)| (name.to_owned(), word.to_owned())), "{planned:?}");
    let said = scene.sandbox.mirror_push(&scene.source, &["sync", "--json"]);
    let report = said.json()[0].clone();
    let refs = report["refs"].as_array().unwrap();
    assert!(
        said.status == 1 && report["error"].as_str().unwrap().contains("does not support atomic pushes"),
        "{report}"
    );
    assert!(refs.iter().all(|entry| entry["reason"].as_str().unwrap().contains("does not support atomic")), "{report}");
    assert_eq!(scene.sandbox.oid(&scene.mirror, "topic"), "", "nothing was sent");
    scene.sandbox.git(&scene.mirror, &["config", "receive.advertiseAtomic", "true"]);
    scene.sandbox.mirror_push_ok(&scene.source, &["sync"]);
    assert!(scene.is_mirrored());
}
