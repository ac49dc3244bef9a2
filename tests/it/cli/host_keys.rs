//! Host keys: detected under the right name, and reported when they change.

use crate::scene::Scene;
use crate::scene::sandbox::{run_with_input, script};
use crate::scene::servers::Kind;

/// A push that has not reached its mirror behind ssh.
fn pushed() -> Scene {
    let scene = Scene::behind(Kind::Ssh, &[]);
    scene.push(&["main"]);
    scene
}

#[test]
fn pins_are_strict_and_a_changed_key_shows_both_fingerprints() {
    let Scene { sandbox, source, server, .. } = pushed();
    let server = server.unwrap();
    sandbox.mirror_push_ok(&source, &["sync"]);
    let pinned = sandbox.mirror_push_ok(&source, &["host-keys", "m", "--json"]).json();
    let good = pinned[0]["fingerprint_sha256"].as_str().unwrap().to_owned();
    assert!(pinned[0]["fingerprint_md5"].as_str().unwrap().starts_with("MD5:"));
    // The client's public key serves as the key of another host.
    let other = std::fs::read_to_string(sandbox.path("ssh/client.pub")).unwrap();
    sandbox.mirror_push_ok(&source, &["host-keys", "m", "--clear"]);
    assert!(!source.join("mirror-push/remotes/m/known_hosts").exists());
    sandbox.mirror_push_ok(&source, &["host-keys", "m", "--add", &other]);
    let bad = sandbox.mirror_push_ok(&source, &["host-keys", "m", "--json"]).json()[0]["fingerprint_sha256"].clone();
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    let error = said.json()[0]["error"].as_str().unwrap().to_owned();
    assert_eq!(said.json()[0]["update_status"], "failed");
    assert!(error.contains(&good) && error.contains(bad.as_str().unwrap()), "{error}");
    // One matching key is enough. Several entries, and those with a hashed host name, are read.
    let host = std::fs::read_to_string(sandbox.path("ssh/host.pub")).unwrap();
    let line = format!("[127.0.0.1]:{} {host}", server.port());
    std::fs::write(sandbox.path("hosts"), &line).unwrap();
    assert!(sandbox.command("ssh-keygen").args(["-q", "-H", "-f", "hosts"]).status().unwrap().success());
    let hashed = std::fs::read_to_string(sandbox.path("hosts")).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    sandbox.mirror_push_ok(&source, &["host-keys", "m", "--add", &hashed]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    // A certificate authority has signed the key of the host.
    sandbox.mirror_push_ok(&source, &["host-keys", "m", "--clear"]);
    let sign = ["-q", "-s", "ssh/client", "-I", "host", "-h", "-n", "127.0.0.1", "ssh/host.pub"];
    assert!(sandbox.command("ssh-keygen").args(sign).status().unwrap().success());
    let config = sandbox.path("ssh/sshd_config");
    let text = std::fs::read_to_string(&config).unwrap();
    let certificate = sandbox.path("ssh/host-cert.pub");
    std::fs::write(&config, format!("{text}HostCertificate {}\n", certificate.display())).unwrap();
    drop(server);
    let directory = sandbox.path("ssh");
    std::fs::rename(&directory, sandbox.path("ssh.kept")).unwrap();
    std::fs::rename(sandbox.path("ssh.kept"), &directory).unwrap();
    let port = text.split("127.0.0.1:").nth(1).unwrap().split('\n').next().unwrap().to_owned();
    let mut sshd = sandbox.command("/usr/sbin/sshd");
    let mut sshd = sshd.args(["-D", "-e", "-f"]).arg(&config).stderr(std::process::Stdio::null()).spawn().unwrap();
    crate::scene::sandbox::wait_for("sshd", || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
    sandbox.mirror_push_ok(&source, &["host-keys", "m", "--add", &format!("@cert-authority * {other}")]);
    let said = sandbox.mirror_push(&source, &["sync"]);
    sshd.kill().unwrap();
    sshd.wait().unwrap();
    assert_eq!(said.status, 0, "{said:?}");
    for bad in ["nonsense", "ssh-ed25519 AAAA", "host ssh-rsa"] {
        let said = sandbox.mirror_push(&source, &["host-keys", "m", "--add", bad]);
        assert!(said.status == 129 && said.err.contains("is not a host key"), "{said:?}");
    }
}

/// A host with another key than before is reported with both fingerprints, whether its keys are pinned or only known to ssh.
#[test]
fn a_changed_host_key_is_reported_with_both_fingerprints() {
    let scene = pushed();
    let (sandbox, source) = (&scene.sandbox, &scene.source);
    let fingerprint = |file: &str| {
        let shown = sandbox.command("ssh-keygen").args(["-lf", file]).output().unwrap().stdout;
        String::from_utf8(shown).unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    let pins = source.join("mirror-push/remotes/m/known_hosts");
    let pinned = std::fs::read_to_string(&pins).unwrap();
    let host = pinned.split(' ').next().unwrap();
    // The key of somebody else.
    let other = std::fs::read_to_string(sandbox.path("ssh/client.pub")).unwrap();
    let expected = format!(
        "the host key of '127.0.0.1:{}' has CHANGED: it offers {}, and {} is trusted; ",
        scene.server().port(),
        fingerprint("ssh/host.pub"),
        fingerprint("ssh/client.pub")
    );
    std::fs::write(&pins, format!("{host} {other}")).unwrap();
    let said = sandbox.mirror_push(source, &["sync", "--json"]);
    let error = said.json()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with(&expected) && error.contains("ask the administrator"), "{error}");
    // Pins of another host, from before the URL changed, do not make this host's key CHANGED.
    std::fs::write(&pins, format!("other.example {other}")).unwrap();
    let said = sandbox.mirror_push(source, &["sync", "--json"]);
    let error = said.json()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("is not known") && !error.contains("CHANGED"), "{error}");
    std::fs::remove_file(&pins).unwrap();
    let known = sandbox.path("known");
    std::fs::write(&known, format!("# a comment\n{host} {other}")).unwrap();
    let option = format!("ssh_options = [\"UserKnownHostsFile={}\"]", known.display());
    sandbox.add_mirror_config(source, &option);
    let said = sandbox.mirror_push(source, &["sync", "--json"]);
    let error = said.json()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with(&expected), "{error}");
}

