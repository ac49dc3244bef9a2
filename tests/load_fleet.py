"""What a fleet bears and costs: three daemons on this machine with a PostgreSQL server, a git daemon as the mirrors' host, and faults.

Used by tests/load. PostgreSQL is Debian's (package postgresql); its data directory and port are this run's own.
"""
import glob
import json
import os
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

from load_size import Size, free_port, head, ms, percentile

NODES, PLACES, ROWS = 3, 8, 1_000_000


class Postgres:
    """A server with the role gmp, who owns the database mirrors."""

    def __init__(self, directory):
        self.directory, self.port = directory, free_port()
        self.programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        os.mkdir(directory)
        self.user = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam("postgres")
            self.user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(directory, entry.pw_uid, entry.pw_gid)
        subprocess.run([self.programs + "/initdb", "-A", "trust", "-U", "postgres", "-D", directory + "/data"], check=True,
                       stdout=subprocess.DEVNULL, cwd="/", **self.user)
        self.start()
        self.sql("create role gmp login", "postgres")
        self.sql("create database mirrors owner gmp", "postgres")

    def start(self):
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=" + self.directory, "max_connections=30",
                    "shared_buffers=256MB", "max_wal_size=4GB"]
        options = [word for setting in settings for word in ("-c", setting)]
        with open(self.directory + "/log", "ab") as log:
            self.server = subprocess.Popen([self.programs + "/postgres", "-D", self.directory + "/data", "-p", str(self.port), *options],
                                           stdout=log, stderr=log, start_new_session=True, cwd="/", **self.user)
        while subprocess.run(self.psql("postgres", "select 1"), capture_output=True).returncode:
            time.sleep(0.05)

    def psql(self, database, statements):
        path = ["-c", "set search_path = git_mirror_push, public"] if database == "mirrors" else []
        return ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database,
                *path, "-c", statements]

    def sql(self, statements, database="mirrors"):
        return subprocess.run(self.psql(database, statements), check=True, capture_output=True, text=True).stdout.strip()

    def signal(self, number):
        """Sends a signal to the server and all of its children."""
        os.killpg(self.server.pid, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.server.wait()


class Wire:
    """The way of one machine to the database, which can be cut: then connections stand still and new ones get no answer."""

    def __init__(self, to):
        self.to, self.is_cut = to, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client = self.listener.accept()[0]
            try:
                server = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                client.close()
                continue
            for pair in (client, server), (server, client):
                threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, source, target):
        try:
            while data := source.recv(1 << 16):
                while self.is_cut.is_set():
                    time.sleep(0.01)
                target.sendall(data)
        except OSError:
            pass
        for end in source, target:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Machine(Size):
    """A machine of the fleet; without a wire, a machine that is in none. All its mirrors are at the hub."""

    def __init__(self, directory, program, count, name, hub, wire):
        os.mkdir(directory)
        super().__init__(directory, program, count, mirrored=count)
        self.name, self.hub, self.wire = name, hub, wire

    def configuration(self):
        fleet = f'[fleet]\nurl = "postgres://gmp@127.0.0.1:{self.wire.port}/mirrors"\nnode = "{self.name}"\n' if self.wire else ""
        host = f"127.0.0.1:{self.hub.port}"
        return (f'{fleet}[hosts."{host}"]\nmax_jobs = {PLACES}\n'
                f'[remotes.m]\nurl = "git://{host}/{self.name}/{{path}}.git"\ndivergent_refs = "keep"\n')

    def mirror(self, n):
        return f"{self.hub.directory}/{self.name}/group{n // 1000}/r{n:06}.git"

    def push(self, n, value):
        self.run("git", "push", "-q", self.source(n), f"+{value}:refs/heads/main", cwd=self.directory + "/work")

    def is_equal(self, n):
        return head(self.source(n)) == head(self.mirror(n))

    def shown(self, *options):
        found = subprocess.run([self.program, "status", *options, "--json"], env=self.environment, capture_output=True, text=True)
        if not found.stdout:
            return []
        for mirror in (mirrors := json.loads(found.stdout)):
            for key in "node", "reachable", "as_of":
                mirror.pop(key, None)
        return sorted(mirrors, key=lambda mirror: mirror["repository"])

    def is_copied(self):
        return (copies := self.shown("--fleet", "--node", self.name)) != [] and copies == self.shown("--all")

    def commits(self, count):
        """New commits, each on top of the one before. Those of another call have other numbers: a ref that gets an earlier value again and
        again is a ref that goes back and forth, and is not sent."""
        tip = self.run("git", "rev-parse", "HEAD", cwd=self.directory + "/work").strip()
        first = time.time_ns() // 1000
        lines = "".join(f"commit refs/heads/more\ncommitter T <t@example.org> {n} +0000\ndata 16\n{first:016}\n" + (f"from {tip}\n" if n == 1 else "")
                        for n in range(1, count + 1))
        subprocess.run(["git", "fast-import", "--quiet", "--force"], input=lines.encode(), check=True, env=self.environment,
                       cwd=self.directory + "/work")
        listed = self.run("git", "rev-list", "--reverse", f"{tip}..refs/heads/more", cwd=self.directory + "/work")
        return listed.split()


