"""Runs a program with the restrictions of systemd units, where no systemd runs: as_unit.py KEEP UNIT [DROP-IN...] -- PROGRAM [ARGUMENT...]

Below /tmp, the program sees only the directory KEEP and its own. Each restriction in the [Service] sections is applied or is an error, so that none
is forgotten here. See systemd.exec(5) for what they mean. The lists of system calls are systemd's own.
"""
import ctypes
import os
import pwd
import resource
import subprocess
import sys

libc = ctypes.CDLL(None, use_errno=True)
seccomp = ctypes.CDLL("libseccomp.so.2")
seccomp.seccomp_init.restype = ctypes.c_void_p
ALLOW, EPERM, EAFNOSUPPORT = 0x7FFF0000, 1, 97
ERRNO = 0x00050000
NOT_EQUAL, EQUAL, MASKED = 1, 4, 7
# What a unit says besides restrictions. The program itself or the caller does it.
OTHER = ["ExecStart", "ExecReload", "KillMode", "Restart", "TimeoutStartSec", "TimeoutStopSec", "Type"]


class Compare(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("how", ctypes.c_int), ("one", ctypes.c_uint64), ("two", ctypes.c_uint64)]


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def read(files):
    """The settings. A later value replaces an earlier one, except that CapabilityBoundingSet adds to it unless it is empty."""
    settings = {}
    for file in files:
        section = ""
        for line in open(file, encoding="utf-8"):
            line = line.strip()
            if line.startswith("["):
                section = line
            elif section == "[Service]" and "=" in line and not line.startswith("#"):
                name, value = line.split("=", 1)
                if name == "CapabilityBoundingSet" and value:
                    value = f"{settings.get(name, '')} {value}"
                settings[name] = value
    return settings


def mount(source, target, kind=None, flags=0):
    encode = lambda text: text.encode() if text else None
    call(libc.mount(encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), None))


BIND, RECURSIVE, REMOUNT, READ_ONLY, PRIVATE = 0x1000, 0x4000, 0x20, 1, 1 << 18


def read_only(path):
    mount(path, path, flags=BIND | RECURSIVE)
    mount(None, path, flags=BIND | REMOUNT | READ_ONLY)


def hide(directory, kept, mode):
    """An empty directory in the place of another one, with some of its files."""
    held = [(path, os.open(path, os.O_PATH)) for path in kept if os.path.exists(path)]
    mount("tmpfs", directory, "tmpfs")
    os.chmod(directory, mode)
    for path, descriptor in held:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.makedirs(path, exist_ok=True)
        else:
            open(path, "w").close()
        mount(f"/proc/self/fd/{descriptor}", path, flags=BIND | RECURSIVE)
        os.close(descriptor)


def system_calls(group):
    listed = subprocess.run(["systemd-analyze", "syscall-filter", group], check=True, capture_output=True, text=True)
    for line in listed.stdout.splitlines()[1:]:
        name = line.strip()
        if name.startswith("@"):
            yield from system_calls(name)
        elif name and not name.startswith("#"):
            yield name


def filtered(default, rules):
    """Loads a filter. A rule is an action, a system call, and conditions on its arguments."""
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(default)))
    for action, name, conditions in rules:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            array = (Compare * len(conditions))(*conditions)
            code = seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(conditions), array)
            assert code == 0, (name, code)
    assert seccomp.seccomp_load(context) == 0


def capability(name):
    names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID".split()
    return names.index(name.removeprefix("CAP_"))


def restrict(kept_directories, settings):
    yes = lambda name: settings.pop(name, "no") == "yes"
    call(libc.unshare(0x00020000 | 0x04000000))  # mounts and host name
    mount(None, "/", flags=RECURSIVE | PRIVATE)
    user = pwd.getpwnam(settings.pop("User"))
    for name in ("Runtime", "State"):
        mode = settings.pop(f"{name}DirectoryMode", "0755")
        if settings.pop(f"{name}Directory", None):
            path = os.environ[f"{name.upper()}_DIRECTORY"]
            os.makedirs(path, exist_ok=True)
            os.chmod(path, int(mode, 8))
            os.chown(path, user.pw_uid, user.pw_gid)
    if settings.pop("ProtectSystem") == "full":
        for path in ("/usr", "/boot", "/etc"):
            read_only(path)
    if yes("PrivateTmp"):
        hide("/tmp", kept_directories, 0o1777)
    if yes("PrivateDevices"):
        hide("/dev", [f"/dev/{name}" for name in "null zero full random urandom tty".split()], 0o755)
    if yes("ProtectKernelTunables"):
        read_only("/proc/sys")
        read_only("/sys")
    # Without capabilities, and with the filters below, the rest follows.
    for name in ("ProtectClock", "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules"):
        assert yes(name), name
    for name, limit in (("LimitCORE", resource.RLIMIT_CORE), ("LimitNOFILE", resource.RLIMIT_NOFILE)):
        if name in settings:
            # This machine may allow less than the unit asks for.
            most = min(int(settings.pop(name)), resource.getrlimit(limit)[1] % (1 << 64))
            resource.setrlimit(limit, (most, most))
    kept = [capability(name) for name in settings.pop("CapabilityBoundingSet").split()]
    rules = list(system_calls(settings.pop("SystemCallFilter")))
    families = [getattr(__import__("socket"), name) for name in settings.pop("RestrictAddressFamilies").split()]
    for number in range(64):
        if number not in kept:
            libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP; unknown ones fail
    os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
    os.setresgid(*3 * (user.pw_gid,))
    os.setresuid(*3 * (user.pw_uid,))
    assert yes("NoNewPrivileges")
    call(libc.prctl(38, 1, 0, 0, 0))
    fail = lambda name, *conditions: (ERRNO | EPERM, name, [Compare(*condition) for condition in conditions])
    if yes("LockPersonality"):
        filtered(ALLOW, [fail("personality", (0, NOT_EQUAL, 0, 0))])
    if yes("RestrictRealtime"):
        filtered(ALLOW, [fail("sched_setscheduler", (1, EQUAL, policy, 0)) for policy in (1, 2)])
    if yes("RestrictNamespaces"):
        spaces = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]
        rules_of = [fail(name, (0, MASKED, space, space)) for name in ("clone", "unshare") for space in spaces]
        filtered(ALLOW, [*rules_of, (ERRNO | 38, "clone3", []), fail("setns")])
    denied = [family for family in range(46) if family not in families]
    filtered(ALLOW, [(ERRNO | EAFNOSUPPORT, "socket", [Compare(0, EQUAL, family, 0)]) for family in denied])
    assert settings.pop("SystemCallArchitectures") == "native" and settings.pop("SystemCallErrorNumber") == "EPERM"
    filtered(ERRNO | EPERM, [(ALLOW, name, []) for name in dict.fromkeys(rules)])


def main():
    at = sys.argv.index("--")
    settings = read(sys.argv[2:at])
    for name in OTHER:
        settings.pop(name, None)
    os.umask(0o022)
    # The program may have been built below /tmp.
    kept = [sys.argv[1]] + [path for path in [os.path.dirname(sys.argv[at + 1])] if path.startswith("/tmp/")]
    restrict(kept, settings)
    assert not settings, f"as_unit.py does not know {settings}"
    os.execv(sys.argv[at + 1], sys.argv[at + 1:])


main()
