//! The daemon, started for one test at a port of its own, and clients that speak to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::scene::sandbox::Sandbox;
use crate::scene::servers::free_port;

pub(crate) struct Daemon<'s> {
    pub(crate) sandbox: &'s Sandbox,
    pub(crate) port: u16,
    /// A token of scope `api`.
    pub(crate) token: String,
    child: Child,
}

/// What the daemon answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that starts the daemon with these arguments.
pub(crate) fn command(sandbox: &Sandbox, arguments: &[&str]) -> Command {
    command_within(sandbox, &[], arguments)
}

/// The same, started by the program and the arguments in `wrapper`.
fn command_within(sandbox: &Sandbox, wrapper: &[&str], arguments: &[&str]) -> Command {
    let mut command = sandbox.command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).args(wrapper);
    command.args([env!("CARGO_BIN_EXE_git-mirror-push"), "serve"]).args(arguments);
    command.env("GIT_MIRROR_PUSH_CONFIG", sandbox.path("server.toml"));
    let log = std::fs::File::options().create(true).append(true).open(sandbox.path("daemon.log")).unwrap();
    command.stdout(Stdio::null()).stderr(log);
    command
}

/// Writes the server's file: repositories are below `srv`.
pub(crate) fn configure(sandbox: &Sandbox, lines: &str) {
    std::fs::create_dir_all(sandbox.path("srv")).unwrap();
    let (top, tables) = lines.split_at(lines.find('[').unwrap_or(lines.len()));
    let root = sandbox.path("srv").canonicalize().unwrap();
    let text = format!("{top}\n[[repositories]]\nroot = \"{}\"\n{tables}\n", root.display());
    std::fs::write(sandbox.path("server.toml"), text).unwrap();
}

/// Configuration lines that allow mirrors on this machine.
pub(crate) const LOCAL: &str = "[api]\nallow_local_network = true\n";

impl<'s> Daemon<'s> {
    /// A daemon whose server file has these lines too.
    pub(crate) fn start(sandbox: &'s Sandbox, lines: &str) -> Self {
        configure(sandbox, lines);
        Self::start_as_configured(sandbox, free_port())
    }

    pub(crate) fn start_as_configured(sandbox: &'s Sandbox, port: u16) -> Self {
        Self::of(sandbox, port, command(sandbox, &["--listen", &format!("127.0.0.1:{port}")]))
    }

    /// A daemon that asks the name server at this address, in a mount namespace of its own. That needs root.
    pub(crate) fn start_with_name_server(sandbox: &'s Sandbox, lines: &str, address: &str) -> Self {
        configure(sandbox, lines);
        std::fs::write(sandbox.path("resolv.conf"), format!("nameserver {address}\noptions timeout:30 attempts:2\n"))
            .unwrap();
        let script = "mount --bind resolv.conf /etc/resolv.conf && exec \"$@\"";
        let (port, wrapper) = (free_port(), ["unshare", "--mount", "sh", "-c", script, "sh"]);
        Self::of(sandbox, port, command_within(sandbox, &wrapper, &["--listen", &format!("127.0.0.1:{port}")]))
    }

    /// A daemon whose clock is wrong by so many seconds. The kernel's clock, which dates files, stays right.
    pub(crate) fn start_with_clock(sandbox: &'s Sandbox, ahead: i64) -> Self {
        let text = "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <time.h>\n\
                    int clock_gettime(clockid_t id, struct timespec *t) {\n\
                    static int (*real)(clockid_t, struct timespec *);\n\
                    if (!real) real = dlsym(RTLD_NEXT, \"clock_gettime\");\n\
                    int result = real(id, t);\n\
                    if (id == CLOCK_REALTIME) t->tv_sec += AHEAD;\n\
                    return result;\n}\n";
        std::fs::write(sandbox.path("clock.c"), text).unwrap();
        let mut cc = sandbox.command("cc");
        cc.args(["-shared", "-fPIC", &format!("-DAHEAD=({ahead})"), "-o", "clock.so", "clock.c"]);
        assert!(cc.status().unwrap().success());
        let port = free_port();
        let mut command = command(sandbox, &["--listen", &format!("127.0.0.1:{port}")]);
        command.env("LD_PRELOAD", sandbox.path("clock.so"));
        Self::of(sandbox, port, command)
    }

    fn of(sandbox: &'s Sandbox, port: u16, mut command: Command) -> Self {
        let child = command.spawn().unwrap();
        let mut daemon = Self { sandbox, port, token: String::new(), child };
        daemon.token = std::fs::read_to_string(sandbox.path("token")).unwrap_or_else(|_| daemon.new_token("test", &[]));
        std::fs::write(sandbox.path("token"), &daemon.token).unwrap();
        let is_ready = |daemon: &Self| daemon.ask("GET", "/healthz", "").is_some_and(|answer| answer.status == 200);
        for _ in 0..6000 {
            if is_ready(&daemon) {
                return daemon;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        panic!("the daemon does not answer: {}", daemon.log());
    }

    /// A new repository below the root.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        repository(self.sandbox, name)
    }

    /// `git mirror-push token create`
    pub(crate) fn new_token(&self, name: &str, options: &[&str]) -> String {
        let mut command = self.sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
        let output = command.args(["token", "create", "--name", name]).args(options).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Asks with our token. A body that begins with `{` or `[` is JSON; any other body is a form. `None` if there is no answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        self.ask_with(method, path, body, &[("PRIVATE-TOKEN", &self.token)])
    }

    pub(crate) fn ask_with(&self, method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Option<Answer> {
        ask(&self.url(path), method, body, headers)
    }

    /// Asks the API, which must answer.
    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask(method, &format!("/api/v4/{path}"), body).unwrap()
    }

    /// Creates an enabled mirror through the API and returns its id.
    pub(crate) fn add(&self, project: &str, url: &str) -> u64 {
        let body = serde_json::json!({ "url": url, "enabled": true }).to_string();
        let answer = self.api("POST", &format!("projects/{}/remote_mirrors", project.replace('/', "%2F")), &body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_u64().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; returns its exit status.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.sandbox.path("daemon.log")).unwrap()
    }
}

/// A new repository below the root of a sandbox's daemon, with the hook.
pub(crate) fn repository(sandbox: &Sandbox, name: &str) -> PathBuf {
    std::fs::create_dir_all(sandbox.path("srv").join(Path::new(name).parent().unwrap())).unwrap();
    let path = sandbox.bare(&format!("srv/{name}.git"));
    sandbox.mirror_push_ok(&path, &["install-hook", "-q"]);
    path.canonicalize().unwrap()
}

/// Sends a request without a proxy, and follows no redirect. `None` if there is no answer.
pub(crate) fn ask(url: &str, method: &str, body: &str, headers: &[(&str, &str)]) -> Option<Answer> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None);
    let agent: ureq::Agent = config.build().into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        let kind = if body.starts_with(['{', '[']) { "application/json" } else { "application/x-www-form-urlencoded" };
        request = request.header("content-type", kind);
    }
    let answered = match body {
        "" if method == "POST" || method == "PUT" => agent.run(request.body(&b""[..]).unwrap()),
        "" => agent.run(request.body(()).unwrap()),
        body => agent.run(request.body(body.as_bytes()).unwrap()),
    };
    let mut response = answered.ok()?;
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    Some(Answer { status: response.status().as_u16(), headers, text: response.body_mut().read_to_string().ok()? })
}
