"""Making a task: durable first, then seen, then cared for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

from taskd.model import Task
from taskd.registry import Claim, Live

if TYPE_CHECKING:
    from taskd.service import Service

# Milliseconds that it may take from being durable to being alive.
MOMENTS: Final = 1000


async def make(service: Service, task: Task, claim: Claim) -> Task:
    """Make it durable, show it and let it be run; the task that the same request made before, where one did.

    Raises:
        StoreUnavailable: nothing was made.
    """
    live = Live(task)
    ticket = service.registry.take(live)
    # From here on a caller that goes away must not leave a task behind that nobody runs.
    with trio.CancelScope(shield=True):
        try:
            stored = await service.store.create(attrs.evolve(task, revision=ticket.revision))
        except BaseException:
            service.registry.give_up(ticket)
            raise
        if stored.id != task.id:  # the same request came twice at the same time
            service.registry.give_up(ticket)
            return await service.newest(stored.id) or stored
        live.task = attrs.evolve(stored, revision=0)
        service.registry.add(live, claim)
        service.registry.show(ticket, stored)
        await service.registry.shown(live, ticket)
        service.runner.adopt(live)
    return live.task


async def alive(service: Service, task: Task) -> Task:
    """The newest snapshot of one that the store has as unfinished: it is durable a moment before it is alive, and
    whoever knows of it by then, by the same ``request_id``, is to find it as it will be found from then on.
    """
    for _ in range(MOMENTS):
        if (live := service.registry.get(task.id)) is not None and live.task.revision:
            return live.task
        await trio.sleep(0.001)
    return await service.store.get(task.id) or task
