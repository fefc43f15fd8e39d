"""The calls of the first generation (V1): ``create postStatus markAsComplete view list``.

The laws that V1 did not keep: what is posted is stored, all of it, in one durable change; ``complete`` in an
update is the same as ``markAsComplete``; a task that is complete stays as it is. ``null`` leaves a text as it was,
and "" is a text.
"""

from __future__ import annotations

from typing import Final

from taskd.dialects.ucloud import models
from taskd.dialects.ucloud.roles import hidden, produced, related
from taskd.errors import AlreadyEnded, BadParams
from taskd.model import JSON, Caller, Speed, Task
from taskd.service import End, Report, Service
from taskd.states import State

# Where the params of a report stand in an update.
_NAMES: Final = {
    "label": "update.newTitle",
    "status": "update.newStatus",
    "progress": "update.progress",
    "progress.unit": "update.progress.title",
    "speeds": "update.speeds",
}


async def create(service: Service, caller: Caller, said: models.CreateRequest) -> JSON:
    """Make an external task of ``owner``, whose producer is the caller; the stored ``Task``."""
    if not said.owner:
        raise BadParams("params.owner", "must not be empty")
    with models.named(label="title", status="initialStatus"):
        task = await service.start(
            caller, "external", {}, label=said.title, owner=said.owner, status=said.initial_status
        )
    return models.task_of(task)


async def post_status(service: Service, caller: Caller, said: models.PostStatusRequest) -> JSON:
    """Take an update of the producer's into the task; with ``complete`` it ends in the same change.

    Raises:
        DoesNotExist: there is no such task that the caller produces.
        AlreadyEnded: it is complete; nothing has changed.
    """
    update = said.update
    task = produced(caller, await service.get(caller, update.job_id))
    with hidden(task), models.named(**_NAMES):
        await service.update(
            caller,
            task.id,
            label=update.new_title,
            status=update.new_status,
            progress=None if update.progress is None else _report(update.progress),
            more_speeds=[Speed(each.title, each.speed, each.unit, each.as_text) for each in update.speeds],
            log=() if update.message_to_append is None else (update.message_to_append,),
            end=End(State.COMPLETED) if update.complete else None,
        )
    return {}


def _report(progress: models.Progress) -> Report:
    return Report(done=progress.current, total=progress.maximum, unit=progress.title)


async def mark_as_complete(service: Service, caller: Caller, said: models.FindByStringId) -> JSON:
    """The producer is done; once more is well, and changes nothing."""
    await completed(service, caller, await service.get(caller, said.id))
    return {}


async def completed(service: Service, caller: Caller, task: Task) -> None:
    """``task``, which the caller produces, is complete now, or was before. Raises DoesNotExist."""
    with hidden(produced(caller, task)):
        try:
            await service.update(caller, task.id, end=End(State.COMPLETED))
        except AlreadyEnded:
            pass  # it is what was asked for


async def view(service: Service, caller: Caller, said: models.FindByStringId) -> JSON:
    """The ``Task`` as its owner and its producer see it."""
    return models.task_of(related(caller, await service.get(caller, said.id)))


async def list_(service: Service, caller: Caller, said: models.ListRequest) -> JSON:
    """A ``Page`` of the caller's own incomplete tasks, oldest first; one beyond the end is empty."""
    tasks = [live.task for live in service.registry.of(caller.user) if not live.task.state.ended]
    size = said.items_per_page if said.items_per_page in models.PAGES else models.DEFAULT_PAGE
    number = max(0, said.page or 0)
    first = size * number
    return models.page_of([models.task_of(task) for task in tasks[first : first + size]], len(tasks), size, number)
