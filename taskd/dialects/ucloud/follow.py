"""What happens to one user's own tasks, in order, from a moment on: the part that both generations share.

The law (R8 of law L8): first the place in the feed is taken, then the tasks are looked at, with no await between,
so that nothing falls into a gap. Each step goes from what the listener knows of a task to what it is now. One that
keeps up gets a step per change; one that lags gets the newest of each task, and between two of them nothing is
missing but the way there. A listener costs no queue: it has a place in the feed, and of each task that has not
ended the snapshot it knows.

Steps come in the order of revisions, so whoever has seen the step of one has seen all before it, and can begin
there again (``since``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs

from taskd.errors import DoesNotExist
from taskd.model import JSON, Caller, Task
from taskd.service import PROCESSOR, Change, Live, Service


@attrs.frozen
class ListenRequest:
    since: int | None = attrs.field(
        default=None, metadata={"doc": "a rev of before: go on from there; 0: from the start, with a rev in each"}
    )


@attrs.define(eq=False)
class Known:
    """What a listener knows of a task: ``task`` as it was told, None before that, and its log up to ``line``."""

    live: Live | None
    task: Task | None = None
    line: int = 0


@attrs.frozen(eq=False)
class Step:
    """From what is ``known`` to ``task``, which it is at ``revision``; ``whole``: told for the first time although
    it was there before, so with all that has happened to it until then.
    """

    known: Known
    task: Task
    revision: int
    ended: bool
    whole: bool = False


@attrs.define(eq=False)
class Follower:
    """Follows the own tasks of ``caller``. ``first`` are the steps to tell before ``more`` is asked for."""

    service: Service
    caller: Caller
    position: int
    first: Sequence[Step] = ()
    known: dict[str, Known] = attrs.field(factory=dict)

    @classmethod
    def begin(cls, service: Service, caller: Caller, since: int | None) -> Follower:
        """Take the place in the feed: what happens from now on is not missed.

        The first steps are what has happened since that revision, where the feed still covers it; else one for
        each unfinished task that something has happened to since it was made.
        """
        feed = service.registry.feed
        self = cls(service, caller, feed.revision)
        for live in service.registry.of(caller.user):
            if not live.task.state.ended:
                self.known[live.task.id] = Known(live, live.task)
        if since and feed.covers(since):
            self.first = self._resumed(since)
        else:
            self.first = self._begun()
        return self

    def _begun(self) -> Sequence[Step]:
        steps = []
        for known in self.known.values():
            task = known.task
            assert task is not None
            if task.modified_at is not None or task.progress.moved_at is not None:
                known.task = None
                steps.append(Step(known, task, task.revision, ended=False, whole=True))
        return sorted(steps, key=_revision)

    def _resumed(self, since: int) -> Sequence[Step]:
        logs = self.service.registry.logs
        for id, known in self.known.items():
            assert known.live is not None
            line = logs.first_after(id, since)
            known.line = known.live.log_kept if line is None else line
        steps = []
        for change in self._own(since):
            id, over = change.task.id, _over(change)
            if over and change.task.revision <= since:
                continue  # it had ended before
            known = self.known.get(id) or Known(self.service.registry.get(id))
            known.task, known.line = None, logs.first_after(id, since) or 0
            steps.append(Step(known, change.task, change.revision, over, whole=True))
        return steps

    def _own(self, revision: int) -> Sequence[Change]:
        changes = self.service.registry.feed.since(revision)
        return [change for change in changes if change.task.owner == self.caller.user]

    async def more(self, wait: Callable[[], Awaitable[None]]) -> Sequence[Step]:
        """The next steps, at least one; ``wait`` returns when there may be some. After a cancel it is not to be
        called again.
        """
        feed = self.service.registry.feed
        while True:
            start, self.position = self.position, feed.revision
            if feed.covers(start):
                found = [self._step(change, start) for change in self._own(start)]
                steps: Sequence[Step] = [step for step in found if step is not None]
            else:
                steps = await self._afresh()
            if steps:
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
        return Step(known, change.task, change.revision, over)

    async def _afresh(self) -> Sequence[Step]:
        """More has happened than the feed keeps: the steps to what the tasks are now."""
        steps, position = [], self.position
        alive = {live.task.id: live for live in self.service.registry.of(self.caller.user)}
        alive = {id: live for id, live in alive.items() if not live.task.state.ended}
        vanished = {id: known for id, known in self.known.items() if id not in alive}
        for id, live in alive.items():
            known = self.known.setdefault(id, Known(live))
            if known.task is None or known.task.revision < live.task.revision:
                steps.append(Step(known, live.task, live.task.revision, ended=False))
        for id, known in vanished.items():
            del self.known[id]
            try:
                task = await self.service.get(self.caller, id)
            except DoesNotExist:
                assert known.task is not None
                task = known.task
            steps.append(Step(known, task, position, ended=True))
        return sorted(steps, key=_revision)


def _revision(step: Step) -> int:
    return step.revision


def _over(change: Change) -> bool:
    return change.gone or change.task.state.ended


def run_here(task: Task) -> bool:
    """taskd itself runs it, so a change of it need not be somebody's word."""
    return task.processor == PROCESSOR


def reported(before: Task, after: Task) -> bool:
    """The producer has said something in between, be it nothing: what else is written changes one of these."""
    return after.modified_at != before.modified_at and _asked(before) == _asked(after)


def _asked(task: Task) -> Mapping[str, JSON]:
    notes = {name: note for name, note in task.annotations.items() if not name.startswith("ucloud.")}
    return {"cancel": task.cancel_requested, "destroy": task.destroy_on_finish, "notes": notes}
