"""The newest log lines of all tasks, in memory, so that those who follow a log need not ask the store for each.

The law: what is here is durable, and of each task it is the end of its log, without a gap but where the store
lost lines. All together hold at most ``limit`` characters; beyond that those of the task that was silent longest
are let go, and whoever wants them reads them from the store.
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


@attrs.define(eq=False)
class Logs:
    """See the module."""

    limit: int = LIMIT
    _size: int = 0
    _lines: OrderedDict[str, deque[LogLine]] = attrs.field(factory=OrderedDict)

    def append(self, id: str, lines: Sequence[LogLine]) -> None:
        """The next lines of a task's log, which are durable."""
        if not lines:
            return
        kept = self._lines.setdefault(id, deque())
        self._lines.move_to_end(id)
        kept.extend(lines)
        self._size += sum(map(_cost, lines))
        while self._size > self.limit:
            oldest, lines_of = next(iter(self._lines.items()))
            self._size -= _cost(lines_of.popleft())
            if not lines_of:
                del self._lines[oldest]

    def after(self, id: str, start: int) -> Sequence[LogLine] | None:
        """All lines from number ``start`` on; None where only the store can tell."""
        kept = self._lines.get(id)
        if kept is None or kept[0].n > start:
            return None
        found: list[LogLine] = []
        for line in reversed(kept):
            if line.n < start:
                break
            found.append(line)
        return found[::-1]

    def forget(self, id: str) -> None:
        """The task is destroyed."""
        self._size -= sum(map(_cost, self._lines.pop(id, ())))

    def __repr__(self) -> str:
        return f"<Logs of {len(self._lines)} tasks>"


def _cost(line: LogLine) -> int:
    return len(line.line) + OVERHEAD
