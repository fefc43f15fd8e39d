"""The gate in front of every verb on one task: look it up, ask ``access``, then call the verb (law L11)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import attrs

from taskd import access
from taskd.model import Caller, LogLine, Task
from taskd.store import Query

if TYPE_CHECKING:
    from taskd.service import Service

P = ParamSpec("P")
R = TypeVar("R")


def gated(
    verb: str,
) -> Callable[
    [Callable[Concatenate[Service, Caller, Task, P], Awaitable[R]]],
    Callable[Concatenate[Service, Caller, str, P], Awaitable[R]],
]:
    """Turn a verb on a ``Task`` into one on an id, with the gate in between.

    The verb so made raises DoesNotExist and PermissionDenied beside its own errors.
    """

    def decorate(
        method: Callable[Concatenate[Service, Caller, Task, P], Awaitable[R]],
    ) -> Callable[Concatenate[Service, Caller, str, P], Awaitable[R]]:
        async def asked(self: Service, caller: Caller, id: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
            task = access.check(caller, verb, await self.newest(id), id)
            return await method(self, caller, task, *args, **kwargs)

        update_wrapper(asked, method)
        return asked

    return decorate


def at_hand(service: Service, caller: Caller, id: str) -> Task | None:
    """What ``get`` gives, where it need not wait for the store and refuses nothing; else None."""
    task = service.registry.newest(id)
    return task if task is not None and task.revision and access.may(caller, "get", task) else None


async def shown(service: Service, read: Task) -> Task | None:
    """The newest snapshot of a task that was read from the store; None where it is not shown yet, or destroyed."""
    known = service.registry.newest(read.id)
    if known is not None:
        return known if known.revision else None
    # What was open may have moved on since, and more may have been told of it before than the store knew.
    return await service.newest(read.id) if read.open else read


async def page(service: Service, caller: Caller, query: Query) -> Sequence[Task]:
    """The newest snapshots of a page of what the caller may see; it is short only where there are no more.

    What is not shown is made up for by what comes after it, for whoever walks takes a short page for the last.
    """
    if not access.sees_all(caller):
        if query.owner not in (None, caller.user):
            return ()
        query = attrs.evolve(query, owner=caller.user)
    read: list[Task] = []
    more = query
    while True:
        async with service.turns.of(caller, "read"):
            rows = await service.store.list(more)
        read += rows
        # All of them, each time: while more was read, newer snapshots may have been told than were shown before.
        newest = [task for each in read if (task := await shown(service, each)) is not None]
        if len(newest) >= query.limit or len(rows) < more.limit:
            return newest[: query.limit]
        more = attrs.evolve(query, after=rows[-1].seq, limit=query.limit - len(newest))


async def ids_text(service: Service, caller: Caller, operation: str | None = None) -> bytes:
    """What ``ids`` gives, in JSON."""
    if (text := ids_at_hand(service, caller, operation)) is not None:
        return text
    async with service.turns.of(caller, "read"):
        return await service.store.ids_text(owner=listed(caller), operation=operation)


def ids_at_hand(service: Service, caller: Caller, operation: str | None = None) -> bytes | None:
    """What ``ids`` gives, in JSON, where it need not wait for the store; else None."""
    return service.store.ids_at_hand(owner=listed(caller), operation=operation)


async def lines(service: Service, caller: Caller, id: str, start: int, limit: int) -> Sequence[LogLine]:
    """``log``, for whoever has asked the gate: the newest lines from memory, others from the store."""
    live = service.registry.get(id)
    if live is not None and start >= live.log_end:
        return ()
    newest = service.registry.logs.after(id, start, limit=limit)
    if newest is not None:
        return newest
    async with service.turns.of(caller, "read"):
        return await service.store.log(id, start, limit)


def listed(caller: Caller) -> str | None:
    """The owner whose tasks are in the caller's lists; None: everybody's are."""
    return None if access.sees_all(caller) else caller.user
