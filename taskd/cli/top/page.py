"""A page instead of the tasks: everything about one of them with the end of its log, or help; sans-IO."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from taskd.cli import show, words
from taskd.client import Record

# Lines of a log that are kept to be scrolled through.
KEPT: Final = 1000

# Of a page, the part that facts may take before the log does.
FACTS: Final = 0.7

COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

HELP: Final = """\
up down j k        the task above or below       enter   everything about a task
PgUp PgDn space    a screenful                   c       cancel it; asks first
Home End g G       the first, the last           q       quit

s >   sort by the next: state, progress, rate, left, age, label, owner, operation
<     sort by the one before
r     the other way round
f /   show only what has these words: a word such as running or failed means
      that state, others are looked for in id, label, operation, owner, status
esc   show all again
a     also what ended more than a minute ago, the newest 1000; again: no more

+ in the second line counts what has ended since top began.""".splitlines()


@attrs.define(eq=False)
class Page:
    """Of the task ``id``, or help where there is none."""

    id: str | None
    log: deque[str] = attrs.field(factory=lambda: deque(maxlen=KEPT), init=False)
    _up: int = 0
    _room: int = 1
    _facts: Sequence[str] = ("",)

    def scroll(self, step: int) -> None:
        """Through the log, from its end; or through what does not fit of help."""
        most = max(0, (len(HELP) if self.id is None else len(self.log)) - self._room)
        self._up = min(max(0, self._up - step if self.id is not None else self._up + step), most)

    def say(self, lines: Sequence[str]) -> None:
        """More of the log; who reads further up stays there."""
        self.log.extend(words.logged(line).expandtabs(4) for line in lines)
        if self._up:
            self._up = min(self._up + len(lines), KEPT)

    def lines(self, known: Mapping[str, Record], height: int) -> list[str]:
        """Exactly ``height`` lines."""
        if self.id is None:
            self._room = height
            lines = HELP[self._up : self._up + height]
        else:
            record = known.get(self.id)
            if record is not None:
                self._facts = [COLOUR.sub("", line) for line in show.lines(record)]
            most = height if not self.log else max(0, min(len(self._facts), int(height * FACTS)))
            self._room = max(0, height - most - 1)
            end = max(len(self.log) - self._up, min(self._room, len(self.log)))
            log = [*self.log][max(0, end - self._room) : end] if self._room else []
            lines = [*self._facts[:most], *(["─── log " + "─" * 24] if self.log else []), *log][:height]
        return [*lines, *[""] * (height - len(lines))]
