"""Forgetting tasks: durable first, then shown, then whoever waits for their target goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from taskd.errors import TaskInProgress
from taskd.model import Task
from taskd.registry import Live

if TYPE_CHECKING:
    from taskd.service import Service


async def forget(service: Service, task: Task) -> None:
    """Forget an ended task, with what it may owe.

    Raises:
        TaskInProgress: it has not ended, or its residue is being recovered right now.
    """
    live = service.registry.get(task.id)
    if not task.state.ended or (live is not None and task.journal):
        raise TaskInProgress(task.id)
    if live is None:  # nobody may begin to recover it meanwhile
        live = Live.again(task)
        service.registry.add(live)
    with trio.CancelScope(shield=True):
        try:
            await service.store.delete(task.id)
            service.runner.release(task.id)
        finally:
            service.registry.remove(live)
        service.registry.forget([task])


async def give_up(service: Service, live: Live) -> None:
    """Forget a committed task whose finish cannot be done, perhaps never: an admin says that it need not. Its
    target is free when the try that is under way, if one is, has come back.

    Raises:
        StoreUnavailable: its finish is tried on, as before.
    """
    async with live.lock:
        task = live.task
        with trio.CancelScope(shield=True):
            await service.store.delete(task.id)
        live.forget()
    service.registry.remove(live)
    service.registry.forget([task])
