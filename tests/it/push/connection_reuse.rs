//! Many repositories, few connections.

use crate::scene::estate::{Estate, TEMPLATE};
use crate::scene::sandbox::{Sandbox, run_with_input, script};
use crate::scene::servers::{Kind, Server, free_port};

#[test]
fn many_repositories_at_one_web_server_share_connections() {
    let estate = Estate::new(TEMPLATE);
    // The server closes a connection after twenty requests, as nginx does after a thousand.
    let directives = "client_max_body_size 0; keepalive_requests 20;";
    let server = Server::start_with(&estate.sandbox, Kind::Http, free_port(), directives);
    let password = estate.sandbox.path("password");
    std::fs::write(&password, crate::scene::servers::PASSWORD).unwrap();
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let url = format!("url = \"http://127.0.0.1:{}/mirrors/{{path}}.git\"", server.port());
    let text = TEMPLATE.replace("url = \"MIRRORS/{path}.git\"", &url);
    let user = crate::scene::servers::USER;
    estate.configure(&format!(
        "{text}username = \"{user}\"\npassword_file = \"{}\"\nallow_insecure_http = true\n",
        password.display()
    ));
    for n in 0..100 {
        estate.repository(&format!("r{n}.git"));
        estate.mirror(&format!("r{n}.git"));
    }
    let said = estate.run(&["drain", "--all"]);
    assert_eq!(said.status, 0, "{said:?}");
    let requests = server.requests(&estate.sandbox);
    assert_eq!(requests.len(), 300, "one look, one GET and one POST for each");
    let mut connections: Vec<&str> = requests.iter().map(|line| line.split(' ').next().unwrap()).collect();
    connections.sort_unstable();
    connections.dedup();
    assert!(connections.len() <= 8 + 300 / 20, "{} connections", connections.len());
    // Optimistic pushes share connections too. No push is lost or sent twice when the server closes a connection.
    let sample = estate.sandbox.path("git/r0.git");
    let one = estate.sandbox.oid(&sample, "main");
    for n in 0..100 {
        let source = estate.sandbox.path(&format!("git/r{n}.git"));
        let two = estate.sandbox.git(&source, &["commit-tree", "-m", &format!("two {n}"), "-p", &one, "main^{tree}"]);
        estate.sandbox.git(&source, &["update-ref", "refs/heads/main", &two]);
        let mut hook = estate.sandbox.command(env!("CARGO_BIN_EXE_git-mirror-post-receive"));
        hook.env("GIT_DIR", &source).env("GIT_MIRROR_PUSH_CONFIG", estate.sandbox.path("server.toml"));
        assert_eq!(run_with_input(&mut hook, format!("{one} {two} refs/heads/main\n").as_bytes()).status, 0);
    }
    let said = estate.run(&["drain", "--all"]);
    assert_eq!(said.status, 0, "{said:?}");
    let requests = server.requests(&estate.sandbox);
    assert_eq!(requests[300..].iter().filter(|line| line.contains(" POST ")).count(), 100, "{:?}", &requests[300..]);
    for n in 0..100 {
        let repository = |place: &str| estate.sandbox.path(&format!("{place}/r{n}.git"));
        assert_eq!(estate.sandbox.refs(&repository("mirrors")), estate.sandbox.refs(&repository("git")), "r{n}");
    }
}

#[test]
fn a_contact_is_one_connection_and_one_session() {
    for (kind, marks) in [
        (Kind::Git, &[("Connection from", 1), ("receive-pack for", 1)][..]),
        // The look before the first contact is a session of the same connection.
        (Kind::Ssh, &[("Accepted publickey", 1), ("Starting session", 2)]),
    ] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start_with(&sandbox, kind, free_port(), "LogLevel VERBOSE\n");
        let source = server.source(&sandbox, "mirror.git", &[]);
        let work = sandbox.work(&source);
        let seen = |mark: &str| {
            let log = std::fs::read(sandbox.path("server.log")).unwrap();
            String::from_utf8_lossy(&log).lines().filter(|line| line.contains(mark)).count()
        };
        for (push, is_first) in [("a normal push", true), ("an optimistic push", false)] {
            let before: Vec<usize> = marks.iter().map(|(mark, _)| seen(mark)).collect();
            work.commit(push);
            work.push(&["main"]);
            sandbox.mirror_push_ok(&source, &["drain"]);
            assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
            for ((mark, first), before) in marks.iter().zip(before) {
                let expected = before + if is_first { *first } else { 1 };
                crate::scene::sandbox::wait_for(mark, || seen(mark) >= expected);
                assert_eq!(seen(mark), expected, "{kind:?}, {push}: {mark}");
            }
        }
    }
}

