"""What watches hold, and the feed that they read, is bounded in bytes (laws L8 and L10)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd import codec
from taskd.model import JSON, Caller, Draft, Failure, Progress, Residue, Speed, Undo
from taskd.registry import Feed
from taskd.registry.weight import weigh
from taskd.service import watching as law
from taskd.service.watching import LIGHT, Kind, Notice
from taskd.states import State
from tests.bench import ROOT
from tests.counted import calls
from tests.test_watching import ALICE, Fold, external_task, follow, quiet, serving

SERVICE = Caller(uid=7, gid=7, pid=1, user="_svc", roles=frozenset({"service"}))

# 64 KiB of JSON, which is twenty times as much in memory.
RESULT: JSON = [[] for _ in range(21_800)]


async def test_what_is_told_at_a_time_is_bounded_in_bytes(tmp_path: Path, autojump_clock: object) -> None:
    line = "x" * 4096
    async with serving(tmp_path) as (service, nursery):
        service.registry.logs.limit = 10**6  # most lines are read from the store
        tasks = [await service.start(ALICE, "external", {}) for _ in range(3)]
        for task in tasks:
            for _ in range(5):
                await service.update(ALICE, task.id, log=[line] * 200)
        told: list[int] = []
        lines = 0
        watch = await law.begin(service, ALICE, log=True)

        async def tell(notices: Sequence[Notice]) -> None:
            nonlocal lines
            told.append(sum(notice.load(service.registry.feed) for notice in notices))
            lines += sum(len(notice.lines) for notice in notices)

        nursery.start_soon(watch.run, tell)
        await quiet(service)

        assert lines == 3000
        assert max(told) < law.LOAD + law.PAGE * 2 * len(line)


@pytest.mark.parametrize(("limit", "kind"), [(100, Kind.CHANGED), (1, Kind.SNAPSHOT)], ids=["feed", "store"])
async def test_heavy_tasks_are_told_one_by_one(
    tmp_path: Path, autojump_clock: object, limit: int, kind: Kind
) -> None:
    async with serving(tmp_path) as (service, nursery):
        tasks = [await service.start(ROOT, "external", {}) for _ in range(5)]
        since = service.registry.feed.revision
        service.registry.feed.limit = limit
        for task in tasks:
            await service.complete(ROOT, task.id, RESULT)
        told: list[list[Kind]] = []
        watch = await law.begin(service, ROOT, since=since)

        async def tell(notices: Sequence[Notice]) -> None:
            told.append([notice.kind for notice in notices if notice.task is not None])

        nursery.start_soon(watch.run, tell)
        await quiet(service)
        assert [kinds for kinds in told if kinds] == [[kind]] * 5


async def test_of_the_watches_of_one_reader_one_at_a_time_holds_something(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        await service.start(ROOT, "external", {})
        turn, go, telling, synced = trio.Lock(), trio.Event(), 0, 0

        async def tell(notices: Sequence[Notice]) -> None:
            nonlocal telling, synced
            telling += 1
            await go.wait()
            synced += [notice.kind for notice in notices].count(Kind.SYNCED)

        for _ in range(64):
            nursery.start_soon((await law.begin(service, ROOT)).run, tell, turn)
        await trio.testing.wait_all_tasks_blocked()
        assert telling == 1
        go.set()
        await quiet(service)
        assert synced == 64


async def test_a_watch_that_lags_forgets_the_logs_of_what_is_gone(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells it of an end that the feed has forgotten, too."""
    monkeypatch.setattr(law, "ENDINGS", 2)
    async with serving(tmp_path) as (service, nursery):
        service.registry.feed.limit = 3
        watch, kinds, go = await law.begin(service, ROOT, log=True), list[Kind](), trio.Event()
        go.set()

        async def tell(notices: Sequence[Notice]) -> None:
            kinds.extend(notice.kind for notice in notices)
            await go.wait()

        nursery.start_soon(watch.run, tell)
        stays = await service.start(ROOT, "external", {})
        tasks = [await service.start(ROOT, "external", {}, destroy_on_finish=True) for _ in range(9)]
        for task in (stays, *tasks):
            await service.update(ROOT, task.id, log=["a line"])
            await quiet(service)
        go = trio.Event()
        for task in tasks:
            await service.complete(ROOT, task.id)
        await quiet(service)
        go.set()
        await quiet(service)

        assert Kind.RESYNC in kinds
        assert stays.id in watch._told
        assert len(watch._told) <= 1 + law.ENDINGS


