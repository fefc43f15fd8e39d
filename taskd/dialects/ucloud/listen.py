"""``task.listen``: the updates of the caller's own tasks, as they are posted.

A ``TaskUpdate`` is a difference: a title, a status and a progress replace those of before, speeds and messages are
added to them, ``complete`` ends it (SDU-eScience/UCloud at c3734fa87c, frontend-web, BackgroundTask.tsx: that fold
is the only definition there is). So of whoever keeps up each post is one update, in order, word for word, an empty
one too; one that lags gets several in one; and who comes late gets what was posted before in a first one, which
V1 did not store. A task that was only just made gives none: its title is in the list.

Of what taskd runs itself there are no posts: what changes is told, and what looks the same is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import TypeAlias

from taskd.dialects.ucloud import models
from taskd.dialects.ucloud.follow import Follower, ListenRequest, Step, reported, run_here
from taskd.dialects.ucloud.messages import Messages
from taskd.model import JSON, Caller, Speed
from taskd.service import Service, of


def listen(service: Service, caller: Caller, payload: JSON) -> AsyncGenerator[Mapping[str, JSON], None]:
    """Updates, without an end; what is posted after this has returned is in them.

    With ``since`` in the payload each has a ``rev``: whoever has seen one has seen all up to that revision, and
    can go on from there; of the speeds some may then come again. One marked ``resync`` replaces what was known of
    its task. It is to be closed (``aclose``); a cancel ends it.

    Raises:
        PermissionDenied: the caller may not listen.
        InvalidRequest: of the payload.
    """
    service.allow(caller, "Tasks.listen")
    return updates(service, caller, models.read(payload, ListenRequest))


def updates(service: Service, caller: Caller, said: ListenRequest) -> AsyncGenerator[Mapping[str, JSON], None]:
    """``listen``, with the payload read and the caller allowed."""
    return _updates(Follower.begin(service, caller, said.since), numbered=said.since is not None)


Updates: TypeAlias = AsyncGenerator[dict[str, JSON], None]


async def _updates(follower: Follower, *, numbered: bool) -> AsyncGenerator[Mapping[str, JSON], None]:
    with follower.service.registry.feed.bell(of(follower.caller.user)) as bell:
        steps, follower.first = deque(follower.first), ()
        seen = follower.since
        batch = _whole(follower, steps) if follower.fresh else _moments(follower, steps, seen, numbered)
        while True:
            for updates in (_ends(follower, seen), batch):
                async with aclosing(updates):
                    async for update in updates:
                        if not numbered:
                            update.pop("resync", None)
                            del update["rev"]
                        yield update
                        del update  # nothing that was told is kept while the next is waited for
            seen = follower.position
            batch = _moments(follower, deque(await follower.more(bell.wait)), seen, numbered)


async def _ends(follower: Follower, seen: int) -> Updates:
    """What has ended in a gap. Everything up to ``seen`` was told before, and not more."""
    async with aclosing(follower.ends()) as ends:
        async for step in ends:
            yield {**await _all(follower, step), "rev": seen}


async def _whole(follower: Follower, steps: deque[Step]) -> Updates:
    """What there is, each task as it is now. Only with the last everything up to now is told."""
    while steps:
        told = await _all(follower, steps.popleft())
        yield {**told, "rev": follower.since if steps else follower.position}


async def _all(follower: Follower, step: Step) -> dict[str, JSON]:
    said = await Messages(follower.service, follower.caller, step).all(step.revision)
    update = _update(step, said)
    assert update is not None
    step.known.task, step.known.whole = step.task, False
    return {**update, "resync": True}


async def _moments(follower: Follower, steps: deque[Step], seen: int, numbered: bool) -> Updates:
    """The steps from the revision ``seen`` on.

    Where a frame's revision is asked for, all that came before it is told before it: then the messages of one
    that has lagged come in the order in which they were posted, of all tasks.
    """
    moments = deque(_order(follower, steps, seen) if numbered else [(step.revision, step) for step in steps])
    steps.clear()
    while moments:
        revision, step = moments.popleft()
        if numbered and step.known.whole:
            step.known.task, step.known.line = None, 0
        messages = Messages(follower.service, follower.caller, step)
        mark: dict[str, JSON] = {"resync": True} if step.known.whole else {}
        said = await (messages.all(revision) if step.known.whole else messages.some(revision))
        step.known.whole = False
        while messages.more:
            seen = max(seen, messages.reached)
            yield {**_unchanged(step.task.id), "messageToAppend": said, **mark, "rev": seen}
            mark = {}
            said = await messages.some(revision)
        seen = max(seen, revision)
        if revision == step.revision:
            update = _update(step, said)
            step.known.task = step.task
        else:
            update = None if said is None else {**_unchanged(step.task.id), "messageToAppend": said}
        if update is not None or mark:
            yield {**(update or _unchanged(step.task.id)), **mark, "rev": seen}


def _order(follower: Follower, steps: Iterable[Step], seen: int) -> Iterator[tuple[int, Step]]:
    """When which step is to be told, up to which revision: whatever has messages before another's revision, before
    that too.
    """
    logs, all_of_them = follower.service.registry.logs, []
    for step in steps:
        kept = logs.kept(step.task.id, max(step.known.line, logs.begin(step.task.id) or 0), step.revision) or ()
        revisions = {each.revision for each in kept if each.revision > seen}
        all_of_them += [(revision, step) for revision in {*revisions, step.revision}]
    all_of_them.sort(key=lambda moment: moment[0])
    for moment, following in pairwise([*all_of_them, None]):
        assert moment is not None
        if following is None or following[1] is not moment[1]:
            yield moment


def _unchanged(id: str) -> dict[str, JSON]:
    return {
        "jobId": id,
        "newTitle": None,
        "speeds": [],
        "progress": None,
        "complete": False,
        "messageToAppend": None,
        "newStatus": None,
    }


def _update(step: Step, said: str | None) -> dict[str, JSON] | None:
    """What is new in a step, with the messages in it; None where there is nothing to tell."""
    before, after = step.known.task, step.task
    nothing = _unchanged(after.id)
    update = {**nothing, "complete": step.ended, "messageToAppend": said}
    if before is None or after.label != before.label:
        update["newTitle"] = after.label
    if before is None or models.status(after) != models.status(before):
        update["newStatus"] = models.status(after)
    progress = models.progress_of(after.progress)
    if before is None or progress != models.progress_of(before.progress):
        update["progress"] = progress
    new = after.speeds if before is None else _added(before.speeds, after.speeds)
    update["speeds"] = [models.speed_of(speed) for speed in new]
    if update == nothing and before is not None and (run_here(after) or not reported(before, after)):
        return None
    return update


def _added(before: Sequence[Speed], after: Sequence[Speed]) -> Sequence[Speed]:
    """The speeds of ``after`` that were added: the newest of those before are its first.

    An equal one may have been added again, so it is to be the same one; but of what comes from the store none is.
    """
    same = set(map(id, before))
    if any(id(speed) in same for speed in after):
        return [speed for speed in after if id(speed) not in same]
    shared = next(n for n in range(min(len(before), len(after)), -1, -1) if before[len(before) - n :] == after[:n])
    return after[shared:]
