"""The tasks that are alive in this process: newest snapshots, revisions, and those who watch.

There is one order of change. A revision is taken when a change is decided and shown when the change is
durable; a change that is shown early (progress) waits for those before it. So whoever has seen revision n has
missed nothing below n, and a watcher can go on from there (law L8).

A change is shown by replacing ``Live.task``. Watchers wait for the next replacement and then look: they see
the newest state, never a backlog, and a slow one costs nothing. ``Registry.feed`` tells of all tasks at once,
also of those that are destroyed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import trio

from taskd.errors import StoreUnavailable, TooManyTasks
from taskd.model import LogLine, Progress, Task
from taskd.registry.feed import Bell, Change, Feed
from taskd.registry.logs import Kept, Logs
from taskd.states import State

__all__ = ["BLOCK", "Bell", "Change", "Feed", "Kept", "Live", "Logs", "Registry", "Ticket"]

# Revisions are set aside in blocks, so that one that was shown but never stored is not given again after a
# restart. A block is written long before the one in use is spent.
BLOCK = 1_000_000


@attrs.define(eq=False)
class Live:
    """What is alive about a task: its newest snapshot, the scope it runs in, and the order of its writers.

    ``lock`` is held by whoever decides the next durable change, from looking to having shown it. ``stored``
    is the state on disk. ``cancel_asked`` is set the moment a cancel is accepted, ahead of its durable note.
    ``progress`` is ahead of ``task.progress`` by what has not been shown yet, ``reported`` is the
    revision that is taken to show it, 0 for none; ``heard_at`` is when an
    external task's producer last reported, on trio's clock. ``forgotten`` says that the task is destroyed
    although it could not end. ``log_end`` is the number that its next line of log gets, ``log_kept`` the one after
    the last that is durable.
    """

    task: Task
    stored: State = attrs.field(init=False)
    cancel_asked: bool = attrs.field(init=False)
    scope: trio.CancelScope | None = None
    lock: trio.Lock = attrs.field(factory=trio.Lock)
    progress: Progress = attrs.field(init=False)
    log_end: int = 0
    log_kept: int = 0
    heard_at: float = 0.0
    forgotten: bool = False
    reported: int = 0
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _woken: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.stored = self.task.state
        self.cancel_asked = self.task.cancel_requested
        self.progress = self.task.progress

    def _show(self, task: Task) -> None:
        self.task = attrs.evolve(task, progress=self.progress)
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait for the next snapshot."""
        await self._changed.wait()

    def wake(self) -> None:
        """What waits before it tries again need wait no longer."""
        self._woken.set()
        self._woken = trio.Event()

    async def woken(self) -> None:
        await self._woken.wait()

    def __repr__(self) -> str:
        return f"<Live {self.task!r}>"


@attrs.define(eq=False)
class Ticket:
    """A place in the order of changes: shown when ``task`` is there and all before it are shown.

    ``task`` stays None for a ticket that only shows the progress made; ``live`` turns None when the change
    was given up. A ticket that never had a ``live`` is about a task that is destroyed (``gone``), or about one
    that is only looked at again; without a task, about something else that goes by revisions.
    """

    revision: int
    live: Live | None
    task: Task | None = None
    ready: bool = False
    gone: bool = False