def in_memory(value: object) -> int:
    """Bytes, object by object."""
    match value:
        case dict():
            return sys.getsizeof(value) + sum(map(in_memory, (*value.keys(), *value.values())))
        case list():
            return sys.getsizeof(value) + sum(map(in_memory, value))
        case _:
            return sys.getsizeof(value)


@pytest.mark.parametrize(
    "result",
    [
        RESULT,
        [{} for _ in range(21_800)],
        [{"a": 1, "b": f"x{n}"} for n in range(5000)],
        [[n, 1] for n in range(10_000)],
        [n + 0.5 for n in range(8000)],
        [f"ab{n}" for n in range(8000)],
        "x" * 65_000,
        "é" * 30_000,
        "x" * 60_000 + "\N{GRINNING FACE}",  # which makes each letter four bytes wide
    ],
    ids=["lists", "objects", "fields", "pairs", "numbers", "texts", "text", "accents", "wide"],
)
def test_json_is_weighed_as_what_it_is_in_memory(result: JSON) -> None:
    weight = weigh(external_task(result=result)) - weigh(
        external_task()
    )  # first: a text that was written is longer

    assert in_memory(result) * 0.8 < weight < in_memory(result) * 2.5


def test_what_is_short_is_light() -> None:
    assert weigh(external_task()) < LIGHT


def test_all_parts_of_a_task_that_can_be_long_are_weighed() -> None:
    long = "x" * 10_000
    heavy: dict[str, Any] = {
        "params": {"a": long},
        "error": Failure(long, ""),
        "annotations": {"a": long},
        "speeds": (Speed(long, 1.0, ""),),
        "draft": Draft(long),
        "journal": (Undo(long),),
        "residue": (Residue(long, {}, ""),),
        "label": long,
        "description": long,
        "debug_info": long,
        "request_id": long,
        "status": long,
        "progress": Progress(unit=long),
    }
    for name, value in heavy.items():
        assert weigh(attrs.evolve(external_task(), **{name: value})) > 14_000


def test_to_weigh_a_task_takes_few_steps_however_much_is_in_it() -> None:
    """Everybody waits meanwhile."""
    task = external_task(result=RESULT)

    assert 0 < calls(lambda: weigh(task)) < 50


def test_what_can_be_stored_can_be_weighed() -> None:
    value: JSON = [2**64 - 1, -(2**63), 1e308, "\0"]
    with pytest.raises(TypeError):
        while True:
            task = external_task(result=value)
            codec.pack(task)
            assert weigh(task)
            value = [value]


def test_the_feed_keeps_no_more_than_so_many_bytes_and_says_from_where_on() -> None:
    feed = Feed(max_weight=3 * weigh(external_task(result=RESULT)))
    feed.begin(1)
    for n in range(1, 11):
        feed.put(n, external_task(id=str(n), result=RESULT), born=True)

    assert [change.revision for change in feed.since(feed.horizon)] == [8, 9, 10]
    assert (feed.horizon, feed.covers(6), feed.covers(7)) == (7, False, True)


def test_what_changes_lightly_weighs_once() -> None:
    task = external_task(result=RESULT)
    feed = Feed(max_weight=2 * weigh(task))
    feed.begin(1)
    for n in range(1, 11):
        feed.put(n, task)

    assert feed._weight == weigh(task)


