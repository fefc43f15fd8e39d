"""The processes that a task started: which they are, and how they are ended.

A program is started in a session of its own and leads it; what it starts is in there too, unless it leaves
with setsid, as daemons do. The law: no signal is sent by a number alone, and what may be the task's and
lives is not called gone. A session is the task's if its leader has the journaled start time or, where the
leader is gone, if one of the others is in the autogroup that was journaled or carries the task's id in its
environment. It is a stranger's if its leader, or what one of the others has of these, is another; where
there is nothing of the kind, nobody can tell, and that is said. Each signal goes through a pidfd, to a
process that was seen in the session after the pidfd was opened. The kernel gives the number of a session to
no new process as long as one is left in it, so what proves one proves all. A zombie counts as gone.

Linux makes an autogroup on each setsid, under a number that it does not use again until the next boot; what
is forked is in it, and nothing but another setsid leaves it (kernel/sched/autogroup.c). A kernel may be built
without; whether it schedules by them (kernel.sched_autogroup_enabled) does not matter.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from taskd.errors import StillAlive, Unproven

# The variable that every program of a task finds its task's id in.
MARK: Final = "TASKD_TASK"

# Seconds after SIGKILL: whoever still lives then waits in the kernel.
DYING: Final = 30.0

# How often an environment that is empty is looked at before it is believed, and the seconds in between.
LOOKS: Final = 10
PAUSE: Final = 0.01


@attrs.frozen
class Session:
    """A session, named so that it can be found again after a crash, and not mistaken.

    ``pid`` is its leader's and its number; ``start_time`` the leader's, in clock ticks since the boot that
    ``boot_id`` names; ``task`` the id in the environment of its processes; ``autogroup`` the name of theirs,
    empty where the kernel has none.
    """

    pid: int
    start_time: int
    boot_id: str
    task: str
    autogroup: str = ""

    @classmethod
    def of(cls, pid: int, task: str) -> Session:
        """The session that ``pid``, a child that was not waited for, leads."""
        start_time = _start_time(pid)
        assert start_time is not None, "a child that was not waited for stays in /proc"
        return cls(pid, start_time, _boot_id(), task, _autogroup(pid))


async def end(session: Session, grace_s: float = 0.0) -> None:
    """End every process of the session: SIGTERM, SIGKILL after ``grace_s`` seconds; by then they are gone.

    When cancelled, some may be left. No grace, no SIGTERM.

    Raises:
        StillAlive: one of them does not die.
        Unproven: its leader is gone, others live, and nothing tells whose they are. None got a signal.
    """
    if grace_s > 0:
        with trio.move_on_after(grace_s):
            return await _sweep(session, signal.SIGTERM)
    with trio.move_on_after(DYING):
        return await _sweep(session, signal.SIGKILL)
    raise StillAlive(session.pid, DYING)


async def _sweep(session: Session, number: signal.Signals) -> None:
    """Signal every process of the session and wait until none lives; again for those that were forked."""
    while pids := await _living(session):
        for pid in pids:
            with _held(pid, session) as fd:
                if fd is not None:
                    signal.pidfd_send_signal(fd, number)
        for pid in pids:
            with _held(pid, session) as fd:
                if fd is not None:
                    await trio.lowlevel.wait_readable(fd)


async def _living(session: Session) -> list[int]:
    """The pids of the session's living processes; none if it is a stranger's. Raises Unproven."""
    if session.boot_id != _boot_id():
        return []
    pids = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _belongs(pid, session)]
    start_time = _start_time(session.pid)
    if start_time is None:
        ours = await _ours(session, pids)
    else:
        ours = start_time == session.start_time
    # Some may have ended meanwhile, and what has ended tells nothing.
    pids = [pid for pid in pids if ours is not False and _lives(pid, session)]
    if pids and ours is None:
        raise Unproven(
            f"/proc/{pids[0]}", "its session has the number of the task's, and nothing tells whose it is"
        )
    return pids


async def _ours(session: Session, pids: Sequence[int]) -> bool | None:
    """Whether these, left in a session without a leader, are the task's; None if that cannot be told."""
    groups = {_autogroup(pid) for pid in pids} - {""} if session.autogroup else set()
    if session.autogroup in groups:
        return True
    marks = {await _mark(pid) for pid in pids} - {None}
    if session.task in marks:
        return True
    return False if groups or marks else None


@contextmanager
def _held(pid: int, session: Session) -> Iterator[int | None]:
    """A pidfd of a living process of the session; None if ``pid`` is none."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        ended = select.poll()
        ended.register(fd, select.POLLIN)
        yield fd if _belongs(pid, session) and not ended.poll(0) else None
    finally:
        os.close(fd)


def _lives(pid: int, session: Session) -> bool:
    with _held(pid, session) as fd:
        return fd is not None


def _belongs(pid: int, session: Session) -> bool:
    try:
        return os.getsid(pid) == session.pid
    except (ProcessLookupError, PermissionError):
        return False  # gone, or hidden by a security module, as only strangers are


async def _mark(pid: int) -> str | None:
    """The task's id in the environment of a process; None if there is none, or it may not be read."""
    for _ in range(LOOKS):
        if environ := _environ(pid):
            variables = (variable.partition("=") for variable in os.fsdecode(environ).split("\0"))
            return next((value for name, _, value in variables if name == MARK), None)
        # There is none for a moment, in the middle of an exec.
        await trio.sleep(PAUSE)
    return None


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _autogroup(pid: int) -> str:
    """``/autogroup-N``; empty if the kernel has none, or there is no such process any more."""
    try:
        # What follows is its nice value, which may change.
        return Path(f"/proc/{pid}/autogroup").read_text().partition(" ")[0]
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name, in brackets, and may hold spaces and brackets itself.
    return int(stat.rpartition(b")")[2].split()[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
