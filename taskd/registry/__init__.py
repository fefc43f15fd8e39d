"""The tasks that are alive in this process: newest snapshots, revisions, and those who watch.

There is one order of change. A revision is taken when a change is decided and shown when the change is
durable; a change that is shown early (progress) waits for those before it. So whoever has seen revision n has
missed nothing below n, and a watcher can go on from there (law L8).

A change is shown by replacing ``Live.task``. Watchers wait for the next replacement and then look: they see
the newest state, never a backlog, and a slow one costs nothing. ``Registry.feed`` tells of all tasks at once,
also of those that are destroyed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs
import trio

from taskd.errors import StoreUnavailable
from taskd.model import LogLine, Progress, Task
from taskd.registry.feed import Bell, Change, Feed
from taskd.registry.live import Live
from taskd.registry.logs import Kept, Logs
from taskd.registry.quota import Claim, Quota

__all__ = ["BLOCK", "Bell", "Change", "Claim", "Feed", "Kept", "Live", "Logs", "Quota", "Registry", "Ticket"]

# Revisions are set aside in blocks, so that one that was shown but never stored is not given again after a
# restart. A block is written when half of the one in use is spent.
BLOCK = 1_000_000

# So many of the tasks that ended last are at hand: who waited for an end asks for the task, or destroys it, next.
AT_HAND: Final = 256

# Bytes of the heaviest of these; others are the store's to give.
LIGHT: Final = 16 * 1024


@attrs.define(eq=False)
class Ticket:
    """A place in the order of changes: shown when ``task`` is there and all before it are shown.

    ``task`` stays None for a ticket that only shows the progress made; ``live`` turns None when the change
    was given up. A ticket that never had a ``live`` is about a task that is destroyed (``gone``), or about one
    that is only looked at again; without a task, about something else that goes by revisions, and
    rings at ``places`` of the feed.
    """

    revision: int
    live: Live | None
    task: Task | None = None
    ready: bool = False
    gone: bool = False
    places: Sequence[tuple[str, str]] = ()


# Told of a task as it was (None: it is new) and as it is now (None: it is destroyed), when that can be seen.
Noted: TypeAlias = Callable[[Task | None, Task | None], None]


def _unnoted(before: Task | None, after: Task | None) -> None:
    """Nobody is to be told."""


@attrs.define(eq=False)
class Registry:
    """Every task that has not ended, by id; and the ``feed`` of what happens to any.

    ``noted`` hears of each change, but not of mere progress.
    """

    feed: Feed = attrs.field(factory=Feed)
    logs: Logs = attrs.field(factory=Logs)
    noted: Noted = _unnoted
    quota: Quota = attrs.field(factory=Quota)
    _parts: dict[str, set[str]] = attrs.field(factory=dict)
    _alive: dict[str, Live] = attrs.field(factory=dict)
    _of: dict[str, dict[str, Live]] = attrs.field(factory=dict)
    # As they are on disk, the oldest first.
    _ended: dict[str, Task] = attrs.field(factory=dict)
    _tickets: deque[Ticket] = attrs.field(factory=deque)
    _next: int = 1
    _ceiling: int = 1
    _low: trio.Event = attrs.field(factory=trio.Event)

    @property
    def revision(self) -> int:
        """The newest revision that was taken."""
        return self._next - 1

    def add(self, live: Live, claim: Claim | None = None) -> None:
        """It is alive; where it was made under a ``claim``, it is counted by that already."""
        self.quota.add(live, claim)
        self._ended.pop(live.task.id, None)
        self._alive[live.task.id] = live
        self._of.setdefault(live.task.owner, {})[live.task.id] = live
        if live.task.parent is not None:
            self._parts.setdefault(live.task.parent, set()).add(live.task.id)

    def parts(self, id: str) -> Collection[str]:
        """The ids of the tasks that are a part of this one, of those that were alive in this run."""
        return self._parts.get(id, ())

    def get(self, id: str) -> Live | None:
        return self._alive.get(id)

    def newest(self, id: str) -> Task | None:
        """The newest snapshot of a task that is alive, or was a moment ago; None where the store knows."""
        live = self._alive.get(id)
        return self._ended.get(id) if live is None else live.task

    def of(self, owner: str) -> Sequence[Live]:
        """The tasks of ``owner`` that are alive, oldest first; one that is only being made is not shown yet."""
        shown = (live for live in self._of.get(owner, {}).values() if live.task.revision)
        return sorted(shown, key=lambda live: live.task.seq)

    def remove(self, live: Live) -> None:
        """Let go of a task that has ended; whoever watches it has its last snapshot."""
        if self._alive.pop(live.task.id, None) is None:
            return
        if self.feed.weight(live.task) <= LIGHT:
            self._ended[live.task.id] = live.task
        if len(self._ended) > AT_HAND:
            del self._ended[next(iter(self._ended))]
        owner = live.task.owner
        del self._of[owner][live.task.id]
        if not self._of[owner]:
            del self._of[owner]
        self.quota.remove(live)

    def __iter__(self) -> Iterator[Live]:
        return iter(tuple(self._alive.values()))

    def __len__(self) -> int:
        return len(self._alive)

    async def keep_revisions(
        self,
        reserve: Callable[[int], Awaitable[int]],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Set revisions aside, first before anything is taken, then whenever they run low. Never returns.

        ``reserve`` is the store's: it sets that many aside, durably, and gives the first.
        """
        self._next = await reserve(BLOCK)
        self._ceiling = self._next + BLOCK
        self.feed.begin(self._next)
        task_status.started()
        while True:
            await self._low.wait()
            try:
                self._ceiling = await reserve(BLOCK) + BLOCK
            except StoreUnavailable:
                await trio.sleep(1)
            else:
                if self._next <= self._ceiling - BLOCK // 2:
                    self._low = trio.Event()
                self._advance()

    def take(self, live: Live | None, *, best_effort: bool = False) -> Ticket:
        """Take the next place in the order; it must be shown or given up.

        The law: nothing is stored or shown with a revision that is not set aside: the next run would give it
        again, and not start on a database that has it. What is stored has its place from here. Only what is not
        stored and cannot be refused (``tell``, ``forget``) may get one beyond, and is shown when it is set aside.
        A quarter of a block is left to that, and to ``best_effort``: an undo may be what makes room on the disk.

        Raises:
            StoreUnavailable: no revision is left; nothing has begun.
        """
        if not self._left(best_effort=best_effort):
            raise StoreUnavailable("no revisions could be set aside")
        return self._place(live)

    def _left(self, *, best_effort: bool = False) -> bool:
        return self._next < self._ceiling - (0 if best_effort else BLOCK // 4)

    def _place(self, live: Live | None) -> Ticket:
        ticket = Ticket(self._next, live)
        self._next += 1
        if self._next > self._ceiling - BLOCK // 2:
            self._low.set()
        self._tickets.append(ticket)
        return ticket

    def show(self, ticket: Ticket, task: Task | None = None) -> None:
        """The change of ``ticket`` has happened: show it, and those that waited for it."""
        ticket.task, ticket.ready = task, True
        self._advance()

    def tell(self, live: Live, task: Task | None = None) -> None:
        """Show what is in memory only; where no revision is left, as soon as there is one."""
        self.show(self._place(live), task)

    async def shown(self, live: Live, ticket: Ticket) -> None:
        """Wait until the changes before ``ticket`` have happened too, so that it can be seen."""
        while live.task.revision < ticket.revision:
            await live.changed()

    def give_up(self, ticket: Ticket) -> None:
        """The change of ``ticket`` will not happen."""
        ticket.live, ticket.ready = None, True
        self._advance()

    def _advance(self) -> None:
        while self._tickets and self._tickets[0].ready and self._tickets[0].revision < self._ceiling:
            ticket = self._tickets.popleft()
            if (live := ticket.live) is not None:
                live.reported = 0 if ticket.task is None else live.reported
                before, born = live.task, live.task.revision == 0
                live._show(ticket.task or live.task, ticket.revision)
                self._put(ticket.revision, live.task, born=born)
                if ticket.task is not None:
                    self.noted(None if born else before, live.task)
            elif ticket.task is not None:
                self._put(ticket.revision, ticket.task, gone=ticket.gone)
                if ticket.gone:
                    self.noted(ticket.task, None)
            else:
                self.feed.pass_by(ticket.revision, *ticket.places)

    def _put(self, revision: int, task: Task, *, born: bool = False, gone: bool = False) -> None:
        for change in self.feed.put(revision, task, born=born, gone=gone):
            if change.gone:
                self.logs.forget(change.task.id)

    def report(self, live: Live, progress: Progress) -> None:
        """Show new progress; it is kept in memory only."""
        live.progress = progress
        if live.reported:
            return  # it will be shown with what is waiting already
        if self._left():  # else it is shown with the next durable change
            ticket = self.take(live)
            live.reported = ticket.revision
            self.show(ticket)

    def logged(self, live: Live, lines: Sequence[LogLine], revision: int, keep: int) -> None:
        """These lines of its log are durable, and will be shown with ``revision``; the newest ``keep`` stay."""
        if lines:
            self.logs.append(live.task.id, lines, revision, live.log_kept, keep)
            live.log_kept = lines[-1].n + 1

    def forget(self, tasks: Iterable[Task]) -> None:
        """These tasks are destroyed, durably: show that."""
        for task in tasks:
            if (live := self._alive.get(task.id)) is not None:  # whoever wrote its end does not know of it yet
                self.remove(live)
            self.quota.settled(task)
            self._ended.pop(task.id, None)
            ticket = self._place(None)
            ticket.gone = True
            self.show(ticket, task)
            self._parts.pop(task.id, None)
            if parts := self._parts.get(task.parent or ""):
                parts.discard(task.id)
                if not parts:
                    del self._parts[task.parent or ""]

    def touch(self, task: Task | None = None, *places: tuple[str, str]) -> int | None:
        """Show ``task`` once more, unchanged; or a revision for what is no task, with a ring at those ``places``
        of the feed. The revision before is given.

        None where no revision is left for it; see ``report``.
        """
        if not self._left():
            return None
        before = self.feed.revision
        live = None if task is None else self.get(task.id)
        ticket = self.take(live)
        ticket.places = places
        self.show(ticket, None if live is not None else task)
        return before
