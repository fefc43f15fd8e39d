"""The one source of change: every task that was made, changed or destroyed, in the order of revisions.

The law: a revision is in the feed when everything below it is. The feed keeps, of each task, its newest change
only, and of all tasks the ``limit`` newest ones; so its memory is bounded, a watcher sees the newest state and
not a backlog, and a slow watcher costs nothing (law L8). Whoever asks from a revision that is no longer covered
is told so, and starts afresh from the tasks themselves.

It also counts the tasks that there are, so that the number fits the revision to the last change.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence

import attrs
import trio

from taskd.model import Task

# Of so many tasks the newest change is kept.
LIMIT = 10_000


@attrs.frozen
class Change:
    """The newest change of one task: the snapshot that was shown with it, the last one where it is ``gone``.

    ``born`` is the revision that the task was made with, 0 where that is longer ago than the feed goes back.
    """

    revision: int
    task: Task
    born: int = 0
    gone: bool = False

    def __repr__(self) -> str:
        return f"<Change {self.revision} of {self.task!r}{' gone' if self.gone else ''}>"


@attrs.define(eq=False)
class Feed:
    """See the module. ``revision`` is the newest that was shown, ``horizon`` the newest not covered any more."""

    limit: int = LIMIT
    revision: int = 0
    horizon: int = 0
    epoch: int = 0
    _changes: OrderedDict[str, Change] = attrs.field(factory=OrderedDict)
    _owned: Counter[str] = attrs.field(factory=Counter)
    _moved: trio.Event = attrs.field(factory=trio.Event)

    def begin(self, revision: int) -> None:
        """Cover what comes from ``revision`` on, which no run of the daemon has used: it names this run."""
        self.epoch, self.revision, self.horizon = revision, revision - 1, revision - 1

    def count_from(self, owned: Mapping[str, int]) -> None:
        """There are so many tasks now, by owner."""
        self._owned = Counter(owned)

    def put(self, revision: int, task: Task, *, born: bool = False, gone: bool = False) -> None:
        """``task`` was shown with ``revision``, as ``born`` or ``gone`` or changed."""
        before = self._changes.pop(task.id, None)
        if before is not None and before.gone:  # destroyed twice at once, or looked at meanwhile
            gone, task, born = True, before.task, False
        elif gone or born:
            self._owned[task.owner] += 1 if born else -1
        since = revision if born else before.born if before is not None else 0
        self._changes[task.id] = Change(revision, task, since, gone)
        while len(self._changes) > self.limit:
            _, forgotten = self._changes.popitem(last=False)
            self.horizon = forgotten.revision
        self.pass_by(revision)

    def pass_by(self, revision: int) -> None:
        """Nothing of a task was shown with ``revision``; who waits may look at what else it stands for."""
        self.revision = revision
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
