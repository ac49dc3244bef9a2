//! A PostgreSQL server of one test, with a data directory and a port of its own.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::scene::sandbox::{Completed, wait_for};
use crate::scene::servers::free_port;

pub(crate) struct Postgres {
    directory: tempfile::TempDir,
    programs: PathBuf,
    pub(crate) port: u16,
    server: Child,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.resume();
        // SIGQUIT is an immediate shutdown (manual of PostgreSQL, "Shutting Down the Server").
        let _ = kill_process(Pid::from_child(&self.server), Signal::QUIT);
        let _ = self.server.wait();
    }
}

/// A command as the user of PostgreSQL, which refuses to run as root. It ends with this test.
fn as_user(program: &std::path::Path) -> Command {
    let mut command = Command::new("setpriv");
    if geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "QUIT", "--"]).arg(program).env("LC_ALL", "C").env_remove("PGDATA");
    command
}

impl Postgres {
    /// A server with the role `gmp`, who owns the database `mirrors`.
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("git-mirror-push-pg.").tempdir().unwrap();
        if geteuid().is_root() {
            assert!(Command::new("chown").arg("postgres").arg(directory.path()).status().unwrap().success());
        }
        let found = std::fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path().join("bin"));
        let programs = found.filter(|path| path.join("postgres").is_file()).max().unwrap();
        let data = directory.path().join("data");
        let mut initdb = as_user(&programs.join("initdb"));
        initdb.args(["-N", "-E", "UTF8", "-A", "trust", "-U", "postgres", "--no-instructions", "-D"]).arg(&data);
        assert!(initdb.stdout(Stdio::null()).status().unwrap().success());
        let port = free_port();
        let server = Self::spawn(&directory, &programs, port);
        let postgres = Self { directory, programs, port, server };
        postgres.wait();
        postgres.sql_in("postgres", "create role gmp login");
        postgres.sql_in("postgres", "create database mirrors owner gmp");
        postgres
    }

    fn spawn(directory: &tempfile::TempDir, programs: &std::path::Path, port: u16) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(directory.path().join("log")).unwrap();
        let sockets = format!("unix_socket_directories={}", directory.path().display());
        let mut command = as_user(&programs.join("postgres"));
        command.arg("-D").arg(directory.path().join("data")).args(["-p", &port.to_string()]);
        // The machine does not fail in a test, so nothing needs to be synced to the disk.
        for setting in ["listen_addresses=127.0.0.1", &sockets, "fsync=off", "max_connections=30"] {
            command.args(["-c", setting]);
        }
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null()).process_group(0).spawn().unwrap()
    }

    fn wait(&self) {
        wait_for("PostgreSQL", || self.psql("postgres", "select 1").status == 0);
    }

    /// The URL for the daemons.
    pub(crate) fn url(&self) -> String {
        format!("postgres://gmp@127.0.0.1:{}/mirrors", self.port)
    }

    fn psql(&self, database: &str, statements: &str) -> Completed {
        let mut command = Command::new(self.programs.join("psql"));
        command.env("PGCONNECT_TIMEOUT", "5").args([
            "-X",
            "-At",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
        ]);
        command.args(["-p", &self.port.to_string(), "-d", database, "-c", statements]);
        Completed::of(&command.stdin(Stdio::null()).output().unwrap())
    }

    fn sql_in(&self, database: &str, statements: &str) -> String {
        let said = self.psql(database, statements);
        assert_eq!(said.status, 0, "{statements}: {said:?}");
        said.out.trim_end().to_owned()
    }

    /// Runs statements as the administrator; returns the rows.
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.sql_in("mirrors", &format!("set search_path = git_mirror_push, public; {statements}"))
            .trim_start_matches("SET\n")
            .trim_start_matches("SET")
            .to_owned()
    }

    /// Everything in the database, as text.
    pub(crate) fn dump(&self) -> String {
        let mut command = Command::new(self.programs.join("pg_dump"));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string(), "mirrors"]);
        let said = Completed::of(&command.output().unwrap());
        assert_eq!(said.status, 0, "{said:?}");
        said.out
    }

    /// Lets the server speak TLS with this certificate too.
    pub(crate) fn switch_tls_on(&self, certificate: &std::path::Path, key: &std::path::Path) {
        let directory = self.directory.path();
        for (from, name) in [(certificate, "server.crt"), (key, "server.key")] {
            let mut command = Command::new("install");
            command.args(["-m", "600"]);
            if geteuid().is_root() {
                command.args(["-o", "postgres"]);
            }
            assert!(command.arg(from).arg(directory.join(name)).status().unwrap().success());
        }
        for (setting, name) in [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key")] {
            let path = directory.join(name).display().to_string();
            self.sql_in("postgres", &format!("alter system set {setting} = '{path}'"));
        }
        self.sql_in("postgres", "alter system set ssl = on");
        self.sql_in("postgres", "select pg_reload_conf()");
        wait_for("TLS", || self.sql_in("postgres", "show ssl") == "on");
    }

    /// From now on the role of the daemons needs this password.
    pub(crate) fn ask_for_password(&self, password: &str) {
        self.sql_in("postgres", &format!("alter role gmp password '{password}'"));
        let file = self.directory.path().join("data/pg_hba.conf");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("host all gmp all scram-sha-256\n{text}")).unwrap();
        self.sql_in("postgres", "select pg_reload_conf()");
    }

    /// The server and all its child processes.
    fn processes(&self) -> Vec<Pid> {
        let server = Pid::from_child(&self.server);
        let listed = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.as_raw_nonzero()));
        let children = listed.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        std::iter::once(server).chain(children).collect()
    }

    /// Stops its processes, so that nobody gets an answer. Connections stay open.
    pub(crate) fn pause(&self) {
        self.processes().into_iter().for_each(|pid| kill_process(pid, Signal::STOP).unwrap());
    }

    pub(crate) fn resume(&self) {
        // A process may have ended.
        for pid in self.processes() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// Kills all its processes at once.
    pub(crate) fn kill(&mut self) {
        self.pause();
        for pid in self.processes().into_iter().rev() {
            let _ = kill_process(pid, Signal::KILL);
        }
        self.server.wait().unwrap();
        let is_gone =
            || TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), Duration::from_secs(1)).is_err();
        wait_for("the end of PostgreSQL", is_gone);
    }

    pub(crate) fn start_again(&mut self) {
        // The shared memory of the killed server is freed when the last of its processes is gone.
        wait_for("PostgreSQL after a crash", || {
            self.server = Self::spawn(&self.directory, &self.programs, self.port);
            loop {
                match self.server.try_wait().unwrap() {
                    Some(_) => return false,
                    None if self.psql("postgres", "select 1").status == 0 => return true,
                    None => std::thread::park_timeout(Duration::from_millis(20)),
                }
            }
        });
    }
}
