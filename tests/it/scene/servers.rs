//! Real servers on loopback ports of their own. Each server ends with its test, also when the test is killed.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::scene::sandbox::{Sandbox, wait_for};

/// How a mirror is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Path,
    Git,
    Ssh,
    Http,
    Https,
}

/// A server for the bare repositories of a sandbox.
pub(crate) struct Server {
    kind: Kind,
    root: PathBuf,
    port: u16,
    children: Vec<Child>,
}

/// The http server answers `/status/N/` with status N, for each of these.
const STATUSES: [u16; 17] = [301, 308, 400, 401, 403, 404, 407, 408, 410, 413, 418, 425, 429, 500, 502, 503, 504];

pub(crate) const USER: &str = "mirror-bot";
pub(crate) const PASSWORD: &str = "c4nary%Tok3n";
/// The password as it stands in a URL.
pub(crate) const PASSWORD_IN_URL: &str = "c4nary%25Tok3n";

impl Drop for Server {
    fn drop(&mut self) {
        for child in &mut self.children {
            // The whole group: git daemon, nginx and fcgiwrap have children.
            let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
        // A worker of nginx is no child of ours and may die a moment later. Until then the port is taken, and the test may want it again.
        for _ in 0..500 {
            if TcpListener::bind(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A port on which nobody listens. It is below the range from which Linux takes the ports of connections, so that none of these gets it before
/// the server does.
pub(crate) fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(37).wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + number % 22_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Starts a program in a process group of its own. The program gets SIGTERM when this test dies.
pub(crate) fn start(sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Child {
    let mut command = sandbox.command("setpriv");
    command.args(["--pdeathsig", "TERM", "--", program]).args(arguments).process_group(0);
    let log = std::fs::File::options().create(true).append(true).open(sandbox.path("server.log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

impl Server {
    pub(crate) fn start(sandbox: &Sandbox, kind: Kind) -> Self {
        Self::start_at(sandbox, kind, free_port())
    }

    /// At a port that the test knows already.
    pub(crate) fn start_at(sandbox: &Sandbox, kind: Kind, port: u16) -> Self {
        let is_web = matches!(kind, Kind::Http | Kind::Https);
        Self::start_with(sandbox, kind, port, if is_web { "client_max_body_size 0;" } else { "" })
    }

    /// With directives for nginx or sshd.
    pub(crate) fn start_with(sandbox: &Sandbox, kind: Kind, port: u16, directives: &str) -> Self {
        let root = sandbox.path("");
        let children = match kind {
            Kind::Path => vec![],
            Kind::Git => vec![git_daemon(sandbox, &root, port)],
            Kind::Ssh => vec![sshd(sandbox, port, directives)],
            Kind::Http | Kind::Https => nginx(sandbox, port, kind == Kind::Https, directives, PASSWORD),
        };
        if kind != Kind::Path {
            wait_for("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        Self { kind, root, port, children }
    }

    /// An https server with this password.
    pub(crate) fn start_with_password(sandbox: &Sandbox, secret: &str) -> Self {
        let port = free_port();
        let children = nginx(sandbox, port, true, "client_max_body_size 0;", secret);
        wait_for("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { kind: Kind::Https, root: sandbox.path(""), port, children }
    }

    /// A web server that asks for no password, with that certificate. Its files are in `directory`.
    pub(crate) fn start_open(sandbox: &Sandbox, directory: &Path, certificate: &Path, key: &Path) -> Self {
        let port = free_port();
        let pair = (certificate.to_owned(), key.to_owned());
        let children = nginx_in(sandbox, directory, port, Some(pair), "client_max_body_size 0;", ("", PASSWORD));
        wait_for("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { kind: Kind::Https, root: sandbox.path(""), port, children }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a repository, credentials included.
    pub(crate) fn url(&self, name: &str) -> String {
        let (port, root) = (self.port, self.root.display());
        match self.kind {
            Kind::Path => format!("{root}/{name}"),
            Kind::Git => format!("git://127.0.0.1:{port}/{name}"),
            Kind::Ssh => format!("ssh://127.0.0.1:{port}{root}/{name}"),
            Kind::Http => format!("http://{USER}:{PASSWORD_IN_URL}@127.0.0.1:{port}/{name}"),
            Kind::Https => format!("https://{USER}:{PASSWORD_IN_URL}@localhost:{port}/{name}"),
        }
    }

    /// Gives a source what it needs to reach the server: keys, pins, certificates.
    pub(crate) fn configure_access(&self, sandbox: &Sandbox, source: &Path, mirror: &str) {
        let directory = source.join("mirror-push/remotes").join(mirror);
        let config = source.join("mirror-push/config.toml");
        let say = |line: &str| {
            let text = std::fs::read_to_string(&config).unwrap();
            let head = format!("[remotes.{mirror}]\n");
            std::fs::write(&config, text.replace(&head, &format!("{head}{line}\n"))).unwrap();
        };
        match self.kind {
            Kind::Path | Kind::Git => {}
            Kind::Ssh => {
                std::fs::copy(sandbox.path("ssh/client"), directory.join("id_ed25519")).unwrap();
                let key = std::fs::read_to_string(sandbox.path("ssh/host.pub")).unwrap();
                std::fs::write(directory.join("known_hosts"), format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
            }
            Kind::Http => say("allow_insecure_http = true"),
            Kind::Https => say(&format!("ca_file = \"{}\"", sandbox.path("tls/ca.pem").display())),
        }
    }

    /// A source whose mirror `m` is the bare repository `name` behind this server.
    pub(crate) fn source(&self, sandbox: &Sandbox, name: &str, options: &[&str]) -> PathBuf {
        let source = sandbox.source(&self.url(name), options);
        self.configure_access(sandbox, &source, "m");
        source
    }

    /// Lines of nginx's access log: connection, requests on it, method, URI, status, length, transfer encoding.
    pub(crate) fn requests(&self, sandbox: &Sandbox) -> Vec<String> {
        std::fs::read_to_string(sandbox.path("nginx/access.log")).unwrap().lines().map(str::to_owned).collect()
    }
}

fn git_daemon(sandbox: &Sandbox, root: &Path, port: u16) -> Child {
    let base = format!("--base-path={}", root.display());
    let port = format!("--port={port}");
    let all = [
        "daemon",
        "--verbose",
        "--enable=receive-pack",
        "--export-all",
        "--listen=127.0.0.1",
        "--reuseaddr",
        &port,
        &base,
    ];
    start(sandbox, "git", &all)
}

fn run(command: &mut Command) {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn sshd(sandbox: &Sandbox, port: u16, directives: &str) -> Child {
    let directory = sandbox.path("ssh");
    std::fs::create_dir(&directory).unwrap();
    for name in ["host", "client"] {
        run(sandbox.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.join(name)));
    }
    std::fs::copy(directory.join("client.pub"), directory.join("authorized_keys")).unwrap();
    // A bash that sshd starts reads the user's .bashrc, unless SHLVL says that it is not the first shell.
    let environment: Vec<String> = sandbox
        .environment()
        .into_iter()
        .filter(|(name, _)| name.starts_with("GIT_CONFIG") || *name == "PATH")
        .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
        .chain(["SHLVL=2".into()])
        .collect();
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {d}/host\nAuthorizedKeysFile {d}/authorized_keys\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nSetEnv {}\n{directives}",
        environment.join(" "),
        d = directory.display(),
    );
    std::fs::write(directory.join("sshd_config"), config).unwrap();
    // Debian's init makes this directory; sshd refuses to start without it.
    let _ = std::fs::create_dir_all("/run/sshd");
    start(sandbox, "/usr/sbin/sshd", &["-D", "-e", "-f", directory.join("sshd_config").to_str().unwrap()])
}

/// The certificate and the private key of a web server.
type Pair = (PathBuf, PathBuf);

fn nginx(sandbox: &Sandbox, port: u16, is_tls: bool, directives: &str, secret: &str) -> Vec<Child> {
    let pair = is_tls.then(|| {
        certificates(sandbox);
        (sandbox.path("tls/leaf.pem"), sandbox.path("tls/leaf.key"))
    });
    let password = "auth_basic git;\nauth_basic_user_file htpasswd;\n";
    nginx_in(sandbox, &sandbox.path("nginx"), port, pair, directives, (password, secret))
}

fn nginx_in(
    sandbox: &Sandbox,
    directory: &Path,
    port: u16,
    pair: Option<Pair>,
    directives: &str,
    (password, secret): (&str, &str),
) -> Vec<Child> {
    std::fs::create_dir(directory).unwrap();
    let d = directory.display();
    let socket = directory.join("fcgi");
    let fcgiwrap = start(sandbox, "/usr/sbin/fcgiwrap", &["-c", "2", "-s", &format!("unix:{}", socket.display())]);
    wait_for("fcgiwrap", || socket.exists());
    let mut openssl = sandbox.command("openssl");
    let hash = crate::scene::sandbox::run_with_input(
        openssl.args(["passwd", "-apr1", "-stdin"]),
        format!("{secret}\n").as_bytes(),
    )
    .out;
    std::fs::write(directory.join("htpasswd"), format!("{USER}:{hash}")).unwrap();
    let is_tls = pair.is_some();
    let tls = pair.map_or(String::new(), |(certificate, key)| {
        format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display())
    });
    let password = password.replace("htpasswd", &format!("{d}/htpasswd"));
    let backend = format!("{}/git-http-backend", sandbox.git(&sandbox.path(""), &["--exec-path"]));
    let parameters: String = sandbox
        .environment()
        .into_iter()
        .map(|(name, value)| format!("fastcgi_param {name} \"{}\";\n", value.to_str().unwrap()))
        .collect();
    let temp: String = ["client_body", "fastcgi", "proxy", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {d}/{kind};\n"))
        .concat();
    let statuses: String =
        STATUSES.map(|status| format!("location /status/{status}/ {{ return {status}; }}\n")).concat();
    let config = format!(
        "user root;\ndaemon off;\npid {d}/pid;\nerror_log {d}/error.log;\nworker_processes 1;\n\
         events {{ worker_connections 256; }}\nhttp {{\n{temp}\
         log_format counted '$connection $connection_requests $request_method $uri $status $http_content_length $http_transfer_encoding';\n\
         access_log {d}/access.log counted;\n{directives}\n\
         server {{\nlisten 127.0.0.1:{port}{ssl};\n{tls}\n\
         location /dumb/ {{ return 200 'hello'; }}\n{statuses}\
         location / {{\n{password}{parameters}\
         fastcgi_param SCRIPT_FILENAME {backend};\nfastcgi_param GIT_PROJECT_ROOT {root};\nfastcgi_param GIT_HTTP_EXPORT_ALL 1;\n\
         fastcgi_param PATH_INFO $uri;\nfastcgi_param REMOTE_USER $remote_user;\nfastcgi_param QUERY_STRING $query_string;\n\
         fastcgi_param HTTP_GIT_PROTOCOL $http_git_protocol;\nfastcgi_param REQUEST_METHOD $request_method;\nfastcgi_param CONTENT_TYPE $content_type;\n\
         fastcgi_param CONTENT_LENGTH $content_length;\nfastcgi_pass_request_headers off;\nfastcgi_read_timeout 600;\nfastcgi_pass unix:{socket};\n}}\n}}\n}}\n",
        ssl = if is_tls { " ssl" } else { "" },
        root = sandbox.path("").display(),
        socket = socket.display(),
    );
    std::fs::write(directory.join("nginx.conf"), config).unwrap();
    let nginx = start(sandbox, "/usr/sbin/nginx", &["-c", &format!("{d}/nginx.conf"), "-e", &format!("{d}/error.log")]);
    vec![nginx, fcgiwrap]
}

/// Makes a certificate authority, and a certificate for `localhost` that it has signed.
pub(crate) fn certificates(sandbox: &Sandbox) {
    let directory = sandbox.path("tls");
    std::fs::create_dir(&directory).unwrap();
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout leaf.key -out leaf.csr
        printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > leaf.ext
        openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.ext -out leaf.pem";
    run(sandbox.command("sh").current_dir(&directory).arg("-c").arg(script));
}
