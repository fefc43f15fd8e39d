"""A terminal that top has for itself: frames go in, the bytes of what differs come out; and how it is given back.

A cell that stays as it was is not written again, so a screen where little happens costs little over a slow line,
and nothing flickers. Lines never wrap.
"""

from __future__ import annotations

import os
import select
import sys
import termios
from contextlib import AbstractContextManager
from typing import Any, Final

import attrs

from taskd.cli.top.cells import Line

# The other screen, no cursor, no wrapping; and back.
ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE: Final = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
CLEAR: Final = "\x1b[0m\x1b[2J"

# Seconds after which a terminal that takes no bytes is left as it is.
STALLED: Final = 1.0

# What a terminal of another encoding shows instead.
ASCII: Final = str.maketrans("━╸─…▏↑↓", "##-~_^v")


@attrs.define(eq=False)
class Screen:
    """What a terminal shows. ``encoding`` is the locale's."""

    encoding: str = "utf-8"
    _shown: list[Line] = attrs.field(factory=list, init=False)

    def forget(self) -> None:
        """Something else may have been written there: the next frame is written whole."""
        self._shown = []

    def draw(self, frame: list[Line]) -> bytes:
        """What to write so that the terminal shows ``frame``."""
        said = []
        if len(frame) != len(self._shown):
            said.append(CLEAR)
            self._shown = [()] * len(frame)
        for number, (line, before) in enumerate(zip(frame, self._shown, strict=True), 1):
            if line is before or line == before:
                continue
            same = [cell[0] for cell in line] == [cell[0] for cell in before]
            for place, (x, text, style) in enumerate(line):
                if not same or line[place] != before[place]:
                    # The last cell may be wider for the terminal than for us: what it wrote there before goes.
                    end = "\x1b[K" if place == len(line) - 1 else ""
                    said.append(f"\x1b[{number};{x + 1}H{end}")
                    said.append(f"\x1b[{style}m{text}\x1b[0m" if style else text)
        self._shown = frame
        return self.encoded("".join(said))

    def encoded(self, text: str) -> bytes:
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.translate(ASCII).encode(self.encoding, "replace")


def size() -> tuple[int, int]:
    """Columns and lines of the terminal that stdout is; of one that does not know, the usual ones."""
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    return columns or 80, lines or 24


@attrs.define(eq=False)
class Terminal(AbstractContextManager["Terminal"]):
    """Stdin and stdout, ours in here and as they were before afterwards, whatever happens.

    Keys come one by one and are not shown; Ctrl-C and Ctrl-Z are still signals, and Ctrl-S stops nothing.
    """

    _before: list[Any] = attrs.field(factory=list, init=False)

    def __enter__(self) -> Terminal:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def take(self) -> None:
        """
        Raises:
            OSError: the terminal is gone.
        """
        keyboard = sys.stdin.fileno()
        self._before = termios.tcgetattr(keyboard)
        ours = [*self._before]
        ours[0] &= ~termios.IXON
        ours[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(keyboard, termios.TCSANOW, ours)
        write(ENTER.encode())

    def give_back(self) -> None:
        """A terminal that takes no bytes any more is not waited for long."""
        keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
        try:
            if select.select([], [screen], [], STALLED)[1]:
                write(LEAVE.encode())
            # What was typed and not read is not for the shell.
            termios.tcflush(keyboard, termios.TCIFLUSH)
            termios.tcsetattr(keyboard, termios.TCSANOW, self._before)
        except (OSError, termios.error):
            pass  # it is gone; whatever ended us is told instead


def write(data: bytes) -> None:
    """All of it to the terminal, as long as it takes."""
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]
