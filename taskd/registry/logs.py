"""The newest log lines of all tasks, in memory, so that those who follow a log need not ask the store for each.

The law: what is here is durable, and of each task it is the end of its log, without a gap but where the store
lost lines. All together hold at most ``limit`` characters; beyond that those of the task that was silent longest
are let go, and whoever wants them reads them from the store.

A line belongs to the change of its task that it is shown with. So whoever has seen all tasks at some revision,
and the lines up to that one, has a whole picture of that moment, and can go on from there.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

import attrs

from taskd.model import LogLine

# Characters of all the lines that are kept.
LIMIT = 8 * 1024 * 1024

# What a line costs beside its characters: an empty one must count for something too.
OVERHEAD = 200


@attrs.frozen
class Kept:
    """A line, and the ``revision`` of the change that it belongs to."""

    revision: int
    line: LogLine


@attrs.define(eq=False)
class Logs:
    """See the module."""

    limit: int = LIMIT
    _size: int = 0
    _lines: OrderedDict[str, deque[Kept]] = attrs.field(factory=OrderedDict)

    def append(self, id: str, lines: Sequence[LogLine], revision: int) -> None:
        """The next lines of a task's log, at least one, which are durable and will be shown with ``revision``."""
        kept = self._lines.setdefault(id, deque())
        self._lines.move_to_end(id)
        kept.extend(Kept(revision, line) for line in lines)
        self._size += sum(map(_cost, lines))
        while self._size > self.limit:
            oldest, lines_of = next(iter(self._lines.items()))
            self._size -= _cost(lines_of.popleft().line)
            if not lines_of:
                del self._lines[oldest]

    def after(self, id: str, start: int, revision: int | None = None) -> Sequence[LogLine] | None:
        """All lines from number ``start`` on, that belong to changes up to ``revision``; None where only the
        store can tell.
        """
        kept = self._lines.get(id)
        if kept is None or kept[0].line.n > start:
            return None
        found: list[LogLine] = []
        for each in reversed(kept):
            if each.line.n < start:
                break
            if revision is None or each.revision <= revision:
                found.append(each.line)
        return found[::-1]

    def first_after(self, id: str, revision: int) -> int | None:
        """The number of the first line that belongs to a change after ``revision``, which may be still to come;
        None where no line is here that could tell.
        """
        kept = self._lines.get(id)
        if kept is None:
            return None
        first = kept[-1].line.n + 1
        for each in reversed(kept):
            if each.revision <= revision:
                return first
            first = each.line.n
        return first if first == 0 else None

    def forget(self, id: str) -> None:
        """The task is destroyed."""
        self._size -= sum(_cost(each.line) for each in self._lines.pop(id, ()))

    def __repr__(self) -> str:
        return f"<Logs of {len(self._lines)} tasks>"


def _cost(line: LogLine) -> int:
    return len(line.line) + OVERHEAD
