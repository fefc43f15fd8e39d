"""A gate on every system call by which a daemon changes the world: each is counted, over all of its threads and
all that it starts, and is let through, or refused with an error, or is the daemon's last.

The kernel asks us (seccomp_unotify(2)): the caller waits in the call, and nothing of it has happened, until we
have answered. That is "kill it at the N-th call" to the letter. ``strace -e inject=…:when=N`` counts in each
thread apart, so that of two threads only the N-th call of the one that gets there first is ever met; and it
doubles the time of all the others.

Daemons are forked from a process that has imported them (``gated``): to start Python takes longer than all that
a scenario does.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import json
import os
import platform
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import pytest

from taskd import client
from taskd.errors import NoDaemon
from tests.process import PATIENCE
from tests.proof import gated
from tests.proof.scenarios import Place, plugins

# struct seccomp_notif: id, pid, flags, then number, architecture, instruction, six arguments of the call.
NOTICE: Final = struct.Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: id, value, negative errno, flags.
ANSWER: Final = struct.Struct("=QqiI")
RECEIVE, SEND, GO_ON = 0xC0502100, 0xC0182101, 1

# Which argument is the path or the descriptor that a call is about; of most it is the first, of some none.
_PATHS: Final = {"openat": 1, "unlinkat": 1, "renameat": 1, "renameat2": 1, "linkat": 1, "mkdirat": 1,
                 "fchmodat": 1, "fchownat": 1, "symlinkat": 2, "open": 0, "unlink": 0, "rename": 0, "link": 0,
                 "mkdir": 0, "rmdir": 0, "chmod": 0, "execve": 0, "truncate": 0, "symlink": 1}  # fmt: skip
_FILES: Final = {"copy_file_range": 2, "splice": 2}
_ABOUT_NO_FILE: Final = frozenset({"clone", "clone3", "fork", "vfork", "kill", *gated.DESCRIPTORS})


needs_gate = pytest.mark.skipif(platform.machine() != gated.MACHINE, reason=f"knows the calls of {gated.MACHINE}")


@attrs.frozen
class Call:
    """A system call that somebody waits in: the how-manieth, its name, what it is about, and whether it is the
    daemon's own or of something that it started.
    """

    n: int
    name: str
    file: str
    own: bool

    def __str__(self) -> str:
        return f"{self.n}. {self.name} {self.file}".rstrip()


class Kill:
    """The fate of a call that is the daemon's last."""


# What becomes of a call: it goes on, is refused with that errno, or the daemon dies in it.
Fate = Callable[[Call], int | Kill | None]


# Whether a call is one of those that the proof is about.
Counted = Callable[[Call], bool]


def passing(call: Call) -> None:
    """Every call goes on."""


def every(call: Call) -> bool:
    """Each call counts."""
    return True


def kill_at(n: int) -> Fate:
    """The n-th is the last."""
    return lambda call: Kill() if call.n == n else None


def fail_at(n: int, number: int) -> Fate:
    """The n-th is refused with that errno."""
    return lambda call: number if call.n == n else None


def fail_from(n: int, number: int) -> Fate:
    """The n-th is refused with that errno, and so are all that do the same to the same file."""
    broken: list[tuple[str, str]] = []

    def fate(call: Call) -> int | None:
        if call.n == n:
            broken.append((call.name, call.file))
        return number if (call.name, call.file) in broken else None

    return fate


