"""Where tests/bench works: a home of its own with servers, and how a command is measured."""
import os, shutil, signal, socket, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Home:
    """A temporary directory with a git configuration of its own, and the servers that live in it."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="git-mirror-push-bench."))
        config = "[user]\nname=b\nemail=b@example.org\n[init]\ndefaultBranch=main\n[gc]\nauto=0\n[maintenance]\nauto=false\n"
        config += "[receive]\nautogc=false\n[http]\nreceivepack=true\n"
        (self.path / "gitconfig").write_text(config)
        self.env = {
            "PATH": os.environ["PATH"], "HOME": str(self.path), "GIT_CONFIG_GLOBAL": str(self.path / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C",
        }
        self.servers = []

    def close(self):
        for server in self.servers:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        shutil.rmtree(self.path, ignore_errors=True)

    def run(self, *command, stdin=b"", cwd=None):
        done = subprocess.run(command, env=self.env, input=stdin, cwd=cwd or self.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode != 0:
            sys.exit(f"{command}: {done.stderr.decode()}")
        return done.stdout.decode()

    def git(self, repository, *arguments, stdin=b""):
        return self.run("git", "--git-dir", str(repository), *arguments, stdin=stdin)

    def serve(self, *command, port):
        log = open(self.path / "server.log", "ab")
        self.servers.append(subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "--", *command], env=self.env, stdout=log,
                                             stderr=log, start_new_session=True))
        for _ in range(1000):
            try:
                if port is None or socket.create_connection(("127.0.0.1", port), 1):
                    return
            except OSError:
                time.sleep(0.01)
        sys.exit("a server did not start")

    def start(self, transport, trip=0):
        """Starts a server, `trip` seconds away and back, and returns the prefix of its URLs."""
        port, far = free_port(), free_port()
        if transport == "path":
            return f"{self.path}/"
        url = self.start_at(transport, port, far)
        if not trip:
            return url
        self.serve(sys.executable, str(ROOT / "tests/bench_relay.py"), str(far), str(port), str(trip), port=far)
        return url.replace(f":{port}", f":{far}", 1)

    def start_at(self, transport, port, far):
        if transport == "git":
            self.serve("git", "daemon", "--enable=receive-pack", "--export-all", "--listen=127.0.0.1", f"--port={port}",
                       f"--base-path={self.path}", port=port)
            return f"git://127.0.0.1:{port}/"
        if transport == "ssh":
            os.makedirs("/run/sshd", exist_ok=True)
            for key in ("host", "client"):
                self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
            shutil.copy(self.path / "client.pub", self.path / "authorized_keys")
            key = (self.path / "host.pub").read_text()
            known = "".join(f"[127.0.0.1]:{at} {key}" for at in (port, far))
            (self.path / "known_hosts").write_text(known)
            environment = " ".join(f"{key}={value}" for key, value in self.env.items() if key != "HOME")
            # A bash that sshd starts reads the user's .bashrc, unless it believes that it is not the first.
            environment += " SHLVL=2"
            (self.path / "sshd_config").write_text(
                f"ListenAddress 127.0.0.1:{port}\nHostKey {self.path}/host\nAuthorizedKeysFile {self.path}/authorized_keys\n"
                f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nMaxStartups 100\nSetEnv {environment}\n")
            self.env["GIT_SSH_COMMAND"] = (f"ssh -F /dev/null -oBatchMode=yes -oIdentitiesOnly=yes -i {self.path}/client "
                                           f"-oUserKnownHostsFile={self.path}/known_hosts")
            self.serve("/usr/sbin/sshd", "-D", "-e", "-f", f"{self.path}/sshd_config", port=port)
            return f"ssh://127.0.0.1:{port}{self.path}/"
        self.serve("/usr/sbin/fcgiwrap", "-c", "2", "-s", f"unix:{self.path}/fcgi", port=None)
        temps = "".join(f"{kind}_temp_path {self.path}/{kind};" for kind in ("client_body", "fastcgi", "proxy", "uwsgi", "scgi"))
        backend = self.run("git", "--exec-path").strip() + "/git-http-backend"
        params = {"SCRIPT_FILENAME": backend, "GIT_PROJECT_ROOT": self.path, "GIT_HTTP_EXPORT_ALL": 1, "PATH_INFO": "$uri",
                  "QUERY_STRING": "$query_string", "REQUEST_METHOD": "$request_method", "CONTENT_TYPE": "$content_type",
                  "CONTENT_LENGTH": "$content_length", **self.env}
        lines = "".join(f'fastcgi_param {key} "{value}";' for key, value in params.items())
        (self.path / "nginx.conf").write_text(
            f"user root; daemon off; pid {self.path}/pid; error_log {self.path}/error.log; events {{ worker_connections 256; }} http {{ {temps} "
            f"log_format connection '$connection'; access_log {self.path}/access.log connection; client_max_body_size 0; server {{ listen 127.0.0.1:{port}; location / {{ {lines} "
            f"fastcgi_read_timeout 600; fastcgi_pass unix:{self.path}/fcgi; }} }} }}")
        self.serve("/usr/sbin/nginx", "-c", f"{self.path}/nginx.conf", "-e", f"{self.path}/error.log", port=port)
        return f"http://127.0.0.1:{port}/"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def busy():
    """CPU seconds that this machine has spent on anything."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def timed(home, command):
    """Seconds: wall, CPU of the process and what it waited for, CPU of everything else, which is the servers'."""
    others, begin = busy(), time.perf_counter()
    child = subprocess.Popen(command, env=home.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command}: {said.decode()}")
    cpu = usage.ru_utime + usage.ru_stime
    return wall, cpu, max(0, busy() - others - cpu)


def connections(home, command):
    """How many connections a server sees, as far as it tells."""
    logs = [home.path / name for name in ("access.log", "server.log")]
    before = [log.stat().st_size if log.exists() else 0 for log in logs]
    subprocess.run(command, env=home.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    web, ssh = [log.read_bytes()[size:].splitlines() if log.exists() else [] for log, size in zip(logs, before)]
    return len(set(web)) or sum(b"Accepted publickey" in line for line in ssh)


def peak(home, command):
    """Peak MiB of the process itself, in a run that is not timed: what it starts is git's on both sides."""
    child = subprocess.Popen(command, env=home.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    highest = 0
    while child.poll() is None:
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
            highest = max(highest, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
        except (OSError, TypeError, ValueError):
            pass
        time.sleep(0.0005)
    return round(highest / 1024, 1)


def executions(home, command):
    """How many programs a command starts, itself included, by strace."""
    log = home.path / "strace"
    subprocess.run(["strace", "-f", "-qq", "-e", "trace=execve", "-o", log, *command], env=home.env, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return sum(" = 0" in line for line in log.read_text().splitlines())
