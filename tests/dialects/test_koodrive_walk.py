"""A walk through KooDrive's pages: what is there throughout is shown once, and a page costs what it shows."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
import trio

from taskd.dialects.koodrive.walk import PAGE_CHARS, SCANNED
from taskd.model import Task, Time
from taskd.service import Query, Service
from taskd.states import State
from taskd.store import Store
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, ended
from tests.dialects.client import served
from tests.dialects.koodrive import ALICE, BOB, KooDrive, Serve, done, put, serve, shown, silent, store

__all__ = ["serve", "store"]  # the fixtures


async def test_the_size_of_a_page_may_change_on_the_way(serve: Serve, store: Store) -> None:
    """K05"""
    async with serve() as koodrive:
        ids = await put(store, *(done() for _ in range(100)))
        sizes = itertools.cycle([3, 7])
        pages = await koodrive.walk(sizes=lambda: next(sizes))

    assert shown(pages) == ids
    assert [len(page["taskList"]) for page in pages[:4]] == [3, 7, 3, 7]


async def test_ten_thousand_tasks_of_one_second_are_each_shown_once(serve: Serve, store: Store) -> None:
    """A cursor made of the time of creation would skip them or never get past them."""
    async with serve() as koodrive:
        ids = await put(store, *(done() for _ in range(10_000)))
        pages = await koodrive.walk("status=2")

    assert shown(pages) == ids
    assert {row["createTime"] for page in pages for row in page["taskList"]} == {"2024-08-12T07:22:33.000Z"}


@attrs.define
class Others:
    """Tasks that come, end and go while somebody walks past those that stay."""

    service: Service
    chance: random.Random
    running: list[str] = attrs.field(factory=list)
    over: list[str] = attrs.field(factory=list)

    async def act(self) -> None:
        """Make one, end one, or destroy one."""
        match self.chance.randrange(3):
            case 1 if self.running:
                id = self.running.pop(self.chance.randrange(len(self.running)))
                await self.service.complete(ROOT, id)
                self.over.append(id)
            case 2 if self.over:
                id = self.over.pop(self.chance.randrange(len(self.over)))
                await ended(self.service, id)
                while self.service.registry.get(id) is not None:
                    await trio.lowlevel.checkpoint()
                await self.service.destroy(ROOT, id)
            case _:
                self.running.append((await self.service.start(ROOT, "external", {})).id)

    async def act_on(self, count: int) -> None:
        for _ in range(count):
            await self.act()

    async def act_for_ever(self) -> None:
        while True:
            await self.act()

    async def settle(self, koodrive: KooDrive, count: int) -> list[str]:
        """The taskIds of ``count`` tasks that stay, and are running, among others that do not."""
        stay = []
        for _ in range(count):
            await self.act()
            id = await koodrive.create(srcUserId="a", dstUserId="b")
            stay.append(id)
            uuid = (await koodrive.service.numbered(ROOT, int(id))).id
            await koodrive.service.update(ROOT, uuid, status="at work")
        return stay


@pytest.mark.parametrize("seed", range(10))
async def test_a_walk_shows_all_that_is_there_throughout_once_whatever_happens_between_its_pages(
    serve: Serve, seed: int
) -> None:
    chance = random.Random(seed)
    async with serve() as koodrive:
        others = Others(koodrive.service, chance)
        stay = await others.settle(koodrive, 25)
        before = set(others.running)
        for query in ("", "status=1", "status=0,1,2,3&taskType=0"):
            pages = await koodrive.walk(
                query, sizes=lambda: chance.randint(1, 7), between=lambda: others.act_on(chance.randrange(8))
            )

            ids = shown(pages)
            assert [id for id in ids if id in stay] == stay
            assert len(set(ids)) == len(ids)
            assert ids == sorted(ids, key=int)
        assert set(others.running) != before  # something did happen


@pytest.mark.parametrize("seed", range(5))
async def test_a_walk_shows_all_that_is_there_throughout_once_whatever_happens_during_its_pages(
    serve: Serve, seed: int
) -> None:
    async with serve() as koodrive:
        others = Others(koodrive.service, random.Random(seed))
        stay = await others.settle(koodrive, 15)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(Others(koodrive.service, random.Random(seed)).act_for_ever)
            ids: list[str] = []
            cursor: int | None = 0
            # New tasks come at the end faster than the walk gets there; it needs to get past those that stay.
            while cursor is not None and cursor < int(stay[-1]):
                page = await koodrive.ls(f"status=1&pageSize=2&pageCursor={cursor}")
                ids += shown([page])
                cursor = int(page["nextCursor"]) if "nextCursor" in page else None
            nursery.cancel_scope.cancel()

    assert [id for id in ids if id in stay] == stay
    assert len(set(ids)) == len(ids)


async def test_the_destroyed_task_that_a_cursor_names_does_no_harm(serve: Serve, store: Store) -> None:
    async with serve() as koodrive:
        rows = [done() for _ in range(4)]
        for row in rows:
            await put(store, row)
        first = await koodrive.ls("pageSize=2")
        await koodrive.service.destroy(ROOT, rows[1].id)
        second = await koodrive.ls(f"pageSize=2&pageCursor={first['nextCursor']}")

    assert [row["taskId"] for row in second["taskList"]] == ["3", "4"]


async def test_one_request_looks_at_so_many_tasks_and_then_says_where_to_go_on(serve: Serve, store: Store) -> None:
    """A page may be empty before the end; its cursor goes forward, past all that was looked at."""
    async with serve() as koodrive:
        ids = await put(store, *(silent() for _ in range(SCANNED + 5)))
        ids += await put(store, attrs.evolve(silent(), modified_at=Time(1_723_447_355.0)))
        first, second = await koodrive.walk("status=1")

    assert first["taskList"] == []
    assert first["nextCursor"] == ids[SCANNED - 1]
    assert [row["taskId"] for row in second["taskList"]] == ids[-1:]


@attrs.define(eq=False)
class CountingStore(MemoryStore):
    """How many rows were read for lists."""

    read: int = 0

    async def list(self, query: Query) -> Sequence[Task]:
        found = await super().list(query)
        self.read += len(found)
        return found


async def test_a_page_reads_no_more_rows_than_it_shows_and_one(tmp_path: Path) -> None:
    store = CountingStore()
    async with served(tmp_path, store=store) as (service, _):
        koodrive = KooDrive(service)
        await put(store, *(done(owner=owner) for owner in ("bob", "root") for _ in range(500)))
        await put(store, *(done(state=State.FAILED) for _ in range(20)))
        await put(store, *(done(operation="copy") for _ in range(500)))
        # No import is among the external ones, so they are all looked at.
        expected = {"": 6, "status=3": 6, "status=0,1": 0, "taskType=0": 6, "taskType=7": 0, "taskType=1": 1020}
        for query, rows in expected.items():
            store.read = 0
            await koodrive.ls(f"{query}&pageSize=5")
            assert store.read == rows, query


async def test_a_page_of_long_tasks_ends_early(serve: Serve, store: Store) -> None:
    long = "x" * (PAGE_CHARS // 3)
    async with serve() as koodrive:
        ids = await put(store, *(done(params={"text": long}) for _ in range(9)))
        ids += await put(store, done(params={"text": long * 7}))
        ids += await put(store, done())
        pages = await koodrive.walk()

    assert shown(pages) == ids
    assert [len(page["taskList"]) for page in pages] == [3, 3, 3, 1, 1]


async def test_a_cursor_does_not_open_the_rows_of_whom_it_was_minted_for(serve: Serve, store: Store) -> None:
    async with serve() as root:
        alice, bob = attrs.evolve(root, caller=ALICE), attrs.evolve(root, caller=BOB)
        await put(store, *(done(owner="alice") for _ in range(6)))
        bobs = await put(store, done(owner="bob"))
        await put(store, *(done(owner="alice") for _ in range(6)))
        cursor = (await alice.ls("pageSize=3"))["nextCursor"]

        assert await bob.ids(f"pageCursor={cursor}") == bobs
        for guess in range(15):
            assert set(await bob.ids(f"pageCursor={guess}")) <= set(bobs)
