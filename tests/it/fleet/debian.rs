//! The set-up of `docs/fleet.md`, with its commands and files as they stand there, on Debian's own PostgreSQL packages. All of it happens in
//! a mount namespace with an `/etc` of its own, so nothing of it is left.

use crate::cli::documents::block;
use crate::scene::sandbox::{Sandbox, is_root, script};
use crate::scene::servers::{certificates, free_port};

/// The machine before the set-up.
const MACHINE: &str = r#"#!/bin/sh
set -e
cp -a /etc "$HOME/etc"
mount --bind "$HOME/etc" /etc
rm -rf /etc/postgresql/* /etc/git-mirror-push
for directory in /var/lib/postgresql /var/log/postgresql /run/postgresql /run/lock; do
    mount -t tmpfs none "$directory"
    chown postgres:postgres "$directory"
done
version=$(ls /usr/lib/postgresql | sort -n | tail -n 1)
echo '127.0.0.1 db1.example.org' >>/etc/hosts
cp "$HOME/tls/ca.pem" /etc/ssl/our-ca.pem
mkdir -p /etc/git-mirror-push/conf.d "$HOME/run"
printf '[[repositories]]\nroot = "%s"\n' "$HOME" >/etc/git-mirror-push/config.toml
daemon=
trap 'test -z "$daemon" || kill "$daemon"; pg_ctlcluster "$version" main stop -m immediate' EXIT
"#;

/// What Debian's package does after its installation.
const PACKAGE: &str = r#"pg_createcluster "$version" main --port PORT >/dev/null
pg_ctlcluster "$version" main start"#;

/// The prose of the page: settings of PostgreSQL and a certificate. It listens on the loopback interface only, and knows no other lines for
/// connections over the network.
const SETTINGS: &str = r#"settings=/etc/postgresql/$version/main
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=db1.example.org -keyout "$settings/db1.key" -out db1.csr 2>/dev/null
printf 'subjectAltName=DNS:db1.example.org\n' >db1.ext
openssl x509 -req -in db1.csr -CA tls/ca.pem -CAkey tls/ca.key -days 2 -extfile db1.ext -out "$settings/db1.pem" 2>/dev/null
chown postgres: "$settings"/db1.*
printf "listen_addresses = '127.0.0.1'\nssl_cert_file = '%s'\nssl_key_file = '%s'\n" \
    "$settings/db1.pem" "$settings/db1.key" >>"$settings/postgresql.conf"
sed -i '/^host/d' "$settings/pg_hba.conf"
cat hostssl >>"$settings/pg_hba.conf"
pg_ctlcluster "$version" main restart
cp fleet.toml /etc/git-mirror-push/conf.d/fleet.toml
"#;

/// Starts the daemon, as systemd does.
const RESTART: &str = r#"RUNTIME_DIRECTORY="$HOME/run" STATE_DIRECTORY="$HOME/state" git-mirror-push serve -q --listen 127.0.0.1:DAEMON &
daemon=$!
until git mirror-push fleet 2>/dev/null | grep -q '^git1  live  '; do sleep 0.05; done"#;

#[test]
fn the_page_about_several_machines_can_be_followed_on_debian() {
    if !is_root("the set-up of PostgreSQL on Debian") {
        return;
    }
    let sandbox = Sandbox::new();
    certificates(&sandbox);
    let (port, daemon) = (free_port().to_string(), free_port().to_string());
    let home = sandbox.path("");
    let write = |name: &str, text: &str| std::fs::write(home.join(name), text).unwrap();
    write("hostssl", &block("docs/fleet.md", "", "hostssl", &[("10.0.0.0/24", "127.0.0.0/8")]));
    let url = format!("db1.example.org:{port}/mirrors");
    write("fleet.toml", &block("docs/fleet.md", "toml", "password_file", &[("db1.example.org/mirrors", &url)]));
    let package = PACKAGE.replace("PORT", &port);
    let database = block("docs/fleet.md", "sh", "createuser", &[("apt install postgresql", &package)]);
    let restart = RESTART.replace("DAEMON", &daemon);
    let replaced = [
        ("-o git ", "-o root "),
        (
            "# the user of the daemon; then write the password into it",
            "; echo 'pa55 w0rd' >/etc/git-mirror-push/fleet.secret",
        ),
        ("systemctl restart git-mirror-push", &restart),
    ];
    let server = block("docs/fleet.md", "sh", "fleet.secret", &replaced);
    let printed = block("docs/fleet.md", "sh", "--print", &[]);
    let live = "until git mirror-push fleet 2>/dev/null | grep '^git1  live  '; do sleep 0.05; done\n";
    // Its owner prepares another database. The program is read by a user who may not read the sandbox.
    let by_owner = format!("su postgres -c 'dropdb -f mirrors && createdb mirrors && {}'\n{live}", printed.trim());
    let more =
        block("docs/fleet.md", "toml", "advertise", &[]) + &block("docs/fleet.md", "toml", "max_per_minute", &[]);
    write("more.toml", more.strip_prefix("[fleet]\n").unwrap());
    let more = "cat more.toml >>/etc/git-mirror-push/conf.d/fleet.toml\ngit mirror-push fleet\n";
    let steps = home.join("steps");
    script(&steps, &[MACHINE, &database, SETTINGS, &server, &by_owner, more].join("\n"));
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_git-mirror-push")).parent().unwrap();
    let mut command = sandbox.command("setsid");
    command.args(["--wait", "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]).arg(&steps);
    command.env("HOME", &home).env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command.env_remove("GIT_MIRROR_PUSH_CONFIG").current_dir(&home);
    // `psql` asks twice for the password. Without a terminal it reads standard input.
    let said = crate::scene::sandbox::run_with_input(&mut command, b"pa55 w0rd\npa55 w0rd\n");
    assert_eq!(said.status, 0, "{said:?}");
    let lines: Vec<&str> = said.out.lines().filter(|line| line.starts_with("git1  live  ")).collect();
    assert_eq!(lines.len(), 3, "{said:?}");
}
