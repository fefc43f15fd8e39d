"""A machine with a real systemd, booted from this one's own files: systemd-nspawn on an overlay of ``/``.

What it writes goes to memory and is lost with it. It is in a namespace of processes of its own, which the kernel
ends with the first of them, and that one with this process; everything is mounted in one that ends with the last
process in it. It has nobody else's network, and no service but what basic.target has.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs

from tests.notified import Notified

REPOSITORY = Path(__file__).parent.parent

TOOLS = {"systemd-nspawn": "systemd-container", "unshare": "util-linux", "nsenter": "util-linux"}

# Seconds that it may take to boot, and that any one command in it may take, on a busy machine.
BOOT = 180
COMMAND = 180

# $1: the cgroups; $2: the folder; $3: what else to mount there; then nspawn's options.
START = """
set -eu
# What other tests have mounted is theirs to unmount, and must not live on here.
while read -r _ target _; do
    case $target in */taskd-*|*/pytest-of-*) umount --lazy "$target" || true ;; esac
done </proc/self/mounts
for cgroup in $1; do mkdir "$cgroup"; echo $$ >"$cgroup/cgroup.procs"; done
mount -t tmpfs -o mode=0755 tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mkdir -p etc/tmpfiles.d
# Or all in /tmp would be removed at the boot, and the checkout may be there.
: >etc/tmpfiles.d/tmp.conf
eval "$3"
shift 3
exec systemd-nspawn --quiet --directory=. --register=no --keep-unit --link-journal=no --private-network "$@"
"""


class CannotBoot(Exception):
    """This machine has not what it takes; the text says what."""


@attrs.frozen(eq=False)
class Machine:
    """``leader`` is its pid 1, as this machine counts."""

    leader: int

    def path(self, path: str) -> Path:
        """Its ``path``, from here."""
        return Path(f"/proc/{self.leader}/root{path}")

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in it, as root."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.leader), "--all", "--wd=/", *argv],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{argv}: {done.stdout}{done.stderr}"
        return done

    def out(self, *argv: str) -> str:
        return self.run(*argv).stdout.strip()


@contextmanager
def booted(folder: Path, setup: str = "") -> Iterator[Machine]:
    """It runs until the context ends. ``setup`` is shell, run in its root before it boots, to mount there.

    Raises:
        CannotBoot: not here.
    """
    missing = [f"{tool} ({package})" for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        raise CannotBoot(f"not here: {missing}" if missing else "it needs root")
    (folder / "trial").mkdir()
    (folder / "boot").mkdir()
    with _started(folder / "trial", "", "--pipe", "true") as (trial, said):
        if trial.wait(BOOT) != 0:
            raise CannotBoot(f"systemd-nspawn does not run here: {said[-500:].decode(errors='replace')}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(folder / "notify"))
        sock.settimeout(BOOT)
        options = ["--boot", "--notify-ready=yes", "--", "--unit=basic.target"]
        with _started(folder / "boot", setup, *options, NOTIFY_SOCKET=str(folder / "notify")) as (_, console):
            try:
                Notified(sock).until("READY=1")
            except TimeoutError:
                raise AssertionError(f"it does not boot: {console.decode(errors='replace')}") from None
            with _heard(sock):
                yield Machine(_leader())


@contextmanager
def _heard(sock: socket.socket) -> Iterator[None]:
    """What it tells on is read: its pid 1 waits where there is no room for what it says, and does nothing else. It
    says more where its jobs take long.
    """

    def listen() -> None:
        while sock.recv(4096):
            pass

    sock.settimeout(None)
    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield
    finally:
        sock.shutdown(socket.SHUT_RD)
        listener.join()


def _leader() -> int:
    """The pid 1 of the machine that runs, where systemd puts itself."""
    scopes = (Path(cgroup) / "payload/init.scope/cgroup.procs" for cgroup in _cgroups())
    (pid,) = next(scope for scope in scopes if scope.exists()).read_text().split()
    return int(pid)


@contextmanager
def _started(
    folder: Path, setup: str, *options: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], bytearray]]:
    """nspawn, and what it says; at the end every process of it is killed, by its pid."""
    cgroups, said = _cgroups(), bytearray()
    with ExitStack() as stack:
        master, slave = pty.openpty()
        stack.callback(os.close, master)
        stack.callback(_cleared, cgroups)
        dying_with_us = ("setpriv", "--pdeathsig", "KILL")
        apart = (
            *dying_with_us,
            "unshare",
            "--mount",
            "--propagation=private",
            "--pid",
            "--mount-proc",
            "--kill-child",
        )
        start = ["sh", "-c", START, "sh", " ".join(cgroups), str(folder), setup]
        process = subprocess.Popen(
            [*apart, "--", *start, f"--machine=taskd-{os.getpid()}", *_binds(), *options],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            # Its /tmp is this one's.
            env=os.environ | {"SYSTEMD_NSPAWN_TMPFS_TMP": "0"} | environment,
            start_new_session=True,
        )
        os.close(slave)
        reader = threading.Thread(target=_read, args=(master, said))
        reader.start()
        stack.callback(reader.join)
        stack.callback(process.wait)
        stack.callback(_killed, cgroups)
        stack.callback(process.kill)
        yield process, said


def _read(console: int, said: bytearray) -> None:
    with suppress(OSError):  # its end is EIO
        while data := os.read(console, 65536):
            said += data


def _binds() -> Iterator[str]:
    """What the daemon is read from, where it is not on the filesystem of ``/``, of which the overlay is."""
    root = os.stat("/").st_dev
    for path in {str(REPOSITORY), sys.prefix, sys.base_prefix}:
        if os.stat(path).st_dev != root:
            yield f"--bind-ro={path}"


def _cgroups() -> list[str]:
    """Where the processes of the machine are kept apart."""
    return [f"{own}/taskd-test-{os.getpid()}" for own in _own_cgroups()]


def _own_cgroups() -> Iterator[str]:
    """This process's own, of those by which systemd goes: in the unified hierarchy, and in that named for it."""
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, name, path = line.split(":", 2)
        kind, option = ("cgroup2", "") if name == "" else ("cgroup", name)
        for before, after in mounts:
            if name in ("", "name=systemd") and after.split()[0] == kind and option in after.split()[2]:
                yield before.split()[4] + path.rstrip("/")


def _killed(cgroups: Sequence[str]) -> None:
    """SIGKILL to all processes in there, again until there is none."""
    for _ in range(1000):
        files = [file for each in cgroups for file in Path(each).rglob("cgroup.procs")]
        pids = {int(pid) for file in files for pid in file.read_text().split()}
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    _gone(fd)
                finally:
                    os.close(fd)
    raise AssertionError(f"still alive: {pids}")


def _gone(fd: int) -> None:
    """Wait until the process of this pidfd is dead, 10 seconds at most."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(10_000)


def _cleared(cgroups: Sequence[str]) -> None:
    for cgroup in cgroups:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            os.rmdir(folder)
