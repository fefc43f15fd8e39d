"""Making a task: durable first, then seen, then cared for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from taskd.model import Task
from taskd.registry import Claim, Live, Ticket

if TYPE_CHECKING:
    from taskd.service import Service


async def make(service: Service, task: Task, claim: Claim) -> Task:
    """Make it durable, show it and let it be run; the task that the same request made before, where one did.

    Raises:
        StoreUnavailable: nothing was made.
    """
    live = Live(task)
    ticket = service.registry.take(live)
    # Durable a moment before it is alive: whoever learns of it then, by the same request, waits for that.
    made = service.making[task.id] = trio.Event()
    try:
        return await _make(service, task, claim, live, ticket)
    finally:
        del service.making[task.id]
        made.set()


async def _make(service: Service, task: Task, claim: Claim, live: Live, ticket: Ticket) -> Task:
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
        service.registry.add(live, claim)
        service.registry.show(ticket, stored)
        await service.registry.shown(live, ticket)
        service.runner.adopt(live)
    return live.task
