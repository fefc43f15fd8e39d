"""What the tasks of each owner take of what an owner may have (``tasks_per_owner``).

A task takes one unit, and one more for every ``UNIT`` bytes that its snapshot takes in memory: a limit to the
number of tasks alone would let a user fill the memory with lists of blocks, and each start of the daemon fill it
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from taskd.errors import TooManyTasks
from taskd.model import Task
from taskd.registry.live import Live
from taskd.registry.weight import heft, parts

# Bytes.
UNIT: Final = 65536


@attrs.define(eq=False)
class Claim:
    """Units for a task that is being made; ``kept`` by it once it is there."""

    units: int
    kept: bool = False


@attrs.define(eq=False)
class Quota:
    """What the unfinished tasks of each owner take, and those that owe an undo."""

    _taken: Counter[str] = attrs.field(factory=Counter)
    # By owner, the ids of the ended tasks that still owe an undo.
    _owing: dict[str, set[str]] = attrs.field(factory=dict)

    @contextmanager
    def claimed(self, owner: str, limit: int, *holds: object) -> Iterator[Claim]:
        """While a task that ``holds`` this is being made, count it: many at once must not pass the limit together.

        What owes an undo counts too: else an owner could make tasks without end whose undo the owner prevents.

        Raises:
            TooManyTasks: the owner's take ``limit`` already, or would. A first one may hold whatever it does.
        """
        claim = Claim(_units(holds))
        self._grow(owner, claim.units, limit)
        try:
            yield claim
        finally:
            if not claim.kept:
                self._give_back(owner, claim.units)

    def add(self, live: Live, claim: Claim | None) -> None:
        """It is alive; where it was made under a ``claim``, it is counted by that already."""
        self.settled(live.task)
        if claim is None:
            live.units = _units(parts(live.task))
            self._taken[live.task.owner] += live.units
        else:
            live.units, claim.kept = claim.units, True

    def grow(self, live: Live, task: Task, limit: int) -> None:
        """It is about to become ``task``. What a task has taken once it keeps until it has ended.

        Raises:
            TooManyTasks: the owner's would take more than ``limit``.
        """
        if (more := _units(parts(task)) - live.units) > 0:
            self._grow(task.owner, more, limit)
            live.units += more

    def remove(self, live: Live) -> None:
        """It has ended."""
        self._give_back(live.task.owner, live.units)
        if live.task.journal:
            self._owing.setdefault(live.task.owner, set()).add(live.task.id)

    def owes(self, task: Task) -> bool:
        """It has ended, and an undo of it is still owed."""
        return task.id in self._owing.get(task.owner, ())

    def settled(self, task: Task) -> None:
        """It owes nothing more, or is undone again and counts as alive."""
        owing = self._owing.get(task.owner, set())
        owing.discard(task.id)
        if not owing:
            self._owing.pop(task.owner, None)

    def taken(self, owner: str) -> int:
        """What the unfinished tasks of that owner take."""
        return self._taken[owner]

    def _grow(self, owner: str, more: int, limit: int) -> None:
        taken = self._taken[owner] + len(self._owing.get(owner, ()))
        if taken + min(more, limit or 1) > limit:
            raise TooManyTasks(limit)
        self._taken[owner] += more

    def _give_back(self, owner: str, units: int) -> None:
        self._taken[owner] -= units
        if not self._taken[owner]:
            del self._taken[owner]


def _units(held: object) -> int:
    return 1 + heft(held) // UNIT