@attrs.define(eq=False)
class Gated:
    """A daemon behind a gate, on a place; its socket and its log are in ``folder``.

    With ``opens``, calls that only make a descriptor are among those that pass the gate.
    ``calls`` are those that were counted: made after ``arm``, and let through by ``counted``. ``killed`` tells
    that one of them was its last, ``met`` are those that did not simply go on.
    """

    folder: Path
    place: Place
    fate: Fate = passing
    counted: Counted = every
    opens: bool = False
    armed: bool = False
    calls: list[Call] = attrs.field(factory=list)
    pid: int = 0
    gone: threading.Event = attrs.field(factory=threading.Event)
    _pidfd: int = -1
    _listener: int = -1
    killed: bool = False
    met: list[Call] = attrs.field(factory=list)

    @property
    def socket(self) -> str:
        return str(self.folder / "s")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """It runs; whether it listens already, ``connect`` will tell."""
        argv = ["--socket", self.socket, "--state", str(self.place.state)]
        self.pid, self._listener = _fork(argv, self.folder / "log", opens=self.opens)
        self._pidfd = os.pidfd_open(self.pid)
        threading.Thread(target=self._watch, daemon=True).start()

    def arm(self) -> None:
        """Count from here on."""
        self.armed = True

    def disarm(self) -> None:
        """From here on, all goes on."""
        self.armed = False

    @property
    def dead(self) -> bool:
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def ends(self) -> bool:
        """Whether it ends by itself, which may take a moment."""
        return bool(select.select([self._pidfd], [], [], PATIENCE)[0])

    def connect(self) -> client.Daemon:
        """As soon as it listens.

        Raises:
            NoDaemon: it is dead.
        """
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return client.connect(self.socket, timeout_s=PATIENCE)
            except NoDaemon:
                if self.dead:
                    raise
                assert time.monotonic() < until, self.log
                time.sleep(0.002)

    def end(self) -> None:
        """Kill it, if it lives; returns when it is dead."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        select.select([self._pidfd], [], [], PATIENCE)

    def survivors(self) -> bool:
        """Whether something that it had started is still alive: who is behind the gate holds it open."""
        return not self.gone.wait(PATIENCE)

    def close(self) -> None:
        """End it, and let go of it."""
        self.end()
        os.close(self._pidfd)

    # The gate; in a thread of its own.

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while poll.poll()[0][1] & select.POLLIN:
            notice = bytearray(NOTICE.size)
            with suppress(FileNotFoundError):  # whoever asked is dead
                fcntl.ioctl(self._listener, RECEIVE, notice)
                self._answer(*NOTICE.unpack(notice))
        os.close(self._listener)
        self.gone.set()

    def _answer(self, id: int, tid: int, _flags: int, number: int, _arch: int, _at: int, *arguments: int) -> None:
        fate: int | Kill | None = None
        own = os.path.exists(f"/proc/{self.pid}/task/{tid}")
        if self.armed and not self.killed:
            name = gated.NAMES[number]
            call = Call(len(self.calls) + 1, name, self._about(name, tid, arguments), own)
            if self.counted(call):
                self.calls.append(call)
                fate = self.fate(call)
                self.met += [call] if fate is not None else []
        if isinstance(fate, Kill):
            self.killed = True
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if self.killed and own:
            return  # an answer could still let it through
        refused = fate if isinstance(fate, int) else 0
        fcntl.ioctl(self._listener, SEND, ANSWER.pack(id, 0, -refused, 0 if refused else GO_ON))

    def _about(self, name: str, tid: int, arguments: Sequence[int]) -> str:
        if name in _ABOUT_NO_FILE:
            return ""
        try:
            if name in _PATHS:
                about = _text(tid, arguments[_PATHS[name]])
            else:
                about = os.readlink(f"/proc/{tid}/fd/{arguments[_FILES.get(name, 0)]}")
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        about = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", about.replace(str(self.folder), "").lstrip("/"))
        return re.sub(r":\[\d+\]", "", about)


def _text(tid: int, address: int) -> str:
    """A C string in the memory of another process."""
    with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        # A page's end may be the end of what can be read.
        text = memory.read(4096 - address % 4096)
        return os.fsdecode((text if b"\0" in text else text + memory.read(4096)).partition(b"\0")[0])


@cache
def _nursery() -> socket.socket:
    """To the process that daemons are forked from, which lives as long as this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder = tempfile.TemporaryDirectory(prefix="taskd-proof-")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKD_")}
    environment["PYTHONPATH"] = os.pathsep.join((os.getcwd(), plugins(Path(folder.name))))
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.proof.gated", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(PATIENCE)
        folder.cleanup()

    atexit.register(end)
    return ours


def _fork(argv: Sequence[str], log: Path, *, opens: bool) -> tuple[int, int]:
    """A daemon: its pid, and the descriptor of its filter."""
    with log.open("ab") as errors:
        message = json.dumps({"argv": [*argv], "opens": opens}).encode()
        socket.send_fds(_nursery(), [message], [errors.fileno()])
    pid, files, _, _ = socket.recv_fds(_nursery(), 100, 1)
    return int(pid), files[0]
