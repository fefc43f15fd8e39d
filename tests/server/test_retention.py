"""What is past its retention is forgotten, at the start and every hour; what is not ended never."""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

from taskd.config import Config
from taskd.model import Task, Time, now
from taskd.operations.external import OPERATION
from taskd.server import HOUR, forget_old
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, running


async def test_old_tasks_are_forgotten_every_hour(autojump_clock: object, tmp_path: Path) -> None:
    store = MemoryStore()
    async with running(store, {"external": OPERATION}, str(tmp_path)) as service, trio.open_nursery() as nursery:
        nursery.start_soon(forget_old, store, lambda: Config(retention_count=1))
        ids = [(await service.start(ROOT, "external", {})).id for _ in range(4)]
        for id in ids[:3]:
            await service.complete(ROOT, id)
        assert len(await service.ids(ROOT)) == 4
        await trio.sleep(HOUR + 1)
        assert await service.ids(ROOT) == ids[2:]
        nursery.cancel_scope.cancel()


async def test_an_ended_task_is_forgotten_after_its_days(autojump_clock: object) -> None:
    """So many days after its end; one that has not ended is kept however old it is."""
    store = MemoryStore()
    long_ago = Time(now() - 3 * 86400)
    old = Task("old", "toy", {}, "root", "taskd", "here", long_ago, state=State.COMPLETED, finished_at=long_ago)
    for task in (
        old,
        attrs.evolve(old, id="new", finished_at=Time(now() - 86400)),
        attrs.evolve(old, id="unfinished", state=State.RUNNING, finished_at=None),
    ):
        await store.create(task)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forget_old, store, lambda: Config(retention_days=2.0))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert await store.ids() == ["new", "unfinished"]
