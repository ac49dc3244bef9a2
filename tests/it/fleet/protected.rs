//! The connection to the database is protected, and no secret gets into the database.

use super::{LOCAL, asked, copies, init, machine, start, wait_for_copies};
use crate::scene::daemon::{self, configure};
use crate::scene::postgres::Postgres;
use crate::scene::sandbox::Sandbox;
use crate::scene::servers::certificates;

#[test]
fn no_secret_gets_into_the_database() {
    const SECRETS: [&str; 3] = ["s3cr3t-w0rd", "in-the-url", "acme-bot"];
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    let source = daemon::repository(&one, "a");
    let url = format!("http://{}:{}@127.0.0.1:1/a.git", SECRETS[2], SECRETS[1]);
    let added = ["add", "web", &url, "--password-stdin", "allow_insecure_http=true", "-q"];
    let said = one.mirror_push_with_input(&source, &added, &format!("{}\n", SECRETS[0]));
    assert_eq!(said.status, 0, "{said:?}");
    let _daemon = start(&one);
    crate::scene::sandbox::wait_for("the failure", || {
        copies(&one, "git1").iter().any(|copy| copy["name"] == "web" && copy["last_error"].is_string())
    });
    let dump = postgres.dump();
    assert!(dump.contains("127.0.0.1:1/a.git"), "{dump}");
    for secret in SECRETS {
        assert!(!dump.contains(secret), "{secret}: {dump}");
    }
}

#[test]
fn tls_is_verified_and_the_password_comes_from_a_file_a_command_or_systemd() {
    let postgres = Postgres::start();
    let sandbox = Sandbox::new();
    certificates(&sandbox);
    postgres.switch_tls_on(&sandbox.path("tls/leaf.pem"), &sandbox.path("tls/leaf.key"));
    postgres.ask_for_password("pa55 w0rd");
    let [good, bad] =
        [("password", "pa55 w0rd\n"), ("wrong", "other\n")].map(|(name, text)| sandbox.secret_file(name, text));
    let (port, authority) = (postgres.port, sandbox.path("tls/ca.pem"));
    let url = |host: &str, mode: &str| format!("url = \"postgres://gmp@{host}:{port}/mirrors?sslmode={mode}\"\n");
    let authority = format!("ca_file = \"{}\"\n", authority.display());
    let file = |path: &str| format!("password_file = \"{path}\"\n");
    let command = |path: &str| format!("password_command = [\"/bin/cat\", \"{path}\"]\n");
    for (lines, expected) in [
        (url("localhost", "require") + &authority + &file(&good), Ok(())),
        (url("localhost", "require") + &authority + &command(&good), Ok(())),
        (url("localhost", "prefer") + &file(&good), Ok(())),
        (
            url("localhost", "require") + &authority + &file(&bad),
            Err("password authentication failed for user \"gmp\""),
        ),
        (url("localhost", "require") + &authority, Err("password")),
        // The system does not know this authority.
        (url("localhost", "require") + &file(&good), Err("certificate")),
        // The certificate is for localhost.
        (url("127.0.0.1", "require") + &authority + &file(&good), Err("certificate")),
        (url("localhost", "require") + "ca_file = \"/nonexistent\"\n" + &file(&good), Err("ca_file '/nonexistent'")),
    ] {
        configure(&sandbox, &format!("{LOCAL}[fleet]\nnode = \"git1\"\n{lines}"));
        let said = asked(&sandbox, &["fleet", "init"]);
        match expected {
            Ok(()) => assert_eq!(said.status, 0, "{lines}: {said:?}"),
            Err(text) => assert!(said.status == 128 && said.err.contains(text), "{lines}: {said:?}"),
        }
        assert!(!said.err.contains("pa55"), "{said:?}");
    }
    // The password is a file `fleet`, as LoadCredential= of systemd provides it.
    configure(&sandbox, &format!("{LOCAL}[fleet]\nnode = \"git1\"\n{}{authority}", url("localhost", "require")));
    sandbox.secret_file("fleet", "pa55 w0rd\n");
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
    command.env("GIT_MIRROR_PUSH_CONFIG", sandbox.path("server.toml")).env("CREDENTIALS_DIRECTORY", sandbox.path(""));
    assert!(command.args(["fleet"]).status().unwrap().success());
    configure(
        &sandbox,
        &format!("{LOCAL}[fleet]\nnode = \"git1\"\n{}{authority}{}", url("localhost", "require"), file(&good)),
    );
    let _daemon = start(&sandbox);
    wait_for_copies(&sandbox, "git1");
    // PostgreSQL itself reports that each connection of the daemon uses TLS.
    let encrypted =
        "select bool_and(ssl)::text from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'gmp'";
    assert_eq!(postgres.sql(encrypted), "true");
}
