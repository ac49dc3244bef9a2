//! Confined mirrors reach no address but those that the server's file allows, whatever names and aliases lead there.

use crate::scene::sandbox::{Sandbox, is_root, run_with_input, script};

/// In a network namespace of the test, this machine has a public address, and `git daemon` listens there.
#[test]
fn a_confined_mirror_does_not_reach_this_machine_by_its_public_address() {
    if !is_root("a network namespace with a public address") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("git://203.0.113.7/mirror.git", &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.add_mirror_config(&source, "confined = true");
    let (inside, address) = (sandbox.path("inside"), sandbox.path("address.py"));
    // SIOCSIFADDR and SIOCSIFFLAGS (netdevice(7)): the machine need not have ip(8).
    let text = r#"import fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(s, 0x8916, struct.pack("16sHH4s8x", b"lo", socket.AF_INET, 0, socket.inet_aton("203.0.113.7")))
fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x41))
"#;
    std::fs::write(&address, text).unwrap();
    let text = r#"python3 address.py
git daemon --listen=203.0.113.7 --base-path="$PWD" --export-all --enable=receive-pack &
until git ls-remote -q git://203.0.113.7/source.git; do :; done >/dev/null 2>&1
exec "$@"
"#;
    script(&inside, text);
    let sync = || {
        let mut command = sandbox.command("timeout");
        command.args(["60", "unshare", "--net", "--pid", "--fork", "--kill-child", "sh"]).arg(&inside);
        command.args([env!("CARGO_BIN_EXE_git-mirror-push"), "--git-dir"]).arg(&source).arg("sync");
        run_with_input(&mut command, b"")
    };
    let said = sync();
    assert!(said.status == 1 && said.out.contains("Requests to localhost are not allowed"), "{said:?}");
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("confined = true", "confined = false")).unwrap();
    let said = sync();
    assert_eq!(said.status, 0, "without the confinement the server is reached: {said:?}");
}

/// A name server answers first with a public address and then with 127.0.0.1 (DNS rebinding). An alias in ssh's configuration leads to
/// 127.0.0.1 too. A confined mirror must not reach this machine in either way, over any transport. The test runs in network, mount and pid
/// namespaces of its own.
#[test]
fn a_name_that_changes_its_address_leads_no_confined_mirror_to_this_machine() {
    if !is_root("a network namespace and a name server of its own") {
        return;
    }
    let inside = r#"import socket, struct, threading, fcntl
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 0x49))
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.1", 53))
seen = open("seen", "w")
asked = {}
def answer():
    while True:
        query, who = names.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        name, kind = query[12:end - 4], struct.unpack(">H", query[end - 4:end - 2])[0]
        reply = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if kind == 1 else b"\0\0") + b"\0\0\0\0" + query[12:end]
        if kind == 1:
            asked[name] = asked.get(name, 0) + 1
            address = "203.0.113.9" if asked[name] <= 1 else "127.0.0.1"
            reply += b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)
            print("asked", asked[name], file=seen, flush=True)
        names.sendto(reply, who)
def listen(port):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen(16)
    while True:
        client, _ = server.accept()
        print("reached", port, file=seen, flush=True)
        client.close()
threading.Thread(target=answer).start()
for port in (2222, 8080, 9418):
    threading.Thread(target=listen, args=(port,)).start()
print("ready", file=seen, flush=True)
"#;
    let name = |n: usize| format!("rebind{n}.example.org");
    let urls = [
        format!("ssh://git@{}:2222/x.git", name(1)),
        format!("http://{}:8080/x.git", name(2)),
        format!("git://{}/x.git", name(3)),
        "ssh://git@intern:2222/x.git".to_owned(),
    ];
    for (n, url) in urls.iter().enumerate() {
        let sandbox = Sandbox::new();
        let source = sandbox.source(url, &[]);
        sandbox.add_mirror_config(&source, "connect_timeout = \"2s\"");
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        // These pinned host keys match no server: the test only asks whether a connection is made.
        assert!(
            sandbox.command("ssh-keygen").args(["-qN", "", "-t", "ed25519", "-f", "key"]).status().unwrap().success()
        );
        let key = std::fs::read_to_string(sandbox.path("key.pub")).unwrap();
        let hosts = "[rebind1.example.org]:2222,[intern]:2222";
        std::fs::write(source.join("mirror-push/remotes/m/known_hosts"), format!("{hosts} {key}")).unwrap();
        std::fs::write(sandbox.path("inside.py"), inside).unwrap();
        std::fs::write(sandbox.path("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
        std::fs::write(sandbox.path("ssh_config"), "Host intern\n HostName 127.0.0.1\n").unwrap();
        let text = "mount --bind resolv.conf /etc/resolv.conf\nmount --bind ssh_config /etc/ssh/ssh_config\n\
            python3 inside.py & until grep -qs ready seen; do sleep 0.02; done\n\"$@\"\n";
        script(&sandbox.path("run"), text);
        let sync = || {
            let _ = std::fs::remove_file(sandbox.path("seen"));
            let mut command = sandbox.command("timeout");
            command.args(["60", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh"]);
            command.arg(sandbox.path("run")).arg(env!("CARGO_BIN_EXE_git-mirror-push"));
            let said = run_with_input(command.arg("--git-dir").arg(&source).arg("sync"), b"");
            (said, std::fs::read_to_string(sandbox.path("seen")).unwrap())
        };
        // First without `confined`. The alias then leads to this machine, which shows that the test can fail.
        let (said, seen) = sync();
        assert!(said.status == 1 && seen.contains("ready"), "{url}: {said:?} {seen}");
        if n == 3 {
            assert!(seen.contains("reached 2222"), "the alias works: {said:?} {seen}");
        }
        sandbox.add_mirror_config(&source, "confined = true");
        let (said, seen) = sync();
        assert!(said.status == 1 && !seen.contains("reached"), "{url}: {said:?} {seen}");
        assert!(seen.contains("asked 1") || n == 3, "{url}: the name server was asked: {said:?} {seen}");
        // git's own helper reads over http. It connects to the address that was judged, and asks no name server.
        if url.starts_with("http") {
            let fetch = |url: &str| {
                let _ = std::fs::remove_file(sandbox.path("seen"));
                sandbox.mirror_push_ok(&source, &["set", "m", "--url", url]);
                let mut command = sandbox.command("timeout");
                command.args(["60", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh"]);
                command.arg(sandbox.path("run")).args(["git", "--git-dir"]).arg(&source).args(["fetch", "mirror::m"]);
                let programs = std::path::Path::new(env!("CARGO_BIN_EXE_git-mirror-push")).parent().unwrap();
                let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
                let said = run_with_input(command.env("PATH", path), b"");
                (said, std::fs::read_to_string(sandbox.path("seen")).unwrap())
            };
            let (said, seen) = fetch(url);
            assert!(said.status == 128 && !seen.contains("reached"), "{said:?} {seen}");
            assert!(seen.contains("asked 1") && !seen.contains("asked 2"), "{said:?} {seen}");
            let (said, seen) = fetch("http://127.0.0.1:8080/x.git");
            assert!(said.err.contains("not allowed") && !seen.contains("reached"), "{said:?} {seen}");
        }
    }
}
