"""Where taskctl writes: results to stdout, everything about them to stderr.

A character that the locale cannot say is escaped. Whoever stops reading stdout ends the command, quietly; a
stdout that is closed or full ends it with a sentence. The daemon goes on with what was asked. Where stderr
takes nothing, nothing is said there. Colours only on a terminal, and never where NO_COLOR is set.
"""

from __future__ import annotations

import os
import sys
from typing import Final, TextIO

from taskd.cli.exits import Exit
from taskd.cli.words import printable
from taskd.states import State

COLOURS: Final[dict[str, str]] = {
    State.RUNNING: "34",
    State.UNDOING: "33",
    State.COMMITTED: "34",
    State.COMPLETED: "32",
    State.CANCELLED: "33",
    State.FAILED: "31",
}


def prepare() -> None:
    """Make both streams able to take any text."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Unheard(Exception):
    """Nobody gets what is written to stdout; ``exit`` is what that means, and a person has been told."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(exit)
        self.exit = exit


def out(text: str) -> None:
    """A line (or several) of the result.

    Raises:
        Unheard: nobody reads it, or it cannot be written.
    """
    if sys.stdout is None:  # Python's word for a descriptor that is closed
        raise unwritable("it is closed")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop(sys.stdout)
        raise Unheard(Exit.READER_GONE) from None
    except OSError as error:
        raise unwritable(error.strerror) from None


def unwritable(why: str | None) -> Unheard:
    """Say why stdout takes nothing."""
    _drop(sys.stdout)
    err(f"the output cannot be written: {why}")
    return Unheard(Exit.UNWRITABLE)


def err(text: str) -> None:
    """A sentence to the person; it may quote what somebody else wrote."""
    complain(f"taskctl: {printable(text)}\n")


def complain(text: str) -> None:
    """Text for stderr as it is."""
    if sys.stderr is None:  # `print` would take stdout
        return
    try:
        print(text, end="", file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)


def _drop(stream: TextIO | None) -> None:
    """Nothing is left in the stream that the flush at the end could stumble over."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout is not None and sys.stdout.isatty()


def width() -> int | None:
    """How many characters fit on a line of the terminal; None where there is no terminal."""
    if not terminal():
        return None
    import shutil  # late: it brings three compressors with it

    return shutil.get_terminal_size().columns


def live() -> bool:
    """Whether a display that changes in place can be shown."""
    return terminal() and os.environ.get("TERM", "dumb") != "dumb"


def coloured(state: str, text: str) -> str:
    """``text`` in the colour of a state."""
    if state not in COLOURS or not terminal() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{COLOURS[state]}m{text}\x1b[0m"