def test_what_the_feed_has_weighed_is_not_weighed_again() -> None:
    result: list[JSON] = [[] for _ in range(1000)]
    task = external_task(result=result)
    feed = Feed()
    feed.begin(1)
    feed.put(1, task)
    weight = weigh(task)
    result.clear()  # only so that it can be told

    assert feed.weight(attrs.evolve(task, revision=2)) == weight > weigh(task)
    assert feed.weight(attrs.evolve(task, id="other")) == weigh(task)


def test_owners_of_nothing_leave_nothing_behind() -> None:
    feed = Feed()
    feed.begin(1)
    feed.put(1, external_task(owner="alice"), born=True)
    feed.put(2, external_task(owner="alice"), gone=True)

    assert feed.count("alice") == 0
    assert "alice" not in feed._owned


# Who is told what.


async def test_a_task_that_goes_between_the_reply_and_its_snapshot_is_told_as_destroyed(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        task = await service.start(ROOT, "external", {})
        watch, fold = await law.begin(service, ROOT, [task.id]), Fold()
        await service.complete(ROOT, task.id)
        await service.destroy(ROOT, task.id)

        async def tell(notices: Sequence[Notice]) -> None:
            for notice in notices:
                fold.take(notice)

        nursery.start_soon(watch.run, tell)
        await quiet(service)
        assert fold.kinds == [Kind.SYNCED, Kind.DESTROYED]


@pytest.mark.parametrize("heavy", [False, True])
async def test_a_resync_has_what_ended_also_for_the_producer(
    tmp_path: Path, autojump_clock: object, heavy: bool
) -> None:
    async with serving(tmp_path) as (service, nursery):
        service.registry.feed.limit = 3
        task = await service.start(SERVICE, "external", {}, owner="alice")
        since = service.registry.feed.revision
        await service.complete(SERVICE, task.id, RESULT if heavy else None)
        for _ in range(5):
            other = await service.start(ROOT, "external", {})
            await service.complete(ROOT, other.id)
        watch, fold = await law.begin(service, SERVICE, since=since), Fold()

        async def tell(notices: Sequence[Notice]) -> None:
            for notice in notices:
                fold.take(notice)

        nursery.start_soon(watch.run, tell)
        await quiet(service)
        assert Kind.RESYNC in fold.kinds
        assert {id: told.state for id, told in fold.tasks.items()} == {task.id: State.COMPLETED}


async def test_who_lags_while_changes_are_told_is_resynced(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that wait to be told are the feed's, and may be forgotten there."""
    monkeypatch.setattr(law, "BATCH", 1)
    async with serving(tmp_path) as (service, nursery):
        service.registry.feed.limit = 4
        since = service.registry.feed.revision
        tasks = [await service.start(ROOT, "external", {}) for _ in range(4)]
        watch, fold, stuck, go = await law.begin(service, ROOT, since=since), Fold(), trio.Event(), trio.Event()

        async def tell(notices: Sequence[Notice]) -> None:
            for notice in notices:
                fold.take(notice)
            stuck.set()
            await go.wait()

        nursery.start_soon(watch.run, tell)
        await stuck.wait()
        tasks += [await service.start(ROOT, "external", {}) for _ in range(4)]
        for task in tasks[1:3]:
            await service.complete(ROOT, task.id)
        go.set()
        await quiet(service)

        states = {task.id: (await service.get(ROOT, task.id)).state for task in tasks}
        assert Kind.RESYNC in fold.kinds
        assert {id: task.state for id, task in fold.tasks.items()} == states


async def test_what_others_do_does_not_resync_who_waits(tmp_path: Path, autojump_clock: object) -> None:
    async with serving(tmp_path) as (service, nursery):
        service.registry.feed.limit = 3
        fold = Fold()
        nursery.start_soon(follow, service, ALICE, fold)
        await quiet(service)
        for _ in range(10):
            await service.start(ROOT, "external", {})
        task = await service.start(ALICE, "external", {})
        await quiet(service)

        assert fold.kinds == [Kind.SYNCED, Kind.CHANGED]
        assert set(fold.tasks) == {task.id}