class Hub:
    """A git daemon with all mirrors."""

    def __init__(self, directory):
        self.directory, self.port = directory, free_port()
        os.mkdir(directory)
        environment = {"PATH": os.environ["PATH"], "HOME": directory, "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1"}
        self.server = subprocess.Popen(
            ["git", "daemon", "--export-all", "--enable=receive-pack", "--reuseaddr", "--listen=127.0.0.1", f"--port={self.port}",
             "--base-path=" + directory, "--max-connections=0", directory],
            env=environment, stderr=subprocess.DEVNULL, start_new_session=True)

    def connections(self):
        local = f"0100007F:{self.port:04X}"
        with open("/proc/net/tcp", encoding="utf-8") as table:
            return sum(fields[1] == local and fields[3] == "01" for fields in (line.split() for line in table))

    def sample(self, is_over):
        """The number of connections every 5 ms, until it is over."""
        found = []
        while not is_over():
            found.append(self.connections())
            time.sleep(0.005)
        return found


class Fleet:
    def __init__(self, directory, program, count):
        self.directory, self.program, self.count = directory, program, count
        self.postgres, self.hub = Postgres(directory + "/postgres"), Hub(directory + "/hub")
        self.machines = [Machine(f"{directory}/git{n}", program, count, f"git{n}", self.hub, Wire(self.postgres.port))
                         for n in range(NODES)]

    def build(self):
        for machine in self.machines:
            machine.build()
        self.machines[0].run(self.program, "fleet", "init")

    def start(self):
        for machine in self.machines:
            machine.start(scans=False)
        self.wait_for_copies()

    def wait_for_copies(self):
        begin = time.monotonic()
        while not all(machine.is_copied() for machine in self.machines):
            assert time.monotonic() < begin + 300, "the copies are not equal"
        return round(time.monotonic() - begin, 1)

    def stop(self):
        for machine in self.machines:
            if hasattr(machine, "daemon"):
                machine.daemon.kill()
                machine.daemon.wait()
        if self.postgres.server.poll() is None:
            self.postgres.signal(signal.SIGCONT)
            self.postgres.signal(signal.SIGKILL)
        os.killpg(self.hub.server.pid, signal.SIGTERM)
        self.hub.server.wait()


