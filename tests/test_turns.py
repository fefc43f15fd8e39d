"""What all users share is taken in turns: one who asks for very much has one place in the queue (law L10)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from taskd import operations
from taskd.dialects.xenapi import XenApi
from taskd.model import Caller, Failure
from taskd.service import Query, Service
from taskd.service.gate import ids_text
from taskd.service.turns import Turns
from taskd.service.watching import Notice, begin
from taskd.store.sqlite import SqliteStore
from tests.bench import running, user
from tests.dialects.client import login

ANN, BOB = user("ann", 1000), user("bob", 1001)

# Tasks of ann, each ended with a line in its log; and her calls at a time.
MANY = 60
CALLS = 30

Ask = Callable[[Service, Caller], Awaitable[object]]


@attrs.define
class Queue:
    """Calls of ann's and then one of bob's, who wait for the one reader of the store; ``order`` of their ends."""

    service: Service
    reader: trio.CapacityLimiter
    order: list[str] = attrs.field(factory=list)

    async def run(
        self, anns: Sequence[Callable[[], Awaitable[object]]], bobs: Callable[[], Awaitable[object]]
    ) -> None:
        async def once(caller: Caller, call: Callable[[], Awaitable[object]]) -> None:
            await call()
            self.order.append(caller.user)

        async with trio.open_nursery() as nursery:
            async with self.reader:
                for call in anns:
                    nursery.start_soon(once, ANN, call)
                await wait_all_tasks_blocked()
                nursery.start_soon(once, BOB, bobs)
                await wait_all_tasks_blocked()


@asynccontextmanager
async def queue(folder: Path) -> AsyncIterator[Queue]:
    """Ann has many tasks, and bob one; their logs are not in memory any more."""
    store = await SqliteStore.open(folder / "taskd.sqlite")
    async with running(store, operations.load(), str(folder / "workspace")) as service:
        for caller, count in ((ANN, MANY), (BOB, 1)):
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(fail_one, service, caller)
            for id in await service.ids(caller):
                service.registry.logs.forget(id)
        yield Queue(service, store._reading)
    await store.close()


async def fail_one(service: Service, caller: Caller) -> None:
    task = await service.start(caller, "external", {})
    await service.update(caller, task.id, log=["a line"])
    await service.fail(caller, task.id, Failure("NO_LUCK", "it has failed", ()))


async def a_list(service: Service, caller: Caller) -> object:
    return await service.list(caller, Query(limit=1000))


async def the_ids(service: Service, caller: Caller) -> object:
    return await service.ids(caller, "external")


async def the_text_of_ids(service: Service, caller: Caller) -> object:
    return await ids_text(service, caller, "external")


async def a_number(service: Service, caller: Caller) -> object:
    return await service.numbered(caller, 1 if caller is ANN else MANY + 1)


async def a_log(service: Service, caller: Caller) -> object:
    return await service.log(caller, (await service.list(caller, Query(limit=1)))[0].id)


async def events(service: Service, caller: Caller) -> object:
    client = await login(XenApi(service), caller)
    return await client("event.from", ["task"], "", 0.0)


@pytest.mark.parametrize("ask", [a_list, the_ids, the_text_of_ids, a_number, a_log, events])
async def test_of_one_who_asks_very_often_hardly_a_call_is_answered_before_another_s(
    ask: Ask, tmp_path: Path
) -> None:
    async with queue(tmp_path) as waiting:
        anns, bobs = (partial(ask, waiting.service, caller) for caller in (ANN, BOB))
        await waiting.run([anns] * CALLS, bobs)

    assert waiting.order.index("bob") <= 2
    assert waiting.order.count("ann") == CALLS


async def test_the_many_watches_of_one_user_do_not_keep_another_s_waiting(tmp_path: Path) -> None:
    """They read the log of each of their tasks."""

    async def watched(service: Service, caller: Caller) -> None:
        """Until the first that is told."""

        async def tell(notices: Sequence[Notice]) -> None:
            scope.cancel()

        with trio.CancelScope() as scope:
            watch = await begin(service, caller, await service.ids(caller), log=True)
            await watch.run(tell)

    async with queue(tmp_path) as waiting:
        anns, bobs = (partial(watched, waiting.service, caller) for caller in (ANN, BOB))
        await waiting.run([anns] * CALLS, bobs)

    assert waiting.order.index("bob") <= 2


async def test_who_computes_long_very_often_does_hardly_so_before_another_does_once() -> None:
    turns, order = Turns(), list[str]()

    async def take(caller: Caller) -> None:
        await turns.on_loop(caller)
        order.append(caller.user)

    async with trio.open_nursery() as nursery, turns._loop:
        for _ in range(CALLS):
            nursery.start_soon(take, ANN)
        await wait_all_tasks_blocked()
        nursery.start_soon(take, BOB)
        await wait_all_tasks_blocked()

    assert order.index("bob") <= 2
    assert order.count("ann") == CALLS


async def test_of_a_user_who_waits_for_no_turn_nothing_is_kept() -> None:
    turns = Turns()

    async def take() -> None:
        async with turns.of(ANN, "read"):
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        nursery.start_soon(take)

    assert not turns._locks
