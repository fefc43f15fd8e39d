"""``command``: a program run as a task, without a shell.

The law:

- Its pid and start time are journaled before it can act: it waits for a go-ahead.
- When the task ends, however it ends, all of its session is dead before anything is committed or undone.
- Exit status 0 is the commit. Anything else, a cancel or a crash is undone by ``undo_argv``, which is
  journaled first of all: it must be idempotent, and harmless where the program never came to act.

Cancel and the stop of the daemon are one road: SIGTERM, SIGKILL after ``grace_s``. When the daemon crashes,
the kernel kills the program (not one that changes its user: that loses PDEATHSIG), and recovery kills, at
once, what is left of its session. Whoever wants to leave something running starts it in another session.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import attrs
import trio

from taskd.errors import BadParams, CommandFailed, FolderMissing, PermissionDenied
from taskd.model import JSON
from taskd.operations import Handle, Operation, in_thread
from taskd.operations.program import PATH, Program, find, perform
from taskd.operations.session import MARK, Session, end
from taskd.runner.rights import current

logger = logging.getLogger("taskd.command")

# Seconds. A daemon that stops waits for the grace, so there is an end to it.
LONGEST_GRACE: Final = 3600.0

# Seconds that ``undo_argv`` has: recovery lets no new work start before it is through.
UNDO_TIMEOUT: Final = 300.0

# How many lines on descriptor 3 that are no progress get into the log, and how much of each.
STRANGE_LINES: Final = 10
STRANGE_LENGTH: Final = 200

# How many of the last lines of an ``undo_argv`` that failed get into the daemon's log.
LAST_LINES: Final = 20


@attrs.frozen
class CommandParams:
    """Params of ``command``."""

    argv: tuple[str, ...] = attrs.field(
        metadata={"doc": f"the program, an absolute path or a name to be found in {PATH}, and its arguments"}
    )
    env: Mapping[str, str] = attrs.field(
        factory=dict,
        metadata={"doc": f"goes over PATH and LANG=C.UTF-8; {MARK} is the task's id whatever is said here"},
    )
    cwd: str | None = attrs.field(default=None, metadata={"doc": "absolute path of its folder; null: /"})
    stdin: str | None = attrs.field(default=None, metadata={"doc": "its standard input; null: empty"})
    undo_argv: tuple[str, ...] | None = attrs.field(
        default=None,
        metadata={
            "doc": "run where the task does not complete, in the same folder and environment and with"
            f" TASKD_UNDO=1, for at most {UNDO_TIMEOUT:g} seconds. It must be idempotent: it may run twice,"
            " and where argv never came to act"
        },
    )
    grace_s: float = attrs.field(
        default=10.0, metadata={"doc": f"seconds from SIGTERM to SIGKILL, at most {LONGEST_GRACE:g}"}
    )


def check(params: CommandParams) -> None:
    """Refuse what cannot be run. Blocks on the filesystem.

    Raises:
        BadParams, FolderMissing, CommandNotFound.
    """
    _check_argv(params.argv, "params.argv")
    if params.undo_argv is not None:
        _check_argv(params.undo_argv, "params.undo_argv")
    for name, value in params.env.items():
        if not name or "=" in name or "\0" in name:
            raise BadParams(f"params.env[{name!r}]", "a name must not be empty nor hold '=' or NUL")
        if "\0" in value:
            raise BadParams(f"params.env[{name!r}]", "must not hold NUL")
    if params.cwd is not None:
        if not params.cwd.startswith("/") or "\0" in params.cwd:
            raise BadParams("params.cwd", "must be an absolute path without NUL")
        if not os.path.isdir(params.cwd):
            raise FolderMissing(params.cwd)
    if not 0 <= params.grace_s <= LONGEST_GRACE:
        raise BadParams("params.grace_s", f"must be 0 to {LONGEST_GRACE:g} seconds")


def _check_argv(argv: Sequence[str], path: str) -> None:
    if not argv:
        raise BadParams(path, "must name a program")
    for i, argument in enumerate(argv):
        if "\0" in argument:
            raise BadParams(f"{path}[{i}]", "must not hold NUL")
    if not argv[0] or ("/" in argv[0] and not argv[0].startswith("/")):
        raise BadParams(f"{path}[0]", "must be an absolute path or the name of a program")
    find(argv[0])


async def run(params: CommandParams, handle: Handle) -> JSON:
    """Run ``argv`` to its end. A cancel passes when its session is dead, ``grace_s`` later at most.

    Raises:
        PermissionDenied: the task has not the daemon's own rights, which a program is run with.
    """
    if current() is not None:
        raise PermissionDenied("run a program: it would have the daemon's rights")
    await in_thread(check, params, abandon_on_cancel=True)
    if params.undo_argv is not None:
        await handle.journal(
            "run_undo",
            argv=list(params.undo_argv),
            env=dict(params.env),
            cwd=params.cwd,
            task=handle.id,
            timeout_s=UNDO_TIMEOUT,
        )

    async def ready(session: Session) -> None:
        await handle.journal("kill", **attrs.asdict(session))

    await perform(
        Program(params.argv, _environment(params.env, handle.id), params.cwd or "/", params.stdin or ""),
        handle.id,
        ready=ready,
        said=handle.log,
        marked=partial(_show, handle, []),
        grace_s=params.grace_s,
    )
    return {"exit_status": 0}


def _environment(env: Mapping[str, str], task: str) -> dict[str, str]:
    return {"PATH": PATH, "LANG": "C.UTF-8", **env, MARK: task}


async def _show(handle: Handle, strange: list[str], *lines: str) -> None:
    """Descriptor 3: the newest ``progress 0.42`` is shown; other lines get into the log, the first few."""
    fraction, before = None, len(strange)
    for line in lines:
        word, _, number = line.partition(" ")
        value = _fraction(number) if word == "progress" else None
        if value is not None:
            fraction = value
        elif len(strange) < STRANGE_LINES:
            strange.append(f"not understood on descriptor 3: {line[:STRANGE_LENGTH]}")
    if fraction is not None:
        handle.fraction(fraction)
    if strange[before:]:
        await handle.log(*strange[before:])


def _fraction(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


async def _kill(pid: int, start_time: int, boot_id: str, task: str, autogroup: str = "") -> None:
    """Kill what is left of a task's session. After a crash nobody is polite: the program is dead already.

    ``autogroup`` is missing in what was journaled before there was one.

    Raises:
        StillAlive, Unproven: see ``end``. Nothing is undone beside what may be left.
    """
    await end(Session(pid, start_time, boot_id, task, autogroup))


async def _run_undo(
    argv: Sequence[str], env: Mapping[str, str], cwd: str | None, task: str, timeout_s: float
) -> None:
    """Run ``undo_argv`` to its end; a crash in its middle, or a failure, runs it again.

    When cancelled (the daemon stops) its session is killed. When the daemon crashes, the kernel kills it; what
    it had started itself by then is not looked for.

    Raises:
        CommandFailed: it did not end with status 0, or not within ``timeout_s`` seconds.
        CommandNotFound, FolderMissing, OsRefusal, StillAlive: see ``perform``.
    """
    program = Program(tuple(argv), {**_environment(env, task), "TASKD_UNDO": "1"}, cwd or "/")
    last: deque[str] = deque(maxlen=LAST_LINES)

    async def ready(_: Session) -> None:
        """It is not journaled: a verb that is cut short is run again."""

    async def keep(*lines: str) -> None:
        last.extend(lines)

    async def drop(*_: str) -> None:
        """An undo shows no progress."""

    try:
        with trio.move_on_after(timeout_s):
            return await perform(program, task, ready=ready, said=keep, marked=drop, grace_s=0.0)
    except CommandFailed:
        logger.warning("undo_argv said at last: %s", list(last))
        raise
    raise CommandFailed(argv[0], f"SIGKILL, because it was not done within {timeout_s:g} seconds")


OPERATION = Operation(
    name="command",
    summary="Run a program, and another one to undo what it did",
    params=CommandParams,
    run=run,
    verbs={"kill": _kill, "run_undo": _run_undo},
    check=check,
    urgent=frozenset({"kill"}),
    label=lambda params: os.path.basename(params.argv[0]),
)