/// ssh's configuration says under which name a host's keys are looked up. For a confined mirror ssh does not read it.
#[test]
fn detected_keys_are_pinned_under_the_name_that_ssh_looks_up() {
    let scene = pushed();
    let (sandbox, source) = (&scene.sandbox, &scene.source);
    std::fs::write(sandbox.path("ssh_config"), "Host 127.0.0.1\n HostKeyAlias another\n").unwrap();
    std::fs::write(sandbox.path("server.toml"), "[api]\nallowed_hosts = [\"127.0.0.1\"]\n").unwrap();
    let real = "PATH=${PATH#*:} command -v ssh";
    let config = sandbox.path("ssh_config");
    script(
        &sandbox.path("bin/ssh"),
        &format!(
            "#!/bin/sh\n[ \"$1\" != -F ] || exec \"$({real})\" \"$@\"\nexec \"$({real})\" -F '{}' \"$@\"\n",
            config.display()
        ),
    );
    let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap());
    let run = |words: &[&str]| {
        let mut command = sandbox.program(source);
        command.env("PATH", &path).arg("--config").arg(sandbox.path("server.toml")).args(words);
        run_with_input(&mut command, b"")
    };
    for (confined, name) in [(false, "another".to_owned()), (true, format!("[127.0.0.1]:{}", scene.server().port()))] {
        sandbox.mirror_push_ok(source, &["set", "m", &format!("confined={confined}")]);
        let said = run(&["host-keys", "m", "--detect", "--yes"]);
        assert_eq!(said.status, 0, "{said:?}");
        let pins = std::fs::read_to_string(source.join("mirror-push/remotes/m/known_hosts")).unwrap();
        assert!(pins.starts_with(&format!("{name} ")), "{confined}: {pins}");
        let said = run(&["sync"]);
        assert_eq!(said.status, 0, "{confined}: what was pinned is what ssh looks up: {said:?}");
    }
}
