"""Watching tasks without losing anything: a coroutine that walks the feed at its reader's pace (law L8).

The law of what a watcher is told:

- First comes what there is: every task that has not ended (or each that is asked about, in any state), as
  SNAPSHOT, then SYNCED. Then each change as CHANGED or DESTROYED, in the order of revisions. A watcher that lags
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
PAGE: Final = 500


# Notices that are told at a time.
BATCH: Final = 100

# Seconds after changes were told in which more of them gather: what moves faster is told twenty times a second.
CALM: Final = 0.05

# A crowd of watchers must leave time for those whom they watch: each rests so many times as long as its telling
# took, at most RESTED seconds, so that what they tell gathers and they all together tell less.
REST: Final = 3.0
RESTED: Final = 1.0


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
    _due: list[Notice] = attrs.field(factory=list)
    # Tasks that the snapshot showed later than it began, until their changes have been passed.
    _shown: dict[str, int] = attrs.field(factory=dict)

    async def run(self, tell: Tell) -> None:
        """Tell what there is to tell, for ever, as fast as ``tell`` takes it. A cancel disturbs nobody."""
        feed = self.service.registry.feed
        with feed.bell(*self._places()) as bell:
            if self._fresh:
                await self._snapshot(None, tell)
            while True:
                if not feed.covers(self.revision):
                    await self._say(Notice(Kind.RESYNC, feed.revision), tell)
                    await self._snapshot(self.revision, tell)
                    continue
                began = trio.current_time()
                changes, self.revision = feed.since(self.revision), feed.revision
                for change in changes:
                    await self._change(change, tell)
                self._shown.clear()
                if self._due:
                    await self._flush(tell)
                    await trio.sleep(min(max(CALM, REST * (trio.current_time() - began)), RESTED))
                if self.revision == feed.revision:
                    await bell.wait()

    async def _say(self, notice: Notice, tell: Tell) -> None:
        self._due.append(notice)
        if len(self._due) >= BATCH:
            await self._flush(tell)

    async def _flush(self, tell: Tell) -> None:
        due, self._due = self._due, []
        await tell(due)

    def _places(self) -> Sequence[tuple[str, str]]:
        if self.ids is not None:
            return [place.one(id) for id in self.ids]
        return [place.EVERYTHING] if access.sees_all(self.caller) else [place.of(self.caller.user)]

    def _wants(self, task: Task) -> bool:
        return (self.ids is None or task.id in self.ids) and self.service.sees(self.caller, task)

    async def _change(self, change: place.Change, tell: Tell) -> None:
        task = change.task
        newest = self.service.registry.feed.newest(task.id)
        overtaken = newest is not None and newest.revision > self.revision
        if overtaken or not self._wants(task) or self._shown.get(task.id, 0) >= change.revision:
            return
        if change.gone:
            self._told.pop(task.id, None)
            await self._say(Notice(Kind.DESTROYED, change.revision, task), tell)
        else:
            await self._task(Kind.CHANGED, change.revision, task, tell)

    async def _task(self, kind: Kind, revision: int, task: Task, tell: Tell) -> None:
        """The log lines of ``task`` that were not told yet, then the task."""
        while self.log:
            lines = await self.service.lines(task.id, self._told.get(task.id, 0), PAGE)
            if not lines:
                break
            self._told[task.id] = lines[-1].n + 1
            await self._say(Notice(Kind.LOG, revision, task, lines), tell)
        await self._say(Notice(kind, revision, task), tell)
        if not task.open:
            self._told.pop(task.id, None)

    async def _snapshot(self, since: int | None, tell: Tell) -> None:
        """What there is, and what has ended since; then stand at the revision that this began at."""
        start = self.service.registry.feed.revision
        async with aclosing(self._tasks(since)) as tasks:
            async for task in tasks:
                if task.revision > start:
                    self._shown[task.id] = task.revision
                await self._task(Kind.SNAPSHOT, task.revision, task, tell)
        self.revision = start
        await self._say(Notice(Kind.SYNCED, start), tell)
        await self._flush(tell)

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
            if not live.task.state.ended and self._wants(live.task):
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
