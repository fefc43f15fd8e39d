"""The newest log lines of all tasks, in memory, so that those who follow a log need not ask the store for each.

The law: what is here is durable, and of each task it is the end of its log, without a gap but where the store
lost lines. Those of a task that was destroyed stay as long as the feed tells of that. All together hold at most
``limit`` characters; beyond that those of the task that was silent longest are let go, and whoever wants them
reads them from the store.

A line belongs to the change of its task that it is shown with. So whoever has seen all tasks at some revision,
and the lines up to that one, has a whole picture of that moment, and can go on from there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from itertools import islice

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
class End:
    """The end of a log: all of it from number ``begin`` on; a number without a line is one that was lost."""

    begin: int
    lines: deque[Kept] = attrs.field(factory=deque)

    def start(self, number: int) -> Iterator[Kept]:
        """The lines from that number on."""
        return islice(self.lines, bisect_left(self.lines, number, key=_number), None)


@attrs.define(eq=False)
class Logs:
    """See the module."""

    limit: int = LIMIT
    _size: int = 0
    _ends: OrderedDict[str, End] = attrs.field(factory=OrderedDict)

    def append(self, id: str, lines: Sequence[LogLine], revision: int, begin: int, keep: int) -> None:
        """The next lines of a task's log, at least one, which are durable and will be shown with ``revision``.

        ``begin`` is the number after the last line that was durable before. Of all its lines the store keeps the
        newest ``keep``, so older ones are let go of here too.
        """
        end = self._ends.setdefault(id, End(begin))
        self._ends.move_to_end(id)
        end.lines.extend(Kept(revision, line) for line in lines)
        self._size += sum(map(_cost, lines))
        while len(end.lines) > keep:
            self._cut(end)
        while self._size > self.limit:
            oldest, first = next(iter(self._ends.items()))
            self._cut(first)
            if not first.lines:
                del self._ends[oldest]

    def _cut(self, end: End) -> None:
        line = end.lines.popleft().line
        end.begin = line.n + 1
        self._size -= _cost(line)

    def after(
        self, id: str, start: int, revision: int | None = None, limit: int | None = None
    ) -> Sequence[LogLine] | None:
        """The first ``limit`` lines from number ``start`` on, that belong to changes up to ``revision``; None
        where only the store can tell.
        """
        end = self._ends.get(id)
        if end is None or end.begin > start:
            return None
        found = (each.line for each in end.start(start) if revision is None or each.revision <= revision)
        return [*islice(found, limit)]

    def last(self, id: str, start: int, revision: int, limit: int) -> Sequence[LogLine]:
        """The first ``limit`` lines from number ``start`` on, of those that are here and belong to changes after
        ``revision``.
        """
        end = self._ends.get(id)
        found = () if end is None else (each.line for each in end.start(start) if each.revision > revision)
        return [*islice(found, limit)]

    def first_after(self, id: str, revision: int) -> int | None:
        """The number of the first line that belongs to a change after ``revision``, which may be still to come;
        None where no line is here that could tell.
        """
        end = self._ends.get(id)
        if end is None:
            return None
        first = end.lines[-1].line.n + 1
        for each in reversed(end.lines):
            if each.revision <= revision:
                return first
            first = each.line.n
        return first if end.begin == 0 else None

    def forget(self, id: str) -> None:
        """The task is destroyed, and nobody is to be told of it any more."""
        end = self._ends.pop(id, None)
        if end is not None:
            self._size -= sum(_cost(each.line) for each in end.lines)

    def kept(self, id: str, start: int, revision: int | None = None) -> Sequence[Kept] | None:
        """``after``, with the revision that each line belongs to."""
        end = self._ends.get(id)
        if end is None or end.begin > start:
            return None
        found: list[Kept] = []
        for each in reversed(end.lines):
            if each.line.n < start:
                break
            if revision is None or each.revision <= revision:
                found.append(each)
        return found[::-1]

    def begin(self, id: str) -> int | None:
        """The number from which on all lines of a task are here; None where none is."""
        end = self._ends.get(id)
        return None if end is None else end.begin

    def __repr__(self) -> str:
        return f"<Logs of {len(self._ends)} tasks>"


def _number(kept: Kept) -> int:
    return kept.line.n


def _cost(line: LogLine) -> int:
    return len(line.line) + OVERHEAD
