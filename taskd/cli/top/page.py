"""A page instead of the tasks: everything about one of them with the end of its log, or help; sans-IO."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import attrs
from rich.cells import cell_len, chop_cells

from taskd.cli import show, words
from taskd.client import Record

# Lines of a log that are kept to be scrolled through.
KEPT: Final = 1000

# Of a page, the part that facts may take before the log does.
FACTS: Final = 0.7

COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

HELP: Final = """\
up down j k       the task above, below       enter   everything about a task
PgUp PgDn space   a screenful                 c       cancel it; asks first
Home End g G      the first, the last         q       quit

s >   sort by the next: state, progress, rate, left, age, label, owner,
      operation
<     sort by the one before
r     the other way round
f /   only what has these words: running, failed and so on mean that state,
      others are looked for in id, label, operation, owner and status
esc   show all again
h ?   this page
a     also what ended more than a minute ago, the newest 1000; or not

+ in the second line counts what has ended since top began.""".splitlines()


@attrs.define(eq=False)
class Page:
    """Of the task ``id``, or help where there is none."""

    id: str | None
    log: deque[str] = attrs.field(factory=lambda: deque(maxlen=KEPT), init=False)
    # How far one has scrolled, down from the start of help or up from the end of the log, and how far one can.
    _scrolled: int = 0
    _most: int = 0
    _facts: Sequence[str] = ()

    def scroll(self, step: int) -> None:
        """So many lines down, or up where it is less than 0."""
        self._scrolled = min(max(0, self._scrolled + (step if self.id is None else -step)), self._most)

    def say(self, lines: Sequence[str]) -> None:
        """More of the log; who reads further up stays there."""
        self.log.extend(words.logged(line).expandtabs(4) for line in lines)
        if self._scrolled:
            self._scrolled += len(lines)

    def lines(self, known: Mapping[str, Record], width: int, height: int) -> list[str]:
        """Exactly ``height`` lines of at most ``width`` cells; longer ones are broken."""
        if self.id is None:
            lines = _broken(HELP, width)
            self._most = max(0, len(lines) - height)
            lines = lines[min(self._scrolled, self._most) :]
        else:
            lines = self._task(known.get(self.id), width, height)
        return [*lines, *[""] * height][:height]

    def _task(self, record: Record | None, width: int, height: int) -> list[str]:
        if record is not None:
            self._facts = [COLOUR.sub("", line) for line in show.lines(record)]
        facts = _broken(self._facts, width)
        if not self.log:
            return facts
        facts = facts[: int(height * FACTS)]
        log, room = _broken(self.log, width), max(0, height - len(facts) - 1)
        self._most = max(0, len(log) - room)
        end = len(log) - min(self._scrolled, self._most)
        return [*facts, "─── log " + "─" * 20, *log[max(0, end - room) : end]]


def _broken(lines: Iterable[str], width: int) -> list[str]:
    return [piece for line in lines for piece in _pieces(line, max(2, width))]


@lru_cache(maxsize=2 * KEPT)
def _pieces(line: str, width: int) -> Sequence[str]:
    return [line] if cell_len(line) <= width else chop_cells(line, width)
