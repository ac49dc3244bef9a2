"""What the number of repositories costs: a daemon and `status --all` with given numbers of
repositories, each with one mirror.

Used by tests/load. The repositories are written file by file, in the state after a first sync,
because git would need an hour. From number 200 on, one in a hundred has a mirror that fails.
"""
import http.client
import json
import os
import shutil
import socket
import subprocess
import time

PUSHED, FAILING = 200, 100


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def files_below(top):
    """Each directory, file and symbolic link of a repository, by its path in it."""
    directories, files, links = [], {}, {}
    for where, names, found in os.walk(top):
        inner = os.path.relpath(where, top)
        directories += [os.path.normpath(os.path.join(inner, name)) for name in names]
        for name in found:
            path, key = os.path.join(where, name), os.path.normpath(os.path.join(inner, name))
            if os.path.islink(path):
                links[key] = os.readlink(path)
                continue
            with open(path, "rb") as file:
                files[key] = (file.read(), os.stat(path).st_mode)
    return directories, files, links


class Size:
    """A machine with so many repositories. The first `mirrored` of them have a mirror that is there."""

    def __init__(self, directory, program, count, mirrored=PUSHED):
        self.directory, self.program, self.count, self.mirrored = directory, program, count, mirrored
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": directory, "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1",
            "RUNTIME_DIRECTORY": directory + "/run", "STATE_DIRECTORY": directory + "/state",
            "GIT_MIRROR_PUSH_CONFIG": directory + "/server.toml",
            "GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@example.org",
            "GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@example.org",
        }

    def configuration(self):
        return f'[remotes.m]\nurl = "{self.directory}/mirrors/{{path}}.git"\n'

    def build(self):
        directory, program = self.directory, self.program
        with open(directory + "/server.toml", "w", encoding="utf-8") as file:
            file.write(f'[[repositories]]\nroot = "{directory}/srv"\n{self.configuration()}')
        self.run("git", "init", "-q", directory + "/work")
        self.run("git", "commit", "-q", "--allow-empty", "-m", "one", cwd=directory + "/work")
        first, mirror = self.source(0), self.mirror(0)
        for path in first, mirror:
            self.run("git", "init", "-q", "--bare", "--template=", path)
        self.run("git", "push", "-q", first, "HEAD:main", cwd=directory + "/work")
        self.run(program, "install-hook", "--all", "-q")
        self.run(program, "sync", "--all", "-q", "--adopt")
        self.copy()

    def source(self, n):
        return f"{self.directory}/srv/group{n // 1000}/r{n:06}.git"

    def mirror(self, n):
        return f"{self.directory}/mirrors/group{n // 1000}/r{n:06}.git"

    def copy(self):
        ours, theirs = files_below(self.source(0)), files_below(self.mirror(0))
        name = b"group0/r000000"
        for n in range(1, self.count):
            own = f"group{n // 1000}/r{n:06}".encode()
            pairs = [(self.source(n), ours)] + ([(self.mirror(n), theirs)] if n < self.mirrored else [])
            for top, (directories, files, links) in pairs:
                os.makedirs(top)
                for inner in directories:
                    os.mkdir(f"{top}/{inner}")
                for inner, target in links.items():
                    os.symlink(target, f"{top}/{inner}")
                for inner, (content, mode) in files.items():
                    content = content.replace(name, own)
                    if inner.endswith("status.json") and n >= self.mirrored and n % FAILING == 0:
                        status = json.loads(content)
                        status.update(update_status="failed", attempts=1, failing_since=status["last_update_at"],
                                      last_error=f"'{self.mirror(n)}' is not a repository")
                        content = json.dumps(status, indent=2).encode()
                    with open(os.open(f"{top}/{inner}", os.O_CREAT | os.O_WRONLY, mode), "wb") as file:
                        file.write(content)

    def run(self, *arguments, cwd=None):
        done = subprocess.run(arguments, env=self.environment, cwd=cwd or self.directory, capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done)
        return done.stdout

    def start(self, scans):
        """Returns how long it takes until the daemon is ready. With `scans`, it scans all repositories over and over."""
        self.port = free_port()
        self.run("mkdir", "-p", "conf.d")
        with open(self.directory + "/conf.d/scans.toml", "w", encoding="utf-8") as file:
            file.write('scan_interval = "1s"\n' if scans else "")
        begin = time.monotonic()
        self.daemon = subprocess.Popen([self.program, "serve", "-q", "--listen", f"127.0.0.1:{self.port}"], env=self.environment)
        while True:
            try:
                if self.get("/healthz")[0] == 200:
                    return time.monotonic() - begin
            except OSError:
                assert self.daemon.poll() is None, "the daemon ended"
                time.sleep(0.005)

    def get(self, path, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def cpu(self):
        with open(f"/proc/{self.daemon.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self):
        with open(f"/proc/{self.daemon.pid}/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))

    def settle(self):
        """Waits until the first scan is over."""
        last = self.cpu()
        while True:
            time.sleep(1)
            now = self.cpu()
            if now - last < 0.02:
                return
            last = now

    def sign_in(self, token):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", "/login", "token=" + token,
                           {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"})
        answer = connection.getresponse()
        answer.read()
        return {"Cookie": answer.headers["Set-Cookie"].split(";")[0]}

    def requests(self, rounds=100):
        """The times of each kind of request."""
        token = {"PRIVATE-TOKEN": self.run(self.program, "token", "create", "--name", "load").strip()}
        page = self.sign_in(token["PRIVATE-TOKEN"])
        last = self.count // 20
        kinds = {
            "metrics": ("/metrics", {}),
            "projects": ("/api/v4/projects?page={}", token),
            "project": ("/api/v4/projects/{}", token),
            "unknown_number": ("/api/v4/projects/9{}99999", token),
            "unknown_path": ("/api/v4/projects/none%2F{}", token),
            "mirrors": ("/api/v4/projects/{}/remote_mirrors", token),
            "page": ("/", page),
            "page_search": ("/?q=r0{}", page),
            "page_failing": ("/?state=failing", page),
        }
        times = {kind: [] for kind in kinds}
        sizes = {}
        for n in range(rounds):
            for kind, (path, headers) in kinds.items():
                begin = time.monotonic()
                status, body = self.get(path.format(n * 7 % last + 1), headers)
                times[kind].append(time.monotonic() - begin)
                assert status == (404 if kind.startswith("unknown") else 200), (kind, status, body[:300])
                sizes[kind] = len(body)
        table = {kind: {"p50_ms": ms(percentile(found, .5)), "p99_ms": ms(percentile(found, .99)), "max_ms": ms(max(found))}
                 for kind, found in times.items()}
        table["metrics"]["bytes"] = sizes["metrics"]
        return table

    def pushes(self, rounds=200):
        """The times from the end of `git push` until the mirror has the same value."""
        waits = []
        for n in range(rounds):
            self.run("git", "commit", "-q", "--allow-empty", "-m", str(n), cwd=self.directory + "/work")
            self.run("git", "push", "-q", self.source(n % PUSHED), "+HEAD:main", cwd=self.directory + "/work")
            begin = time.monotonic()
            value = head(self.source(n % PUSHED))
            while head(self.mirror(n % PUSHED)) != value:
                assert time.monotonic() < begin + 60, "a push was not mirrored"
                time.sleep(0.0005)
            waits.append(time.monotonic() - begin)
        return {"p50_ms": ms(percentile(waits, .5)), "p99_ms": ms(percentile(waits, .99)), "max_ms": ms(max(waits))}

    def stop(self):
        """Returns the most memory that the daemon had, in KiB."""
        peak = self.peak()
        self.daemon.terminate()
        self.daemon.wait()
        return peak

    def idle(self, seconds):
        before, begin = self.cpu(), time.monotonic()
        time.sleep(seconds)
        return round(100 * (self.cpu() - before) / (time.monotonic() - begin), 2)

    def status(self, *options):
        """Measures one `status --all`: time, CPU time, peak memory, size of the output."""
        with open(self.directory + "/out", "wb") as out:
            begin = time.monotonic()
            child = subprocess.Popen([self.program, "status", "--all", *options], env=self.environment, stdout=out)
            _, code, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(code)
        assert child.returncode == 1, "some mirrors fail"
        return {"s": round(time.monotonic() - begin, 2), "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
                "peak_kib": usage.ru_maxrss, "bytes": os.path.getsize(self.directory + "/out")}


def head(path):
    try:
        with open(path + "/refs/heads/main", encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def ms(seconds):
    return round(seconds * 1000, 1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(directory, program, count, idle):
    begin = time.monotonic()
    size = Size(directory, program, count)
    size.build()
    row = {"repositories": count, "built_in_s": round(time.monotonic() - begin, 1)}
    row["start_s"] = round(size.start(scans=False), 2)
    try:
        size.settle()
        row["first_scan_cpu_s"] = round(size.cpu(), 2)
        row["idle_percent_of_a_core"] = size.idle(idle)
        row["daemon_peak_kib"] = size.stop()
        size.start(scans=True)
        # Before that, /metrics lacks the mirrors that fail.
        while b"unread_repositories 0\n" not in size.get("/metrics")[1]:
            time.sleep(0.2)
        row["requests"] = size.requests()
        row["push_to_mirror"] = size.pushes()
        row["scanning_daemon_peak_kib"] = size.stop()
    finally:
        size.daemon.kill()
    row["status_all"] = size.status()
    row["status_all_json"] = size.status("--json")
    return row


def main(program, counts, idle, make_directory):
    """Prints one row for each number of repositories."""
    for count in counts:
        directory = make_directory()
        try:
            print(json.dumps(measure(directory, program, count, idle), indent=1), flush=True)
        finally:
            shutil.rmtree(directory)
