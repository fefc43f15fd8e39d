"""The tasks that are known, counted and in order; sans-IO.

Each change costs a search in the order and no sort, whatever the number of tasks. Where the order is by something
that moves by itself, a task keeps its place until the next ``settle``. What has ended stays in sight for a while;
of what ended, the newest are remembered, so that who watches for days holds no more than who has just come.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from taskd.cli.top.sorts import SORTS, Key, Sort
from taskd.client import Record
from taskd.states import State

# Seconds that a task stays in sight after its end.
LINGER: Final = 60.0

# How many that ended are remembered.
KEPT: Final = 1000

# Seconds between two looks at the order, where it is by what moves.
PACE: Final = 2.0

WORDS_OF_STATE: Final = frozenset(state.value for state in State)


def wanted(text: str) -> Callable[[Record], bool] | None:
    """Which tasks a filter lets through: a word that is a state's means that state (of several, any of them), and
    every other word is to be found in the id, label, operation, owner or status. None: the filter is empty.
    """
    words = text.casefold().split()
    states = WORDS_OF_STATE.intersection(words)
    others = [word for word in words if word not in states]
    if not words:
        return None

    def lets_through(record: Record) -> bool:
        if states and record.state not in states:
            return False
        parts = (record.id, record.label, record.operation, record.owner, record.status or "")
        said = "\n".join(parts).casefold()
        return all(word in said for word in others)

    return lets_through


@attrs.define(eq=False)
class Tasks:
    """See the module. ``began`` is when the watching began, ``now`` everywhere the time: seconds since the epoch.

    ``counts`` are the unfinished tasks by state, ``ends`` those that ended since ``began``.
    """

    began: float
    sort: Sort = SORTS[0]
    backwards: bool = False
    filter: str = ""
    everything: bool = False
    known: dict[str, Record] = attrs.field(factory=dict, init=False)
    counts: Counter[str] = attrs.field(factory=Counter, init=False)
    ends: Counter[str] = attrs.field(factory=Counter, init=False)
    _order: list[Key] = attrs.field(factory=list, init=False)
    _keys: dict[str, Key] = attrs.field(factory=dict, init=False)
    # Those that ended, and those of them that still linger, from the one that ended first.
    _over: dict[str, None] = attrs.field(factory=dict, init=False)
    _lingering: dict[str, float] = attrs.field(factory=dict, init=False)
    _moved: set[str] = attrs.field(factory=set, init=False)
    _settled: float = attrs.field(default=0.0, init=False)
    _wanted: Callable[[Record], bool] | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._wanted = wanted(self.filter)

    def __len__(self) -> int:
        """How many are in sight."""
        return len(self._order)

    def __repr__(self) -> str:
        return f"<Tasks {len(self.known)} known, {len(self)} in sight by {self.sort.name}>"

    def put(self, record: Record, now: float) -> None:
        """A task as it stands; what is older than what is known of it is passed over."""
        self._put(record, now)
        self._forget()

    def _put(self, record: Record, now: float) -> None:
        before = self.known.get(record.id)
        if before is not None and record.revision < before.revision:
            return
        self.known[record.id] = record
        self._count(before, record)
        if record.finished_at is not None and (before is None or before.finished_at != record.finished_at):
            self._over.pop(record.id, None)
            self._over[record.id] = None
            if now - record.finished_at < LINGER:
                self._lingering[record.id] = record.finished_at
        same = before is not None and before.state == record.state and record.id in self._keys
        if same and self.sort.moves and self._shows(record):
            self._moved.add(record.id)
        else:
            self._place(record)

    def _count(self, before: Record | None, record: Record) -> None:
        if before is not None and not before.ended:
            self.counts[before.state] -= 1
        if record.finished_at is None:
            self.counts[record.state] += 1
        elif record.finished_at >= self.began and (before is None or not before.ended):
            self.ends[record.state] += 1

    def _forget(self) -> None:
        while len(self._over) > KEPT:
            self.drop(next(iter(self._over)))

    def drop(self, id: str) -> None:
        """A task is not there any more."""
        record = self.known.pop(id, None)
        if record is not None and not record.ended:
            self.counts[record.state] -= 1
        self._over.pop(id, None)
        self._lingering.pop(id, None)
        self._hide(id)

    def _hide(self, id: str) -> None:
        key = self._keys.pop(id, None)
        if key is not None:
            del self._order[bisect_left(self._order, key)]

    def _place(self, record: Record) -> None:
        """Put it where it belongs now, or out of sight."""
        key = self.sort.key(record) if self._shows(record) else None
        if key == self._keys.get(record.id):
            return
        self._hide(record.id)
        if key is not None:
            self._keys[record.id] = key
            insort(self._order, key)

    def _shows(self, record: Record) -> bool:
        if record.ended and not self.everything and record.id not in self._lingering:
            return False
        return self._wanted is None or self._wanted(record)

    def recall(self, ended: Sequence[Record], now: float) -> None:
        """Some that ended before, in any order."""
        for record in ended:
            self._put(record, now)
        over = sorted((self.known[id] for id in self._over), key=lambda record: record.finished_at or 0.0)
        self._over = dict.fromkeys(record.id for record in over)
        self._forget()

    def settle(self, now: float) -> None:
        """Let go of what has lingered; where the order is by what moves, look at it again, but not too often."""
        gone = [id for id, at in self._lingering.items() if now - at >= LINGER]
        for id in gone:
            del self._lingering[id]
            self._place(self.known[id])
        if now - self._settled >= PACE or now < self._settled:
            self._settled = now
            for id in self._moved:
                if id in self.known:
                    self._place(self.known[id])
            self._moved.clear()

    def arrange(
        self, *, sort: Sort | None = None, backwards: bool | None = None, filter: str | None = None,
        everything: bool | None = None,
    ) -> None:  # fmt: skip
        """Show others, or in another order."""
        self.sort = self.sort if sort is None else sort
        self.backwards = self.backwards if backwards is None else backwards
        self.filter = self.filter if filter is None else filter
        self.everything = self.everything if everything is None else everything
        self._wanted = wanted(self.filter)
        self._moved.clear()
        self._keys = {id: self.sort.key(record) for id, record in self.known.items() if self._shows(record)}
        self._order = sorted(self._keys.values())

    def rows(self, start: int, end: int) -> list[Record]:
        """Those in sight from place ``start`` up to ``end``."""
        size = len(self)
        if self.backwards:
            keys = self._order[max(0, size - end) : max(0, size - start)][::-1]
        else:
            keys = self._order[start:end]
        return [self.known[key[-1]] for key in keys]

    def index(self, id: str) -> int | None:
        """Where a task is, if it is in sight."""
        key = self._keys.get(id)
        if key is None:
            return None
        found = bisect_left(self._order, key)
        return len(self) - 1 - found if self.backwards else found
