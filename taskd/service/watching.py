"""Watching tasks without losing anything: a coroutine that walks the feed at its reader's pace (law L8).

The law of what a watcher is told:

- First comes what there is: every task that has not ended (or each that is asked about, in any state), as
  SNAPSHOT; or, from a revision on, what has happened since; then SYNCED. Then each change as CHANGED or
  DESTROYED, in the order of revisions. A watcher that lags
  skips to the newest state of each task; its queue is the feed, which is bounded.
- SYNCED, CHANGED and DESTROYED carry a revision from which another watch may go on (``since``): whatever came
  before it was told, or is told again by something later.
- A revision that the feed does not cover any more is answered with RESYNC: what the watcher knows to be
  unfinished and is not told of again before the next SYNCED is gone. The snapshot that follows also has what has
  ended since that revision.
- Log lines are never skipped: they are told as LOG ahead of the snapshot or change that they came with, each
  task's from its number on, from memory or, for one that lags, from the store; the last ones of a task that is
  destroyed ahead of that, as long as they are in memory. None is told twice.
- What a watch holds of what it is to tell is bounded, in bytes too; between two batches it holds next to nothing.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from enum import Enum, unique
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from taskd import access
from taskd.errors import BadParams
from taskd.model import Caller, LogLine, Task
from taskd.registry import Feed
from taskd.registry.logs import OVERHEAD
from taskd.registry.weight import weigh
from taskd.service import gate, places
from taskd.states import ENDED
from taskd.store import Query

if TYPE_CHECKING:
    from taskd.service import Service

# Tasks that one watch may name.
MOST: Final = 1000

# Tasks, or lines of a log, that are fetched at a time.
PAGE: Final = 50

# Notices, and lines in them, that are told at a time, about; and the bytes of memory that they take, which one
# alone may exceed.
BATCH: Final = 100
LOAD: Final = 256 * 1024

# Bytes of a task that is kept until its turn comes; a heavier one is fetched again.
LIGHT: Final = 8192

# Of so many tasks that have ended it is remembered how far their logs were told.
ENDINGS: Final = 10_000

# Seconds after changes were told in which more of them gather: what moves faster is told twenty times a second.
CALM: Final = 0.05

# And seconds for each who is told of changes: a crowd, each of which takes its turn at every change, would leave
# no time for those whom it watches.
CROWD: Final = 0.0005

# But never more seconds than this: the many watches of one user must not keep another's waiting.
CROWDED: Final = 0.5


@unique
class Kind(Enum):
    """What a watcher is told; the value is the word on the wire."""

    RESYNC = "resync"
    SNAPSHOT = "snapshot"
    SYNCED = "synced"
    CHANGED = "changed"
    DESTROYED = "destroyed"
    LOG = "log"


@attrs.frozen(eq=False)
class Notice:
    """One thing told: ``task`` for SNAPSHOT, CHANGED, DESTROYED and LOG; ``lines`` for LOG.

    Equal snapshots of one change are one object, so that what is made of it can be kept for the next watcher.
    """

    kind: Kind
    revision: int
    task: Task | None = None
    lines: Sequence[LogLine] = ()

    def load(self, feed: Feed) -> int:
        """About how many bytes of memory it takes; ``feed`` has weighed most of it already."""
        if self.lines:
            return sum(sys.getsizeof(line.line, 0) + OVERHEAD for line in self.lines)
        return OVERHEAD if self.task is None or self.kind is Kind.DESTROYED else feed.weight(self.task)


Tell: TypeAlias = Callable[[Sequence[Notice]], Awaitable[None]]


@attrs.define(eq=False)
class Watch:
    """A watch of ``caller``: of the tasks ``ids``, or of all that the caller may see.

    ``revision`` is where it stands, ``_stood`` where it stood before the changes that are being told. ``log`` says
    that log lines are wanted; ``_told`` is, by task, the number of the next one, until the task is destroyed, and
    of ``_over``, which have ended or are gone, the newest. Access is asked for each task that is told of, each
    time.
    """

    service: Service
    caller: Caller
    ids: frozenset[str] | None
    revision: int
    log: bool
    _told: dict[str, int]
    _fresh: bool
    # Tasks that the snapshot showed later than it began, until their changes have been passed.
    _shown: dict[str, int] = attrs.field(factory=dict)
    _stood: int = 0
    _over: dict[str, None] = attrs.field(factory=dict)

    async def run(self, tell: Tell, turn: trio.Lock | None = None) -> None:
        """Tell what there is to tell, for ever, as fast as ``tell`` takes it. A cancel disturbs nobody.

        Of watches with the same ``turn`` one at a time gathers and tells: those of a reader that does not read
        hold one batch, and not one each.
        """
        feed, turn = self.service.registry.feed, turn or trio.Lock()
        with feed.bell(*self._places()) as bell:
            async with aclosing(self._notices()) as notices:
                while True:
                    async with turn:
                        all_told, any_due = await self._some(notices, tell)
                    if all_told and any_due:
                        await trio.sleep(min(max(CALM, CROWD * feed.crowd), CROWDED))
                    if all_told and self.revision == feed.revision:
                        await bell.wait()
                        self.revision = max(self.revision, bell.quiet(feed.revision))

    async def _some(self, notices: AsyncGenerator[Notice | None], tell: Tell) -> tuple[bool, bool]:
        """Tell some notices; whether they were all for now, and whether there was any."""
        all_told, due = await self._gather(notices)
        if due:
            await tell(due)
        return all_told, bool(due)

    async def _gather(self, notices: AsyncGenerator[Notice | None]) -> tuple[bool, Sequence[Notice]]:
        """Some notices that are due, and whether they are all for now.

        Of one user's watchers one gathers at a time: a crowd that is rung at once must not keep those waiting whom
        it watches, and while one waits for its turn, what it is to be told gathers into less.
        """
        due: list[Notice] = []
        async with self.service.turns.of(self.caller, "watch"):
            count = load = 0
            while count < BATCH and load < LOAD:
                notice = await anext(notices)
                if notice is None:
                    return True, due
                due.append(notice)
                count += 1 + len(notice.lines)
                load += notice.load(self.service.registry.feed)
        return False, due

    def _places(self) -> Sequence[tuple[str, str]]:
        if self.ids is not None:
            return [places.one(id) for id in self.ids]
        return [places.seen(self.caller)]

    def _wants(self, task: Task) -> bool:
        return (self.ids is None or task.id in self.ids) and self.service.sees(self.caller, task)

    async def _notices(self) -> AsyncGenerator[Notice | None]:
        """What to tell, one after the other, each state after the log lines before it; None when that is all."""
        async with aclosing(self._states()) as states:
            async for state in states:
                if state is None or state.task is None or not self.log:
                    yield state
                    continue
                while lines := await self._lines(state.task.id, gone=state.kind is Kind.DESTROYED):
                    yield Notice(Kind.LOG, state.revision, state.task, lines)
                yield state
                if state.kind is Kind.DESTROYED:
                    self._forget(state.task.id)
                elif not state.task.open:
                    self._remember(state.task.id)

    async def _lines(self, id: str, *, gone: bool) -> Sequence[LogLine]:
        """The next log lines of a task that were not told yet."""
        start = self._told.get(id, 0)
        if gone:
            lines = self.service.registry.logs.last(id, start, self._stood, PAGE)
        else:
            lines = await gate.lines(self.service, self.caller, id, start, PAGE)
        if lines:
            self._told[id] = lines[-1].n + 1
        return lines

    def _remember(self, id: str) -> None:
        """It has ended, but may be told of again: looked at once more, in a resync, or when it is recovered."""
        if id in self._told:
            self._over.pop(id, None)
            self._over[id] = None
        while len(self._over) > ENDINGS:
            self._forget(next(iter(self._over)))

    def _forget(self, id: str) -> None:
        self._over.pop(id, None)
        self._told.pop(id, None)

    async def _states(self) -> AsyncGenerator[Notice | None]:
        feed, fresh, resumed = self.service.registry.feed, self._fresh, not self._fresh
        while True:
            if fresh or not feed.covers(self.revision):
                if not fresh:
                    yield Notice(Kind.RESYNC, feed.revision)
                async with aclosing(self._snapshot(None if fresh else self.revision)) as snapshot:
                    async for state in snapshot:
                        yield state
                fresh = resumed = False
                continue
            self._stood, self.revision = self.revision, feed.revision
            async with aclosing(self._changes()) as changes:
                async for notice in changes:
                    yield notice
            if self.revision == self._stood < feed.revision:
                continue  # it lagged so far behind that they were forgotten meanwhile
            self._shown.clear()
            if resumed:
                yield Notice(Kind.SYNCED, self.revision)
                resumed = False
            yield None

    async def _changes(self) -> AsyncGenerator[Notice]:
        """The changes up to where the watch stands; where they are forgotten meanwhile, stand back.

        Only the ids wait: the snapshots are the feed's, which bounds them.
        """
        feed = self.service.registry.feed
        for id in [change.task.id for change in feed.since(self._stood)]:
            change = feed.newest(id)
            if change is None:
                self.revision = self._stood
                return
            overtaken = change.revision > self.revision
            shown = self._shown.get(id, 0) >= change.revision
            if not (overtaken or shown) and self._wants(change.task):
                yield Notice(Kind.DESTROYED if change.gone else Kind.CHANGED, change.revision, change.task)

    async def _snapshot(self, since: int | None) -> AsyncGenerator[Notice]:
        """What there is, and what has ended since; then stand at the revision that this began at."""
        # The first begins where the reply to the watcher says: what is destroyed since then is told.
        start = self.revision if since is None else self.service.registry.feed.revision
        async with aclosing(self._tasks(since)) as tasks:
            async for task in tasks:
                if task.revision > start:
                    self._shown[task.id] = task.revision
                yield Notice(Kind.SNAPSHOT, task.revision, task)
        # Of the ends that the feed has forgotten there is no other word.
        for id in [id for id in self._told if id not in self._over and self.service.registry.get(id) is None]:
            self._remember(id)
        self.revision = start
        yield Notice(Kind.SYNCED, start)

    async def _tasks(self, since: int | None) -> AsyncGenerator[Task]:
        registry, service = self.service.registry, self.service
        if self.ids is not None:
            for id in self.ids:
                task = await service.newest(id)
                if task is not None and self._wants(task):
                    yield task
            return
        after: int | None = 0
        while since is not None and after is not None:
            page, after = await self._ended(since, after)
            for each in page:
                task = await service.newest(each) if isinstance(each, str) else each
                if task is not None and task.state.ended and self._wants(task):
                    yield task
        for id in [live.task.id for live in registry]:
            live = registry.get(id)
            if live is not None and live.task.revision and not live.task.state.ended and self._wants(live.task):
                yield live.task

    async def _ended(self, since: int, after: int) -> tuple[Sequence[Task | str], int | None]:
        """Some tasks, or their ids, among which are those that have ended since; and where to go on, if at all."""
        owner = None if access.may_produce_for_others(self.caller) else self.caller.user
        query = Query(states=ENDED, since=since, owner=owner, newest_first=False, after=after, limit=PAGE)
        async with self.service.turns.of(self.caller, "read"):
            page = await self.service.store.list(query)
        found: list[Task | str] = []
        for each in page:
            # One that is alive is being recovered: the store need not have its newest snapshot.
            alive = self.service.registry.get(each.id) is not None
            found.append(each.id if alive or weigh(each) >= LIGHT else each)
            await trio.lowlevel.checkpoint()  # a whole page of heavy ones would keep everybody waiting
        return found, page[-1].seq if len(page) == PAGE else None


async def begin(
    service: Service,
    caller: Caller,
    ids: Sequence[str] | None = None,
    since: int | None = None,
    *,
    log: bool = False,
    log_from: Mapping[str, int] | None = None,
) -> Watch:
    """A watch that stands at ``since``, or now; it is to be run.

    ``log_from`` are the numbers, by task, of the first lines that are wanted; of other tasks all are.

    Raises:
        BadParams: too many ids, or none.
        DoesNotExist: one of the tasks is not there, or not the caller's; a task that was destroyed since
            ``since`` is told of as destroyed instead, as long as the feed knows it.
    """
    feed = service.registry.feed
    revision = feed.revision if since is None else since
    if ids is not None and not 0 < len(ids) <= MOST:
        raise BadParams("params.ids", f"must name from 1 to {MOST} tasks")
    for id in ids or ():
        change = feed.newest(id) if since is not None else None
        if change is None or not (change.gone and service.sees(caller, change.task)):
            await service.get(caller, id)
    return Watch(
        service,
        caller,
        None if ids is None else frozenset(ids),
        revision,
        log,
        dict(log_from or {}),
        since is None,
    )