/// Repositories whose mirrors are behind one sshd.
fn behind_sshd(count: usize, directives: &str, lines: &str) -> (Estate, Server) {
    let estate = Estate::new(TEMPLATE);
    let server = Server::start_with(&estate.sandbox, Kind::Ssh, free_port(), directives);
    let path = |name: &str| estate.sandbox.path(name).display().to_string();
    let key = std::fs::read_to_string(path("ssh/host.pub")).unwrap();
    std::fs::write(path("ssh/known_hosts"), format!("[127.0.0.1]:{} {key}", server.port())).unwrap();
    let url = format!("url = \"ssh://127.0.0.1:{}{}/{{path}}.git\"", server.port(), path("mirrors"));
    let options = format!(
        "ssh_options = [\"IdentitiesOnly=yes\", \"IdentityFile={}\", \"UserKnownHostsFile={}\"]\n{lines}\n",
        path("ssh/client"),
        path("ssh/known_hosts")
    );
    estate.configure(&(TEMPLATE.replace("url = \"MIRRORS/{path}.git\"", &url) + &options));
    for n in 0..count {
        estate.repository(&format!("r{n}.git"));
        estate.mirror(&format!("r{n}.git"));
    }
    (estate, server)
}

impl Estate {
    /// How often sshd let someone in.
    fn logins(&self) -> usize {
        let log = std::fs::read_to_string(self.sandbox.path("server.log")).unwrap();
        log.lines().filter(|line| line.contains("Accepted publickey")).count()
    }

    fn mirrored(&self, count: usize) -> usize {
        let is_there = |n: &usize| !self.sandbox.refs(&self.sandbox.path(&format!("mirrors/r{n}.git"))).is_empty();
        (0..count).filter(is_there).count()
    }

    /// The number of ssh processes that hold a shared connection whose socket is in this sandbox.
    fn masters(&self) -> usize {
        let named = self.sandbox.path("").display().to_string();
        let found = self.sandbox.command("pgrep").args(["-f", &format!("ssh: {named}.*mux")]).output().unwrap();
        String::from_utf8_lossy(&found.stdout).lines().count()
    }

    /// Gives a mirror a hook that sends the signal `act` to the ssh process of the shared connection.
    fn trap(&self, mirror: &str, act: &str) {
        let named = self.sandbox.path("").display().to_string();
        let hook = self.sandbox.path(&format!("mirrors/{mirror}/hooks/post-receive"));
        script(&hook, &format!("#!/bin/sh\npkill -{act} -f 'ssh: {named}.*mux' || :\n"));
    }
}

#[test]
fn many_repositories_at_one_ssh_server_share_connections() {
    let (estate, _server) = behind_sshd(60, "", "");
    let said = estate.run(&["drain", "--all"]);
    assert_eq!((said.status, estate.mirrored(60)), (0, 60), "{said:?}");
    // The first contact already opens the shared connection, because the program expects more contacts before a first update. The first job
    // runs alone. If the connection is not usable, each of the eight that then run may open one.
    assert!((1..=9).contains(&estate.logins()), "{} logins", estate.logins());
    assert_eq!(estate.masters(), 0, "none is left");
    let left = std::fs::read_dir(estate.sandbox.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("git-mirror-push.")).collect();
    assert_eq!(left, [""; 0], "no socket either");
}

#[test]
fn a_server_that_allows_one_session_per_connection_gets_every_update() {
    let (estate, _server) = behind_sshd(20, "MaxSessions 1\n", "");
    // With `MaxSessions 1` only one contact at a time can use the shared connection. Every other contact opens one of its own. sshd could
    // refuse some of them if more began at once (MaxStartups).
    let text = std::fs::read_to_string(estate.sandbox.path("server.toml")).unwrap();
    estate.configure(&format!("max_jobs_per_host = 4\n{text}"));
    let said = estate.run(&["drain", "--all"]);
    assert_eq!((said.status, estate.mirrored(20)), (0, 20), "{said:?}");
    // ssh's messages about refused sessions must not be taken for what is wrong with a mirror.
    for n in 0..20 {
        std::fs::remove_dir_all(estate.sandbox.path(&format!("mirrors/r{n}.git"))).unwrap();
    }
    let said = estate.run(&["sync", "--all", "--json"]);
    assert_eq!((said.status, said.out.matches("does not appear to be a git repository").count()), (1, 20), "{said:?}");
    assert!(!format!("{said:?}").contains("mux_client") && !format!("{said:?}").contains("ControlSocket"), "{said:?}");
}

#[test]
fn ssh_options_can_turn_sharing_off() {
    for option in ["ControlPath=none", "ControlMaster=no"] {
        each_alone(option);
    }
}

