"""What happens to one user's own tasks, in order, from a moment on: the part that both generations share.

The law (R8 of law L8): first the place in the feed is taken, then the tasks are looked at, with no await between,
so that nothing falls into a gap. Each step goes from what the listener knows of a task to what it is now. One that
keeps up gets a step per change; one that lags gets the newest of each task, and between two of them nothing is
missing but the way there. A listener costs no queue: it has a place in the feed, and of each task that has not
ended the snapshot it knows.

Steps come in the order of revisions, the end of a task at the one that it ended with, however often the task was
looked at or destroyed since. So whoever has seen the step of one, and of all tasks the log up to it, has seen all
before it, and can begin there again (``since``). How much of a log a revision stands for can be told from memory
only. Where it cannot, the next step of that task is ``whole``: the task from its beginning, to replace what is
known of it. Where the feed does not go back so far, what has ended in the gap, and was not known, comes first,
each whole, with the revision that the gap begins at.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import attrs
import trio

from taskd.dialects.ucloud.parts import one_frame
from taskd.errors import DoesNotExist, StoreError
from taskd.model import JSON, Caller, Task
from taskd.service import PROCESSOR, Change, Live, Query, Service
from taskd.states import ENDED

T = TypeVar("T")

# Tasks that are fetched at a time.
PAGE: Final = 250

# Seconds until a store that could not tell is asked again.
AGAIN: Final = 1.0


def _not_negative(_: object, field: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None and value < 0:
        raise ValueError(f"{field.name} must not be negative")


@attrs.frozen
class ListenRequest:
    since: int | None = attrs.field(
        default=None,
        validator=_not_negative,
        metadata={"doc": "a rev of before: go on from there; 0: from the start, with a rev in each"},
    )


@attrs.define(eq=False)
class Known:
    """What a listener knows of a task: ``task`` as it was told, None before that, and its log up to ``line``;
    ``whole``: nobody knows what it knows.
    """

    live: Live | None
    task: Task | None = None
    line: int = 0
    whole: bool = False


@attrs.frozen(eq=False)
class Step:
    """From what is ``known`` to ``task``, which it is at ``revision``."""

    known: Known
    task: Task
    revision: int
    ended: bool


@attrs.frozen
class Gap:
    """From a revision on the feed cannot tell what has happened; of ``besides`` there are steps all the same."""

    since: int
    besides: Collection[str] = ()


@attrs.define(eq=False)
class Follower:
    """Follows the own tasks of ``caller`` from ``position`` on.

    What is to be told before ``more`` is asked for: ``ends``, and then ``first``, each whole where ``fresh``; else
    they are the steps since ``since``. Then again and again ``ends``, and the steps that ``more`` has given.
    """

    service: Service
    caller: Caller
    since: int
    position: int
    fresh: bool
    first: Sequence[Step] = ()
    known: dict[str, Known] = attrs.field(factory=dict)
    gap: Gap | None = None

    @classmethod
    def begin(cls, service: Service, caller: Caller, since: int | None) -> Follower:
        """Take the place in the feed: what happens from now on is not missed.

        The first steps are what has happened since that revision, where the feed still covers it; else one for
        each unfinished task that something has happened to since it was made.
        """
        feed, since = service.registry.feed, since or 0
        self = cls(service, caller, since, feed.revision, fresh=not (since and feed.covers(since)))
        if self.fresh and since:
            self.gap = Gap(since)
        for live in service.registry.of(caller.user):
            if not live.task.state.ended:
                self.known[live.task.id] = Known(live, live.task)
        self.first = self._begun() if self.fresh else self._resumed()
        return self

    def _begun(self) -> Sequence[Step]:
        steps = []
        for known in self.known.values():
            task = known.task
            assert task is not None
            if task.modified_at is not None or task.progress.moved_at is not None:
                known.task, known.whole = None, True
                steps.append(Step(known, task, task.revision, ended=False))
        return sorted(steps, key=_revision)

    def _resumed(self) -> Sequence[Step]:
        for known in self.known.values():
            self._stand(known)
        steps = []
        for change in self._own(self.since):
            id, over = change.task.id, _over(change)
            if over and _when(change) <= self.since:
                continue  # its end was told
            known = self.known.get(id) or Known(self.service.registry.get(id), change.task)
            if over:
                self._stand(known)
            known.task = None
            steps.append(Step(known, change.task, _when(change), over))
        return sorted(steps, key=_revision)

    def _stand(self, known: Known) -> None:
        """Up to which line of a log somebody was told who has seen the revision ``since``."""
        assert known.task is not None
        logs, id = self.service.registry.logs, known.task.id
        line = logs.first_after(id, self.since)
        if line is None:
            known.whole = known.live is None or known.live.log_kept > 0
        elif one_frame(logs.kept(id, line) or ()):
            known.line = line
        else:
            known.whole = True

    async def ends(self) -> AsyncGenerator[Step, None]:
        """What has ended in the gap, if there is one, and is still there."""
        gap, self.gap = self.gap, None
        if gap is None:
            return
        query = Query(owner=self.caller.user, states=ENDED, since=gap.since, newest_first=False, limit=PAGE)
        while True:
            page = await _surely(partial(self.service.list, self.caller, query))
            for task in page:
                # What ended after the gap is told as it comes.
                past = task.state.ended and task.revision <= self.position
                if past and task.id not in self.known and task.id not in gap.besides:
                    yield Step(Known(None, whole=True), task, task.revision, ended=True)
            if len(page) < PAGE:
                return
            query = attrs.evolve(query, after=page[-1].seq)

    def _own(self, revision: int) -> Sequence[Change]:
        changes = self.service.registry.feed.since(revision)
        return [change for change in changes if change.task.owner == self.caller.user]

    async def more(self, wait: Callable[[], Awaitable[None]]) -> Sequence[Step]:
        """The next steps, at least one, but where there is a gap; ``wait`` returns when there may be some. After a
        cancel it is not to be called again.
        """
        feed = self.service.registry.feed
        while True:
            start, self.position = self.position, feed.revision
            if feed.covers(start):
                found = [self._step(change, start) for change in self._own(start)]
                steps: Sequence[Step] = sorted((step for step in found if step is not None), key=_revision)
            else:
                steps = await self._afresh(start)
            if steps or self.gap is not None:
                return steps
            await wait()

    def _step(self, change: Change, start: int) -> Step | None:
        id, over = change.task.id, _over(change)
        known = self.known.get(id)
        if known is None:
            if over and change.born <= start:
                return None  # it had ended before, and was looked at, or recovered, or destroyed
            known = self.known[id] = Known(self.service.registry.get(id))
        if over:
            del self.known[id]
        return Step(known, change.task, _when(change), over)

    async def _afresh(self, start: int) -> Sequence[Step]:
        """More has happened since ``start`` than the feed keeps: the steps to what the tasks are now."""
        steps, position = [], self.position
        alive = {live.task.id: live for live in self.service.registry.of(self.caller.user)}
        alive = {id: live for id, live in alive.items() if not live.task.state.ended}
        vanished = {id: known for id, known in self.known.items() if id not in alive}
        self.gap = Gap(start, frozenset(vanished))
        for id, live in alive.items():
            known = self.known.setdefault(id, Known(live))
            if known.task is None or known.task.revision < live.task.revision:
                steps.append(Step(known, live.task, live.task.revision, ended=False))
        for id, known in vanished.items():
            del self.known[id]
            task = await self._newest(id)
            ended = task is not None and task.state.ended
            if task is None:
                assert known.task is not None
                task = known.task
            steps.append(Step(known, task, min(task.revision, position) if ended else position, ended=True))
        return sorted(steps, key=_revision)

    async def _newest(self, id: str) -> Task | None:
        """None where it is destroyed."""
        try:
            return await _surely(partial(self.service.get, self.caller, id))
        except DoesNotExist:
            return None


async def _surely(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of the store. While it cannot tell, nobody can."""
    while True:
        try:
            return await ask()
        except StoreError:
            await trio.sleep(AGAIN)


def _revision(step: Step) -> int:
    return step.revision


def _over(change: Change) -> bool:
    return change.gone or change.task.state.ended


def _when(change: Change) -> int:
    """The revision that a listener is told it with: its end with the one that it ended with."""
    return change.task.revision if change.task.state.ended else change.revision


def run_here(task: Task) -> bool:
    """taskd itself runs it, so a change of it need not be somebody's word."""
    return task.processor == PROCESSOR


def reported(before: Task, after: Task) -> bool:
    """The producer has said something in between, be it nothing: what else is written changes one of these."""
    return after.modified_at != before.modified_at and _asked(before) == _asked(after)


def _asked(task: Task) -> Mapping[str, JSON]:
    notes = {name: note for name, note in task.annotations.items() if not name.startswith("ucloud.")}
    return {"cancel": task.cancel_requested, "destroy": task.destroy_on_finish, "notes": notes}