@attrs.define(eq=False)
class Registry:
    """Every task that has not ended, by id; and the ``feed`` of what happens to any."""

    feed: Feed = attrs.field(factory=Feed)
    logs: Logs = attrs.field(factory=Logs)
    # Whoever gathers much from the feed takes its turn here, one after the other.
    turn: trio.Lock = attrs.field(factory=trio.Lock)
    _parts: dict[str, set[str]] = attrs.field(factory=dict)
    _alive: dict[str, Live] = attrs.field(factory=dict)
    _of: dict[str, dict[str, Live]] = attrs.field(factory=dict)
    _owned: Counter[str] = attrs.field(factory=Counter)
    _tickets: deque[Ticket] = attrs.field(factory=deque)
    _next: int = 1
    _ceiling: int = 1
    _low: trio.Event = attrs.field(factory=trio.Event)

    @property
    def revision(self) -> int:
        """The newest revision that was taken."""
        return self._next - 1

    def add(self, live: Live) -> None:
        self._alive[live.task.id] = live
        self._of.setdefault(live.task.owner, {})[live.task.id] = live
        self._owned[live.task.owner] += 1
        if live.task.parent is not None:
            self._parts.setdefault(live.task.parent, set()).add(live.task.id)

    def parts(self, id: str) -> Collection[str]:
        """The ids of the tasks that are a part of this one, of those that were alive in this run."""
        return self._parts.get(id, ())

    def get(self, id: str) -> Live | None:
        return self._alive.get(id)

    def of(self, owner: str) -> Sequence[Live]:
        """The tasks of ``owner`` that are alive, oldest first; one that is only being made is not shown yet."""
        shown = (live for live in self._of.get(owner, {}).values() if live.task.revision)
        return sorted(shown, key=lambda live: live.task.seq)

    def remove(self, live: Live) -> None:
        """Let go of a task that has ended; whoever watches it has its last snapshot."""
        if self._alive.pop(live.task.id, None) is None:
            return
        owner = live.task.owner
        del self._of[owner][live.task.id]
        if not self._of[owner]:
            del self._of[owner]
        self._let_go(owner)

    @contextmanager
    def claimed(self, owner: str, limit: int) -> Iterator[None]:
        """While a task is being made, count it: many made at once must not pass the limit together.

        Raises:
            TooManyTasks: the owner has ``limit`` already.
        """
        if self._owned[owner] >= limit:
            raise TooManyTasks(limit)
        self._owned[owner] += 1
        try:
            yield
        finally:
            self._let_go(owner)

    def _let_go(self, owner: str) -> None:
        self._owned[owner] -= 1
        self._owned += Counter()  # drops owners that have none left

    def owned(self, owner: str) -> int:
        """How many unfinished tasks that owner has."""
        return self._owned[owner]

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
                await trio.sleep(1)  # there is half a block left; meanwhile only progress is shown late
            else:
                self._low = trio.Event()

    def take(self, live: Live | None) -> Ticket:
        """Take the next place in the order; it must be shown or given up."""
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

    async def shown(self, live: Live, ticket: Ticket) -> None:
        """Wait until the changes before ``ticket`` have happened too, so that it can be seen."""
        while live.task.revision < ticket.revision:
            await live.changed()

    def give_up(self, ticket: Ticket) -> None:
        """The change of ``ticket`` will not happen."""
        ticket.live, ticket.ready = None, True
        self._advance()

    def _advance(self) -> None:
        while self._tickets and self._tickets[0].ready:
            ticket = self._tickets.popleft()
            if (live := ticket.live) is not None:
                live.reported = 0 if ticket.task is None else live.reported
                born = live.task.revision == 0
                live._show(attrs.evolve(ticket.task or live.task, revision=ticket.revision))
                self.feed.put(ticket.revision, live.task, born=born)
            elif ticket.task is not None:
                self.feed.put(ticket.revision, ticket.task, gone=ticket.gone)
            else:
                self.feed.pass_by(ticket.revision)

    def report(self, live: Live, progress: Progress) -> None:
        """Show new progress; it is kept in memory only."""
        live.progress = progress
        if live.reported:
            return  # it will be shown with what is waiting already
        # Without revisions left (the store has not answered for half a million changes) it is shown with the
        # next durable change.
        if self._next < self._ceiling:
            ticket = self.take(live)
            live.reported = ticket.revision
            self.show(ticket)

    def logged(self, live: Live, lines: Sequence[LogLine], revision: int) -> None:
        """These lines of its log are durable, and will be shown with ``revision``."""
        if lines:
            self.logs.append(live.task.id, lines, revision, live.log_kept)
            live.log_kept = lines[-1].n + 1

    def forget(self, tasks: Iterable[Task]) -> None:
        """These tasks are destroyed, durably: show that."""
        for task in tasks:
            ticket = self.take(None)
            ticket.gone = True
            self.show(ticket, task)
            self.logs.forget(task.id)
            self._parts.pop(task.id, None)
            if task.parent is not None:
                self._parts.get(task.parent, set()).discard(task.id)

    def touch(self, task: Task | None = None) -> int | None:
        """Show ``task`` once more, unchanged; or a revision for what is no task. The revision before is given.

        None where no revision is left for it; see ``report``.
        """
        if self._next >= self._ceiling:
            return None
        before = self.feed.revision
        live = None if task is None else self.get(task.id)
        self.show(self.take(live), None if live is not None else task)
        return before