def storm(fleet, pushes, seconds):
    """Pushes at a fixed rate, while a node is killed, the database is killed, and each node is cut off from it. Strangers write to some mirrors
    meanwhile. Every time is a part of `seconds`."""
    machines = fleet.machines
    commits = [machine.commits(pushes // NODES + 2) for machine in machines]
    strange = range(0, fleet.count, max(1, fleet.count // 10))
    begin, over = time.monotonic(), threading.Event()

    def push(node):
        machine = machines[node]
        for n in range(node, pushes, NODES):
            time.sleep(max(0.0, begin + n * seconds / pushes - time.monotonic()))
            machine.push((n // NODES * 7) % fleet.count, commits[node][n // NODES])

    def foreign():
        for machine in machines:
            for n in strange:
                machine.run("git", "-C", machine.mirror(n), "update-ref", "refs/heads/main", foreigners[machine.name, n])

    # A commit of somebody else, with no parent, in each of these mirrors.
    foreigners = {}
    for machine in machines:
        for n in strange:
            tree = machine.run("git", "-C", machine.mirror(n), "hash-object", "-w", "-t", "tree", "/dev/null").strip()
            made = machine.run("git", "-C", machine.mirror(n), "commit-tree", tree, "-m", f"foreign {n}")
            foreigners[machine.name, n] = made.strip()
    foreign()
    cut = lambda node: machines[node].wire.is_cut.set()
    mend = lambda node: machines[node].wire.is_cut.clear()

    def restart():
        machines[0].daemon.wait()
        machines[0].start(scans=False)

    # Each cut lasts longer than a node may use its parts of limits without the database, which is 10 s.
    events = [(3, lambda: machines[0].daemon.kill()), (10, restart), (11, lambda: fleet.postgres.signal(signal.SIGKILL)),
              (22, fleet.postgres.start), (23, lambda: cut(0)), (35, lambda: mend(0)), (35, lambda: cut(1)), (47, lambda: mend(1)),
              (47, lambda: cut(2)), (59, lambda: mend(2))]

    def faults():
        for at, act in events:
            time.sleep(max(0.0, begin + at * seconds / 60 - time.monotonic()))
            act()

    samples = []
    threads = [threading.Thread(target=push, args=[node]) for node in range(NODES)] + [threading.Thread(target=faults)]
    sampler = threading.Thread(target=lambda: samples.extend(fleet.hub.sample(over.is_set)))
    for thread in [*threads, sampler]:
        thread.start()
    for thread in threads:
        thread.join()
    took, end = time.monotonic() - begin, time.monotonic()
    late = lambda: [(machine.name, n) for machine in machines for n in range(fleet.count) if n not in strange and not machine.is_equal(n)]
    while late() and time.monotonic() < end + 120:
        time.sleep(0.05)
    mirrored = time.monotonic() - end
    over.set()
    sampler.join()
    fleet.wait_for_copies()
    copied = time.monotonic() - end
    overwritten = [(machine.name, n) for machine in machines for n in strange
                   if head(machine.mirror(n)).strip() != foreigners[machine.name, n]]
    return {"pushes": pushes, "in_s": round(took, 1), "lost": len(late()), "foreign_overwritten": len(overwritten),
            "all_mirrored_after_s": round(mirrored, 1), "all_copies_equal_after_s": round(copied, 1),
            "most_connections_to_the_host": max(samples)}


def places(fleet, seconds=2, each=40):
    """Pushes that the host takes so many seconds for wait on all nodes, on the last one fewer: how much of the host's limit is used."""
    hook = f"#!/bin/sh\nsleep {seconds}\n"
    first = 20
    counts = [each] * (NODES - 1) + [4]
    tips = [machine.commits(1)[0] for machine in fleet.machines]
    for machine, count in zip(fleet.machines, counts):
        for n in range(first, first + count):
            os.makedirs(machine.mirror(n) + "/hooks", exist_ok=True)
            path = machine.mirror(n) + "/hooks/pre-receive"
            with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755), "w", encoding="utf-8") as file:
                file.write(hook)
    begin = time.monotonic()
    served = {}

    def push(machine, count, tip):
        for n in range(first, first + count):
            machine.push(n, tip)

    threads = [threading.Thread(target=push, args=job) for job in zip(fleet.machines, counts, tips)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waiting = lambda: [(machine.name, n) for machine, count in zip(fleet.machines, counts) for n in range(first, first + count)
                       if not machine.is_equal(n)]

    def is_over():
        found = waiting()
        for machine, count in zip(fleet.machines, counts):
            if sum(name == machine.name for name, _ in found) < count:
                served.setdefault(machine.name, round(time.monotonic() - begin, 1))
        return len(found) < 2 * PLACES

    samples = fleet.hub.sample(is_over)
    while waiting():
        time.sleep(0.05)
    for machine, count in zip(fleet.machines, counts):
        for n in range(first, first + count):
            os.remove(machine.mirror(n) + "/hooks/pre-receive")
    return {"limit": PLACES, "most_connections": max(samples), "used": round(statistics.mean(samples) / PLACES, 3),
            "first_served_after_s": served}


def wiped(fleet):
    """The tables are dropped and made again."""
    fleet.postgres.sql("drop schema git_mirror_push cascade", "mirrors")
    fleet.machines[0].run(fleet.program, "fleet", "init")
    begin = time.monotonic()
    count = f"select count(*) = {NODES * fleet.count} from mirror"
    while fleet.postgres.sql(count) != "t":
        time.sleep(0.05)
    took = round(time.monotonic() - begin, 1)
    fleet.wait_for_copies()
    return {"mirrors": NODES * fleet.count, "all_copies_again_after_s": took}


def pairs(fleet, alone, pushes):
    """Pushes in turn to a machine of the fleet and to one that is in none: the wall time of `git push`, and the time to the mirror."""
    machines = {"fleet": fleet.machines[1], "none": alone}
    commits = {name: machine.commits(pushes) for name, machine in machines.items()}
    walls, waits = {"fleet": [], "none": []}, {"fleet": [], "none": []}
    for n in range(pushes):
        for name in ("fleet", "none") if n % 2 else ("none", "fleet"):
            machine, at = machines[name], 501 + n % 99
            begin = time.monotonic()
            machine.push(at, commits[name][n])
            end = time.monotonic()
            while not machine.is_equal(at):
                assert time.monotonic() < end + 60, "a push was not mirrored"
                time.sleep(0.0005)
            walls[name].append(end - begin)
            waits[name].append(time.monotonic() - end)
    figures = lambda found: {"p50_ms": ms(percentile(found, .5)), "p99_ms": ms(percentile(found, .99))}
    ratio = lambda times, part: round(percentile(times["fleet"], part) / percentile(times["none"], part), 2)
    return {"pushes": pushes, "push_p50_ratio": ratio(walls, .5), "mirrored_p50_ratio": ratio(waits, .5),
            "mirrored_p99_ratio": ratio(waits, .99), "push": {name: figures(found) for name, found in walls.items()},
            "mirrored": {name: figures(found) for name, found in waits.items()}}


def million(fleet):
    """`status --fleet` where the database has a million mirrors, of which one in a hundred fails."""
    shown = json.dumps(fleet.machines[0].shown("--all")[0]).replace("'", "''")
    fleet.postgres.sql(f"""
        insert into node (name, advertise, program, limits, instance, beat, since, seen, clock_ahead_ms, running, waiting)
            select 'far' || n, '', '', '', '', 1, now(), now(), 0, 0, 0 from generate_series(0, 99) n;
        insert into repository (id, node, git_dir, path)
            select 9000000 + n, 'far' || n % 100, '/srv/r' || n || '.git', 'r' || n from generate_series(1, {ROWS}) n;
        insert into mirror (repository, name, node, host, target, state, failing_since, shown)
            select 9000000 + n, 'm', 'far' || n % 100, 'h' || n % 50 || '.example', 't' || n, case when n % 100 = 0 then 0 else 5 end,
                case when n % 100 = 0 then now() else 'infinity' end, '{shown}'::jsonb
            from generate_series(1, {ROWS}) n;
        insert into tally (node, host, state, mirrors, pushes)
            select node, host, state, count(*), 0 from mirror where node like 'far%' group by 1, 2, 3;
        analyze""")
    fleet.postgres.sql("vacuum analyze", "mirrors")
    times = {}
    for options in [], ["--node", "far7"], ["--host", "h7.example"], ["--state", "failing"]:
        found = []
        for _ in range(5):
            begin = time.monotonic()
            subprocess.run([fleet.program, "status", "--fleet", *options], env=fleet.machines[0].environment, stdout=subprocess.DEVNULL)
            found.append(time.monotonic() - begin)
        times[" ".join(["status --fleet", *options])] = {"p50_ms": ms(statistics.median(found)), "max_ms": ms(max(found))}
    return {"mirrors": ROWS, **times}


def measure(directory, program, count, pushes, seconds):
    fleet = Fleet(directory, program, count)
    alone = Machine(directory + "/alone", program, count, "alone", fleet.hub, None)
    try:
        alone.build()
        fleet.build()
        fleet.start()
        # Now, so that it has compared everything once before it is measured.
        alone.start(scans=False)
        missed = []

        def show(name, row, **most):
            print(json.dumps({name: row}, indent=1), flush=True)
            missed.extend(f"{name}: {key} is {row[key]}, more than {goal}" for key, goal in most.items() if row[key] > goal)

        show("storm", storm(fleet, pushes, seconds), lost=0, foreign_overwritten=0, all_mirrored_after_s=30, all_copies_equal_after_s=30,
             most_connections_to_the_host=PLACES)
        show("places", places(fleet), most_connections=PLACES)
        show("wiped", wiped(fleet), all_copies_again_after_s=30)
        pairs(fleet, alone, 20)
        show("database_up", pairs(fleet, alone, 200))
        fleet.postgres.signal(signal.SIGSTOP)
        show("database_hangs", pairs(fleet, alone, 200))
        fleet.postgres.signal(signal.SIGCONT)
        fleet.postgres.signal(signal.SIGKILL)
        show("database_down", pairs(fleet, alone, 200))
        fleet.postgres.start()
        show("million", million(fleet))
        if missed:
            sys.exit("\n".join(missed))
    finally:
        if hasattr(alone, "daemon"):
            alone.daemon.kill()
        fleet.stop()


def main(program, count, pushes, seconds, make_directory):
    """Prints what each part shows, as JSON."""
    directory = make_directory()
    os.chmod(directory, 0o755)
    try:
        measure(directory, program, count, pushes, seconds)
    finally:
        shutil.rmtree(directory)
