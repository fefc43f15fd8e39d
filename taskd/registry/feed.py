"""The one source of change: every task that was made, changed or destroyed, in the order of revisions.

The law: a revision is in the feed when everything below it is. The feed keeps, of each task, its newest change
only, and of all tasks the ``limit`` newest ones, or as many of them as ``max_weight`` bytes hold; so its memory is
bounded, a watcher sees the newest state and not a backlog, and a slow watcher costs nothing (law L8). Whoever asks
from a revision that is no longer covered is told so, and starts afresh from the tasks themselves.

It also counts the tasks that there are, so that the number fits the revision to the last change.

Who waits hangs up a ``Bell`` under what it cares for, so that a change wakes those whom it concerns and nobody
else.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from taskd.model import Task
from taskd.registry.weight import same, weigh

# Of so many tasks the newest change is kept.
LIMIT = 10_000

# About so many bytes of memory may all the snapshots in the feed take.
MAX_WEIGHT = 64 * 1024 * 1024

# What a bell can hang under: every task, one task by its id, the tasks of one user, owned or produced, or what
# else of one user goes by revisions.
EVERYTHING: Final = ("everything", "")


def one(id: str) -> tuple[str, str]:
    return ("task", id)


def of(user: str) -> tuple[str, str]:
    return ("user", user)


def desk(user: str) -> tuple[str, str]:
    return ("desk", user)


@attrs.define(eq=False)
class Bell:
    """Rung by each change that it hangs under."""

    _rung: trio.Event = attrs.field(factory=trio.Event)
    _before: int | None = None

    def ring(self, revision: int) -> None:
        if self._before is None:
            self._before = revision - 1
        self._rung.set()

    def quiet(self, newest: int) -> int:
        """Up to which revision it was not rung since this was asked last; ``newest`` where it was not at all.

        Whoever waits long need not go back to where they began, which the feed may not cover any more.
        """
        before, self._before = self._before, None
        return newest if before is None else before

    async def wait(self) -> None:
        """Wait until it was rung since the last wait. A cancel loses nothing."""
        await self._rung.wait()
        self._rung = trio.Event()


@attrs.frozen(eq=False)
class Change:
    """The newest change of one task: the snapshot that was shown with it, the last one where it is ``gone``.

    ``born`` is the revision that the task was made with, 0 where that is longer ago than the feed goes back.
    ``weight`` is about how many bytes of memory the snapshot takes.
    """

    revision: int
    task: Task
    born: int = 0
    gone: bool = False
    weight: int = 0

    def __repr__(self) -> str:
        return f"<Change {self.revision} of {self.task!r}{' gone' if self.gone else ''}>"


@attrs.define(eq=False)
class Feed:
    """See the module. ``revision`` is the newest that was shown, ``horizon`` the newest not covered any more."""

    limit: int = LIMIT
    max_weight: int = MAX_WEIGHT
    revision: int = 0
    horizon: int = 0
    epoch: int = 0
    # How many bells hang here, thus how many are told of changes.
    crowd: int = 0
    _weight: int = 0
    _changes: OrderedDict[str, Change] = attrs.field(factory=OrderedDict)
    _owned: Counter[str] = attrs.field(factory=Counter)
    _moved: trio.Event = attrs.field(factory=trio.Event)
    _bells: dict[tuple[str, str], set[Bell]] = attrs.field(factory=dict)

    def begin(self, revision: int) -> None:
        """Cover what comes from ``revision`` on, which no run of the daemon has used: it names this run."""
        self.epoch, self.revision, self.horizon = revision, revision - 1, revision - 1

    def count_from(self, owned: Mapping[str, int]) -> None:
        """There are so many tasks now, by owner."""
        self._owned = Counter(owned)

    def put(self, revision: int, task: Task, *, born: bool = False, gone: bool = False) -> Sequence[Change]:
        """``task`` was shown with ``revision``, as ``born`` or ``gone`` or changed; what is forgotten for it."""
        before = self._changes.get(task.id)
        if before is not None and before.gone:  # destroyed twice at once, or looked at meanwhile
            gone, task, born = True, before.task, False
        elif gone or born:
            self._owned[task.owner] += 1 if born else -1
            if not self._owned[task.owner]:
                del self._owned[task.owner]
        since = revision if born else before.born if before is not None else 0
        weight = self.weight(task)
        self._changes[task.id] = Change(revision, task, since, gone, weight)
        self._changes.move_to_end(task.id)
        self._weight += weight - (0 if before is None else before.weight)
        forgotten = []
        while len(self._changes) > self.limit or (self._weight > self.max_weight and len(self._changes) > 1):
            _, oldest = self._changes.popitem(last=False)
            self.horizon = oldest.revision
            self._weight -= oldest.weight
            forgotten.append(oldest)
        self.pass_by(revision, EVERYTHING, one(task.id), of(task.owner), of(task.processor))
        return forgotten

    @contextmanager
    def bell(self, *places: tuple[str, str]) -> Iterator[Bell]:
        """A bell that hangs under all these ``places``, which may be the same, as long as the context lasts."""
        bell, distinct = Bell(), {*places}
        for place in distinct:
            self._bells.setdefault(place, set()).add(bell)
        self.crowd += 1
        try:
            yield bell
        finally:
            self.crowd -= 1
            for place in distinct:
                self._bells[place].discard(bell)
                if not self._bells[place]:
                    del self._bells[place]

    def newest(self, id: str) -> Change | None:
        """The newest change of a task, where the feed still has it."""
        return self._changes.get(id)

    def weight(self, task: Task) -> int:
        """``weigh`` of a snapshot; of one that shares what can be long with the newest change it is known."""
        known = self._changes.get(task.id)
        return known.weight if known is not None and same(known.task, task) else weigh(task)

    def pass_by(self, revision: int, *places: tuple[str, str]) -> None:
        """What there was to show with ``revision`` is shown, of a task or of what else it stands for."""
        self.revision = revision
        for place in {*places}:
            for bell in self._bells.get(place, ()):
                bell.ring(revision)
        self._moved.set()
        self._moved = trio.Event()

    def covers(self, revision: int) -> bool:
        """``since`` can tell all that happened after ``revision``."""
        return self.horizon <= revision <= self.revision

    def since(self, revision: int) -> Sequence[Change]:
        """The changes after ``revision``, oldest first, of each task the newest; for a ``revision`` it covers."""
        found = []
        for change in reversed(self._changes.values()):
            if change.revision <= revision:
                break
            found.append(change)
        return found[::-1]

    def count(self, owner: str | None = None) -> int:
        """How many tasks there are (of ``owner``) at ``revision``."""
        return self._owned.total() if owner is None else self._owned[owner]

    async def moved(self) -> None:
        """Wait for the next revision to be shown. A cancel has no effect on the feed."""
        await self._moved.wait()

    def __repr__(self) -> str:
        return f"<Feed rev={self.revision} covers {self.horizon}>"