fn each_alone(option: &str) {
    let (estate, _server) = behind_sshd(10, "", "");
    let text = std::fs::read_to_string(estate.sandbox.path("server.toml")).unwrap();
    estate.configure(&text.replace("ssh_options = [", &format!("ssh_options = [\"{option}\", ")));
    // The program runs the first job at a host alone, so the hook lets it pass. In every later push the hook waits until four have begun.
    // So this fails if one of them waits for a shared connection, which nobody makes here.
    let seen = estate.sandbox.path("seen");
    std::fs::create_dir(&seen).unwrap();
    for n in 0..10 {
        let hook = estate.sandbox.path(&format!("mirrors/r{n}.git/hooks/pre-receive"));
        let wait = "n=0; while [ $(ls | wc -l) -lt 4 ]; do n=$((n + 1)); [ $n -lt 250 ] || exit 1; sleep 0.02; done";
        let first = "mkdir ../first 2>/dev/null && exit 0";
        script(&hook, &format!("#!/bin/sh\ncd '{}'; {first}; touch r{n}; {wait}\n", seen.display()));
    }
    let said = estate.run(&["drain", "--all"]);
    assert_eq!((said.status, estate.mirrored(10), estate.logins()), (0, 10, 20), "a look and a push each: {said:?}");
}

#[test]
fn a_shared_connection_that_dies_is_made_again() {
    let (estate, _server) =
        behind_sshd(30, "", "stall_timeout = \"2s\"\nretry_delay = \"1s\"\nmax_retry_delay = \"1s\"");
    estate.trap("r4.git", "KILL");
    estate.trap("r11.git", "KILL");
    // The push that broke the connection was carried out, but its report may lack its end. Refs without an answer are read again.
    crate::scene::sandbox::wait_for("all mirrors", || {
        estate.run(&["drain", "--all"]);
        estate.mirrored(30) == 30 && estate.run(&["status", "--all"]).status == 0
    });
}

#[test]
fn a_shared_connection_that_hangs_is_not_waited_for() {
    let limits = "stall_timeout = \"2s\"\nretry_delay = \"1s\"\nmax_retry_delay = \"1s\"";
    let (estate, _server) = behind_sshd(30, "", limits);
    estate.trap("r4.git", "STOP");
    // `wait_for` allows thirty seconds. The sessions on the stopped connection end after two seconds, and no later one waits for it.
    crate::scene::sandbox::wait_for("all mirrors", || {
        estate.run(&["drain", "--all"]);
        estate.mirrored(30) == 30
    });
    estate.trap("r4.git", "KILL");
    script(
        &estate.sandbox.path("end"),
        &std::fs::read_to_string(estate.sandbox.path("mirrors/r4.git/hooks/post-receive")).unwrap(),
    );
    assert!(estate.sandbox.command(estate.sandbox.path("end")).status().unwrap().success());
}

#[test]
fn separate_runs_share_a_connection_if_ssh_config_says_so() {
    let (estate, _server) = behind_sshd(3, "", "");
    let sandbox = &estate.sandbox;
    let socket = sandbox.path("c").display().to_string();
    let replaced = [("backup.example.org", "127.0.0.1"), ("~/.ssh/control", &*socket)];
    let config = crate::cli::documents::block("docs/operating.md", "", "ControlMaster", &replaced);
    std::fs::write(sandbox.path("ssh_config"), config).unwrap();
    // ssh takes the home directory from the user database, not from HOME. So a script named `ssh` passes it the configuration file.
    let bin = sandbox.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let path = std::env::var("PATH").unwrap();
    let real = "PATH=${PATH#*:} command -v ssh";
    script(
        &bin.join("ssh"),
        &format!("#!/bin/sh\nexec \"$({real})\" -F '{}' \"$@\"\n", sandbox.path("ssh_config").display()),
    );
    for n in 0..3 {
        let mut sync = sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
        sync.arg("--config").arg(&estate.file).arg("--git-dir").arg(sandbox.path(&format!("git/r{n}.git"))).arg("sync");
        assert!(sync.env("PATH", format!("{}:{path}", bin.display())).status().unwrap().success());
    }
    assert_eq!((estate.mirrored(3), estate.logins()), (3, 1));
    let masters: Vec<_> = std::fs::read_dir(sandbox.path("")).unwrap().flatten().map(|entry| entry.path()).collect();
    for master in masters.iter().filter(|path| path.display().to_string().starts_with(&format!("{socket}-"))) {
        let path = format!("-oControlPath={}", master.display());
        assert!(sandbox.command("ssh").args(["-F", "none", "-O", "exit", &path, "x"]).status().unwrap().success());
    }
}
