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
  task's from its number on, from memory or, for one that lags, from the store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from enum import Enum, unique
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio

from taskd import access
from taskd.errors import BadParams
from taskd.model import Caller, LogLine, Task
from taskd.registry import feed as place
from taskd.states import ENDED
from taskd.store import Query

if TYPE_CHECKING:
    from taskd.service import Service

# Tasks that one watch may name.
MOST: Final = 1000

# Tasks, or lines of a log, that are fetched at a time.
PAGE: Final = 250


# Notices, and lines in them, that are told at a time, about.
BATCH: Final = 100

# Seconds after changes were told in which more of them gather: what moves faster is told twenty times a second.
CALM: Final = 0.05


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


Tell: TypeAlias = Callable[[Sequence[Notice]], Awaitable[None]]


@attrs.define(eq=False)
class Watch:
    """A watch of ``caller``: of the tasks ``ids``, or of all that the caller may see.

    ``revision`` is where it stands. ``log`` says that log lines are wanted; ``_told`` is, by task, the number of
    the next one. Access is asked for each task that is told of, each time.
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

    async def run(self, tell: Tell) -> None:
        """Tell what there is to tell, for ever, as fast as ``tell`` takes it. A cancel disturbs nobody."""
        feed = self.service.registry.feed
        with feed.bell(*self._places()) as bell:
            async with aclosing(self._notices()) as notices:
                while True:
                    all_told, due = await self._gather(notices)
                    if due:
                        await tell(due)
                    if all_told and due:
                        await trio.sleep(CALM)
                    if all_told and self.revision == feed.revision:
                        await bell.wait()

    async def _gather(self, notices: AsyncGenerator[Notice | None]) -> tuple[bool, Sequence[Notice]]:
        """Some notices that are due, and whether they are all for now.

        One watcher gathers at a time: a crowd that is rung at once must not keep those waiting whom it watches,
        and while one waits for its turn, what it is to be told gathers into less.
        """
        due: list[Notice] = []
        async with self.service.registry.turn:
            weight = 0
            while weight < BATCH:
                notice = await anext(notices)
                if notice is None:
                    return True, due
                due.append(notice)
                weight += 1 + len(notice.lines)
        return False, due

    def _places(self) -> Sequence[tuple[str, str]]:
        if self.ids is not None:
            return [place.one(id) for id in self.ids]
        return [place.EVERYTHING] if access.sees_all(self.caller) else [place.of(self.caller.user)]

    def _wants(self, task: Task) -> bool:
        return (self.ids is None or task.id in self.ids) and self.service.sees(self.caller, task)

    async def _notices(self) -> AsyncGenerator[Notice | None]:
        """What to tell, one after the other, each state after the log lines before it; None when that is all."""
        async with aclosing(self._states()) as states:
            async for state in states:
                if state is not None and state.task is not None and state.kind is not Kind.DESTROYED:
                    while lines := await self._lines(state.task):
                        yield Notice(Kind.LOG, state.revision, state.task, lines)
                yield state
                if state is not None and state.task is not None and not state.task.open:
                    self._told.pop(state.task.id, None)

    async def _lines(self, task: Task) -> Sequence[LogLine]:
        """The next log lines of a task that were not told yet."""
        if not self.log:
            return ()
        lines = await self.service.lines(task.id, self._told.get(task.id, 0), PAGE)
        if lines:
            self._told[task.id] = lines[-1].n + 1
        return lines

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
            changes, self.revision = feed.since(self.revision), feed.revision
            for change in changes:
                newest = feed.newest(change.task.id)
                overtaken = newest is not None and newest.revision > self.revision
                shown = self._shown.get(change.task.id, 0) >= change.revision
                if not (overtaken or shown) and self._wants(change.task):
                    kind = Kind.DESTROYED if change.gone else Kind.CHANGED
                    yield Notice(kind, change.revision, change.task)
            self._shown.clear()
            if resumed:
                yield Notice(Kind.SYNCED, self.revision)
                resumed = False
            yield None

    async def _snapshot(self, since: int | None) -> AsyncGenerator[Notice]:
        """What there is, and what has ended since; then stand at the revision that this began at."""
        start = self.service.registry.feed.revision
        async with aclosing(self._tasks(since)) as tasks:
            async for task in tasks:
                if task.revision > start:
                    self._shown[task.id] = task.revision
                yield Notice(Kind.SNAPSHOT, task.revision, task)
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
        after = 0
        while since is not None:
            query = Query(states=ENDED, since=since, newest_first=False, after=after, limit=PAGE)
            page = await service.list(self.caller, query)
            for task in page:
                if task.state.ended:
                    yield task
            if len(page) < PAGE:
                break
            after = page[-1].seq
        for live in registry:
            if live.task.revision and not live.task.state.ended and self._wants(live.task):
                yield live.task


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
        feed.revision if since is None else since,
        log,
        dict(log_from or {}),
        since is None,
    )
