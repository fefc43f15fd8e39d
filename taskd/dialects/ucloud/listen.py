"""``task.listen``: the updates of the caller's own tasks, as they are posted.

A ``TaskUpdate`` is a difference: a title, a status and a progress replace those of before, speeds and messages are
added to them, ``complete`` ends it (SDU-eScience/UCloud at c3734fa87c, frontend-web, BackgroundTask.tsx: that fold
is the only definition there is). So of whoever keeps up each post is one update, in order, word for word, an empty
one too; one that lags gets several in one; and who comes late gets what was posted before in a first one, which
V1 did not store. A task that was only just made gives none: its title is in the list.

Of what taskd runs itself there are no posts: what changes is told, and what looks the same is not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

import attrs

from taskd.dialects.ucloud import models
from taskd.dialects.ucloud.follow import Follower, ListenRequest, Step, reported, run_here
from taskd.errors import DoesNotExist
from taskd.model import JSON, Caller, LogLine
from taskd.service import Service, of

# The most lines of a log in one update; the rest is in those before it.
LINES: Final = 1000

# The most characters of what was posted before somebody came; CUT is in front where it was more.
TAIL: Final = 65536
CUT: Final = "[…]\n"


def listen(service: Service, caller: Caller, payload: JSON) -> AsyncGenerator[Mapping[str, JSON], None]:
    """Updates, without an end; what is posted after this has returned is in them.

    With ``since`` in the payload each has a ``rev``: whoever has seen one has seen all up to that revision, and
    can go on from there; of the speeds some may then come again. It is to be closed (``aclose``); a cancel ends
    it.

    Raises:
        PermissionDenied: the caller may not listen.
        InvalidRequest: of the payload.
    """
    service.allow(caller, "Tasks.listen")
    return updates(service, caller, models.read(payload, ListenRequest))


def updates(service: Service, caller: Caller, said: ListenRequest) -> AsyncGenerator[Mapping[str, JSON], None]:
    """``listen``, with the payload read and the caller allowed."""
    return _updates(Follower.begin(service, caller, said.since), numbered=said.since is not None)


async def _updates(follower: Follower, *, numbered: bool) -> AsyncGenerator[Mapping[str, JSON], None]:
    with follower.service.registry.feed.bell(of(follower.caller.user)) as bell:
        seen, steps, follower.first = follower.position, follower.first, ()
        while True:
            for step in steps:
                messages = Messages(follower.service, follower.caller, step)
                said = await (messages.all() if step.whole else messages.some())
                while messages.more:
                    part = {**_unchanged(step.task.id), "messageToAppend": said}
                    yield {**part, "rev": seen} if numbered else part
                    said = await messages.some()
                update = _update(step, said)
                step.known.task, seen = step.task, step.revision
                if update is not None:
                    yield {**update, "rev": seen} if numbered else update
            steps = await follower.more(bell.wait)


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


def _update(step: Step, said: str | None) -> Mapping[str, JSON] | None:
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
    told = set(map(id, () if before is None else before.speeds))
    update["speeds"] = [models.speed_of(speed) for speed in after.speeds if id(speed) not in told]
    if update == nothing and before is not None and (run_here(after) or not reported(before, after)):
        return None
    return update


@attrs.define(eq=False)
class Messages:
    """The messages of one step: the log from where the listener stands, up to the step's revision.

    Beyond what is in memory only the store can tell, and it knows no revisions: there may be some of the next step
    already. None is told twice.
    """

    service: Service
    caller: Caller
    step: Step
    more: bool = True

    async def some(self) -> str | None:
        """The next, as one text, None where there are none; ``more`` says whether others follow."""
        lines, cut = await self._lines()
        self.more = len(lines) > LINES
        said = self._take(lines)
        return CUT + (said or "") if cut else said

    async def all(self) -> str | None:
        """All there are, of which the end if they are long, as one text."""
        told, any_cut, found = "", False, False
        while self.more:
            lines, cut = await self._lines()
            self.more = len(lines) > LINES
            told += self._take(lines) or ""
            found, any_cut = found or bool(lines), any_cut or cut or len(told) > TAIL
            told = told[-TAIL:]
        return (CUT if any_cut else "") + told if found else None

    def _take(self, lines: Sequence[LogLine]) -> str | None:
        taken = lines[:LINES]
        if not taken:
            return None
        self.step.known.line = taken[-1].n + 1
        return "".join(line.line for line in taken)

    async def _lines(self) -> tuple[Sequence[LogLine], bool]:
        """At least the next LINES and one, where there are as many; and whether some before them are gone."""
        known, id = self.step.known, self.step.task.id
        if known.live is not None and known.live.log_kept <= known.line:
            return (), False
        kept = self.service.registry.logs.after(id, known.line, self.step.revision)
        if kept is not None:
            return kept, False
        try:
            lines = await self.service.log(self.caller, id, known.line, LINES + 1)
            if not lines or lines[0].n == known.line:
                return lines, False
            oldest = await self.service.log(self.caller, id, 0, 1)
        except DoesNotExist:
            return (), False
        return lines, bool(oldest) and oldest[0].n > known.line  # else the store has lost those between
