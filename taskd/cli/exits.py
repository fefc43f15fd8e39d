"""How taskctl ends: the one table of exit codes, and the errors that become one.

A script asks the code, a person reads the sentence; there is never a traceback for what is not our fault.
``--help`` prints the table. Where several tasks are asked about, the worst of their codes counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, unique
from typing import TYPE_CHECKING, Final

from taskd.states import State

if TYPE_CHECKING:
    from taskd.client import Record
    from taskd.errors import TaskdError


@unique
class Exit(IntEnum):
    """From good to bad."""

    DONE = 0
    CANCELLED = 3
    FAILED = 1
    REFUSED = 4
    NO_DAEMON = 5
    USAGE = 2
    UNWRITABLE = 6
    NOT_INSTALLED = 7
    UNHEALTHY = 8
    READER_GONE = 141
    LEFT = 130
    TERMINATED = 143


MEANING: Final[dict[Exit, str]] = {
    Exit.DONE: "done: what was asked happened; of a task that was waited for: it completed",
    Exit.FAILED: "the task failed, or left residue that is still there",
    Exit.USAGE: "the command line is wrong; nothing was started or changed",
    Exit.CANCELLED: "the task was cancelled",
    Exit.REFUSED: "the daemon refused the call",
    Exit.NO_DAEMON: "no daemon answers",
    Exit.UNWRITABLE: "the output could not be written; what was asked of the daemon goes on",
    Exit.NOT_INSTALLED: "install-units: a file could not be written or removed, or systemd refused",
    Exit.UNHEALTHY: "doctor: it found a problem",
    Exit.LEFT: "left by Ctrl-C, or by a no; what was asked of the daemon goes on",
    Exit.READER_GONE: "whoever read the output has gone; what was asked of the daemon goes on",
    Exit.TERMINATED: "ended by SIGTERM; what was asked of the daemon goes on",
}


OF_STATE: Final[dict[str, Exit]] = {State.COMPLETED: Exit.DONE, State.CANCELLED: Exit.CANCELLED}


def worst(exits: Iterable[Exit]) -> Exit:
    """The worst of them, by their order in ``Exit``."""
    order = list(Exit)
    return max(exits, key=order.index, default=Exit.DONE)


def of(record: Record) -> Exit:
    """What the end of a task is to a script."""
    return OF_STATE.get(record.state, Exit.FAILED)


def of_error(error: TaskdError) -> Exit:
    """What an error is to a script."""
    from taskd.errors import BadParams, NoDaemon

    match error:
        case NoDaemon():
            return Exit.NO_DAEMON
        case BadParams():  # ours; the daemon's own come as Refused
            return Exit.USAGE
        case _:
            return Exit.REFUSED


def table() -> str:
    """The table for ``--help``."""
    return "\n".join(f"{exit.value:4}  {meaning}" for exit, meaning in MEANING.items())
