"""The second generation (V2): ``tasks.create browse retrieve postStatus markAsComplete pauseOrCancel listen``.

The same tasks, by number (``seq``), as a ``BackgroundTask``: its title is our label, its body our status, and what
we have no place for (the text of the progress, the percentage and the state as they were told, the icon, whether
it can be cancelled) is in its notes, under ``ucloud.``. Null leaves what was told before (SDU-eScience/UCloud,
provider-integration/shared/pkg/foundation/tasks.go; its Kotlin predecessor says ``coalesce``).

A cancel is a request: the producer sees it and reports how the task ended. Who reports FAILURE has failed, asked
or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Final, Literal

import attrs

from taskd import codec
from taskd.dialects import Reply
from taskd.dialects.ucloud import models, tasks
from taskd.dialects.ucloud.follow import Follower, ListenRequest, Step, reported, run_here
from taskd.dialects.ucloud.roles import hidden, owned, produced, related
from taskd.errors import BadParams
from taskd.model import JSON, Caller, Failure, Task
from taskd.service import End, Query, Report, Service, of
from taskd.states import State

# The names of our notes.
STATE: Final = "ucloud.state"
PROGRESS: Final = "ucloud.progress"
PERCENTAGE: Final = "ucloud.progressPercentage"
ICON: Final = "ucloud.icon"
CAN_CANCEL: Final = "ucloud.canCancel"

# Of a percentage: nobody knows.
INDETERMINATE: Final = -1.0

# What a producer may tell of a task that has not ended.
_UNDER_WAY: Final = frozenset({"IN_QUEUE", "SUSPENDED", "RUNNING"})
_ENDED: Final = {State.COMPLETED: "SUCCESS", State.FAILED: "FAILURE", State.CANCELLED: "CANCELLED"}

# The longest page, and the one where none is asked for (V3, core.go).
LONGEST_PAGE: Final = 1000

# Bytes of JSON after which a page ends early: a task's progress is as long as a note may be.
PAGE_BYTES: Final = 1024 * 1024


# What comes in.


@attrs.frozen
class CreateRequest:
    user: str
    title: str = "Background task"
    body: str | None = None
    progress: str = "Accepted"
    can_pause: bool = attrs.field(default=False, metadata={"json": "canPause"})
    can_cancel: bool = attrs.field(default=False, metadata={"json": "canCancel"})
    icon: str | None = None


TaskState = Literal["IN_QUEUE", "SUSPENDED", "RUNNING", "CANCELLED", "FAILURE", "SUCCESS"]


@attrs.frozen
class Status:
    state: TaskState | None = None
    title: str | None = None
    body: str | None = None
    progress: str | None = None
    percentage: float | None = attrs.field(default=None, metadata={"json": "progressPercentage"})


@attrs.frozen
class Update:
    id: int = attrs.field(metadata={"json": "taskId"})
    status: Status = attrs.field(metadata={"json": "newStatus"})


@attrs.frozen
class PostStatusRequest:
    update: Update


@attrs.frozen
class FindByLongId:
    id: int


@attrs.frozen
class BrowseRequest:
    items_per_page: int | None = attrs.field(default=None, metadata={"json": "itemsPerPage"})
    next: str | None = None


@attrs.frozen
class PauseOrCancelRequest:
    id: int
    state: TaskState = attrs.field(metadata={"json": "requestedState"})


# What goes out.


def task_of(task: Task) -> dict[str, JSON]:
    """``BackgroundTask``."""
    failure = task.error.message if task.state is State.FAILED and task.error else None
    return {
        "taskId": task.seq,
        "createdAt": models.ms(task.created_at),
        "modifiedAt": models.ms(task.modified),
        "createdBy": task.owner,
        "provider": task.processor,
        "status": {
            "state": state_of(task),
            "title": task.label,
            "body": failure if task.status is None else task.status,
            "progress": _progress(task),
            "progressPercentage": _percentage(task),
        },
        # Nobody can be asked to pause.
        "specification": {"canPause": False, "canCancel": _can_cancel(task)},
        "icon": task.annotations.get(ICON),
    }


def state_of(task: Task) -> str:
    if task.state.ended:
        return _ENDED[task.state]
    if run_here(task):
        return "IN_QUEUE" if task.state is State.QUEUED else "RUNNING"
    told = task.annotations.get(STATE)
    if told in _UNDER_WAY:
        return told
    return "IN_QUEUE" if task.modified_at is None else "RUNNING"


def _progress(task: Task) -> str | None:
    told, counted = task.annotations.get(PROGRESS), models.progress_of(task.progress)
    if told is not None or counted is None:
        return told
    return f"{counted['current']} of {counted['maximum']} {counted['title']}".rstrip()


def _percentage(task: Task) -> float:
    """As it was told, but where others have brought it further; 0 to 100, or INDETERMINATE."""
    reached = task.progress.fraction * 100
    if task.state is State.COMPLETED:
        return 100.0
    if PERCENTAGE not in task.annotations:
        return reached if task.progress.moved_at is not None else INDETERMINATE
    told = INDETERMINATE
    with suppress(ValueError):  # a note that somebody else has written
        told = float(task.annotations[PERCENTAGE])
    told = told if 0 <= told <= 100 else INDETERMINATE
    return told if told == INDETERMINATE or told > reached - 0.01 else reached


def _can_cancel(task: Task) -> bool:
    return run_here(task) or task.annotations.get(CAN_CANCEL) == "true"


# The calls.


async def create(service: Service, caller: Caller, said: CreateRequest) -> JSON:
    """Make an external task of ``user``, whose producer is the caller; the stored ``BackgroundTask``."""
    if not said.user:
        raise BadParams("params.user", "must not be empty")
    notes = {STATE: "IN_QUEUE", PROGRESS: said.progress, CAN_CANCEL: "true" if said.can_cancel else "false"}
    if said.icon is not None:
        notes[ICON] = said.icon
    with models.named(label="title", status="body", owner="user"):
        task = await service.start(
            caller, "external", {}, label=said.title, owner=said.user, status=said.body, annotations=notes
        )
    return task_of(task)


async def retrieve(service: Service, caller: Caller, said: FindByLongId) -> JSON:
    """The ``BackgroundTask`` as its owner and its producer see it."""
    return task_of(related(caller, await service.numbered(caller, said.id)))


async def browse(service: Service, caller: Caller, said: BrowseRequest) -> JSON:
    """A ``PageV2`` of the caller's own tasks, newest first, also those that have ended.

    It has fewer than were asked for where they come to more than PAGE_BYTES, but one at least.

    Raises:
        BadParams: ``next`` is none of a page before.
    """
    size = min(said.items_per_page or 0, LONGEST_PAGE)
    size = size if size > 0 else models.DEFAULT_PAGE
    after = said.next or None
    if after is not None and not (after.isascii() and after.isdecimal() and len(after) < 19):
        raise BadParams("params.next", "is no next of a page before")
    query = Query(owner=caller.user, after=None if after is None else int(after), limit=size + 1)
    found = await service.list(caller, query)
    items: list[JSON] = []
    weight = 0
    for task in found[:size]:
        item = task_of(task)
        weight += len(codec.dumps(item))
        if items and weight > PAGE_BYTES:
            break
        items.append(item)
    more = len(items) < len(found)
    return {"itemsPerPage": size, "items": items, "next": str(found[len(items) - 1].seq) if more else None}


async def post_status(service: Service, caller: Caller, said: PostStatusRequest) -> JSON:
    """Take the producer's status into the task; with a last one it ends in the same change.

    Raises:
        DoesNotExist: there is no such task that the caller produces.
        AlreadyEnded: nothing has changed.
    """
    status = said.update.status
    task = produced(caller, await service.numbered(caller, said.update.id))
    notes: dict[str, str] = {}
    progress = None
    if status.state is not None:
        notes[STATE] = status.state
    if status.progress is not None:
        notes[PROGRESS] = status.progress
    if status.percentage is not None:
        percentage = min(status.percentage, 100.0) if status.percentage >= 0 else INDETERMINATE
        notes[PERCENTAGE] = repr(percentage)
        progress = Report(fraction=percentage / 100) if percentage >= 0 else None
    with hidden(task), models.named(label="update.newStatus.title", status="update.newStatus.body"):
        await service.update(
            caller,
            task.id,
            label=status.title,
            status=status.body,
            progress=progress,
            annotations=lambda before: {**before, **notes},
            end=_end(status),
        )
    return {}


def _end(status: Status) -> End | None:
    match status.state:
        case "SUCCESS":
            return End(State.COMPLETED)
        case "CANCELLED":
            return End(State.CANCELLED)
        case "FAILURE":
            message = status.body or status.progress or status.title or "its producer has failed"
            return End(State.FAILED, error=Failure("FAILURE", message), anyhow=True)
        case _:
            return None


async def mark_as_complete(service: Service, caller: Caller, said: FindByLongId) -> JSON:
    """The producer is done; once more is well, and changes nothing."""
    await tasks.completed(service, caller, await service.numbered(caller, said.id))
    return {}


async def pause_or_cancel(service: Service, caller: Caller, said: PauseOrCancelRequest) -> JSON:
    """Ask for it; for the owner. A task that has ended stays as it is.

    Raises:
        DoesNotExist: there is no such task that the caller owns.
        StoreUnavailable: a crash would forget the cancel that is under way.
    """
    task = owned(caller, await service.numbered(caller, said.id))
    if task.state.ended:
        return {}
    if said.state != "CANCELLED":
        return Reply(400, models.why("Task cannot be paused"))
    if not _can_cancel(task):
        return Reply(400, models.why("Task cannot be cancelled"))
    with hidden(task):
        await service.cancel(caller, task.id)
    return {}


def listen(service: Service, caller: Caller, payload: JSON) -> AsyncGenerator[Mapping[str, JSON], None]:
    """The caller's own tasks, each whole whenever it changes; otherwise as ``listen.listen``.

    Raises:
        PermissionDenied: the caller may not listen.
        InvalidRequest: of the payload.
    """
    service.allow(caller, "Tasks.listen")
    said = models.read(payload, ListenRequest)
    return _changes(Follower.begin(service, caller, said.since), numbered=said.since is not None)


async def _changes(follower: Follower, *, numbered: bool) -> AsyncGenerator[Mapping[str, JSON], None]:
    with follower.service.registry.feed.bell(of(follower.caller.user)) as bell:
        steps, follower.first = deque(follower.first), ()
        mark: Mapping[str, JSON] = {"resync": True} if follower.fresh and follower.since else {}
        seen = follower.since
        while True:
            async with aclosing(follower.ends()) as ends:
                async for step in ends:
                    ended = task_of(step.task)
                    yield {**ended, **mark, "rev": seen} if numbered else ended
            while steps:
                revision = steps[0].revision
                told = _told(steps.popleft())
                if told is not None:
                    yield {**told, **mark, "rev": revision} if numbered else told
            mark, seen = {}, follower.position
            steps = deque(await follower.more(bell.wait))


def _told(step: Step) -> Mapping[str, JSON] | None:
    before, step.known.task = step.known.task, step.task
    return task_of(step.task) if before is None or _news(before, step.task) else None


def _news(before: Task, after: Task) -> bool:
    if not run_here(after) and reported(before, after):
        return True
    was, now = task_of(before), task_of(after)
    return was != {**now, "modifiedAt": was["modifiedAt"]}
