"""What the registry keeps beside the snapshots: whose the tasks are, and which lines belong to which change."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from taskd.errors import DoesNotExist, StoreUnavailable, TooManyTasks
from taskd.model import JSON, Draft, LogLine, Time
from taskd.operations import Handle
from taskd.operations.external import OPERATION as EXTERNAL
from taskd.registry import AT_HAND, Live, Registry
from taskd.registry.logs import OVERHEAD, Logs
from taskd.registry.quota import UNIT
from taskd.service import Report
from taskd.states import State
from taskd.store import rows
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT, running
from tests.store.test_contract import task
from tests.stores import StuckStore
from tests.test_runner import NoParams, World, operation, reached, table, undone_before_it_is_told


async def test_the_tasks_of_an_owner_are_found_oldest_first_until_they_end(tmp_path: Path) -> None:
    async with running(MemoryStore(), table(EXTERNAL), str(tmp_path)) as service:

        def of(owner: str) -> list[str]:
            return [live.task.id for live in service.registry.of(owner)]

        ids = [(await service.start(ROOT, "external", {}, owner="alice")).id for _ in range(3)]
        other = (await service.start(ROOT, "external", {}, owner="bob")).id
        assert (of("alice"), of("bob"), of("carol")) == (ids, [other], [])
        await service.complete(ROOT, ids[1])
        await trio.testing.wait_all_tasks_blocked()
        assert of("alice") == [ids[0], ids[2]]
        await service.complete(ROOT, other)
        await trio.testing.wait_all_tasks_blocked()
        assert list(service.registry._of) == ["alice"]


async def test_a_task_that_is_only_being_made_is_nobodys_yet(tmp_path: Path) -> None:
    """Its place in the order of changes is not reached: a follower is told of it when it is."""
    async with running(MemoryStore(), table(EXTERNAL), str(tmp_path)) as service:
        registry = service.registry
        ahead = registry.take(None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.start, ROOT, "external", {})
            await trio.testing.wait_all_tasks_blocked()
            unseen = len(registry), registry.of("root")
            registry.give_up(ahead)
        assert unseen == (1, [])
        assert len(registry.of("root")) == 1


async def test_of_the_tasks_that_have_ended_the_last_are_at_hand_as_the_store_has_them(tmp_path: Path) -> None:
    store = MemoryStore()
    async with running(store, table(EXTERNAL), str(tmp_path)) as service:
        made = [(await service.start(ROOT, "external", {})).id for _ in range(AT_HAND + 2)]
        for id in made:
            await service.complete(ROOT, id)
        await trio.testing.wait_all_tasks_blocked()
        at_hand = [id for id in made if service.registry.newest(id) is not None]
        assert at_hand == made[2:]
        for id in at_hand:
            assert service.registry.newest(id) == await store.get(id)
        assert (await service.get(ROOT, made[0])).state is State.COMPLETED


async def test_what_is_at_hand_is_light(tmp_path: Path) -> None:
    """The longest results of so many would take hundreds of megabytes."""
    store = MemoryStore()
    result: JSON = [[] for _ in range(1000)]
    async with running(store, table(EXTERNAL), str(tmp_path)) as service:
        id = (await service.start(ROOT, "external", {})).id
        ended = await service.complete(ROOT, id, result)
        await trio.testing.wait_all_tasks_blocked()
        assert service.registry.newest(id) is None
        assert await service.get(ROOT, id) == ended == await store.get(id)


async def test_what_is_destroyed_is_not_at_hand_though_it_is_not_shown_yet(tmp_path: Path) -> None:
    async with running(MemoryStore(), table(EXTERNAL), str(tmp_path)) as service:
        id = (await service.start(ROOT, "external", {})).id
        await service.complete(ROOT, id)
        await trio.testing.wait_all_tasks_blocked()
        ahead = service.registry.take(None)  # what the feed tells of waits behind it
        await service.destroy(ROOT, id)
        with pytest.raises(DoesNotExist):
            await service.get(ROOT, id)
        service.registry.give_up(ahead)


async def test_a_task_that_is_destroyed_in_vain_stays_at_hand(tmp_path: Path) -> None:
    store = StuckStore()
    async with running(store, table(EXTERNAL), str(tmp_path)) as service:
        id = (await service.start(ROOT, "external", {})).id
        ended = await service.complete(ROOT, id)
        await trio.testing.wait_all_tasks_blocked()
        store.full = True
        with pytest.raises(StoreUnavailable):
            await service.destroy(ROOT, id)
        assert service.registry.newest(id) == await store.get(id) == ended


@pytest.mark.parametrize("first", ["whole", "part"])
async def test_of_what_is_destroyed_nothing_is_kept_whichever_goes_first(tmp_path: Path, first: str) -> None:
    async with running(MemoryStore(), table(EXTERNAL), str(tmp_path)) as service:
        whole = (await service.start(ROOT, "external", {})).id
        part = (await service.start(ROOT, "external", {}, parent=whole)).id
        assert list(service.registry.parts(whole)) == [part]
        for id in (whole, part):
            await service.complete(ROOT, id)
        await trio.testing.wait_all_tasks_blocked()
        for id in (whole, part) if first == "whole" else (part, whole):
            await service.destroy(ROOT, id)
        assert service.registry._parts == {}


def lines(first: int, count: int) -> list[LogLine]:
    return [LogLine(n, Time(0.0), f"line {n}") for n in range(first, first + count)]


def test_a_line_belongs_to_the_change_that_it_is_shown_with() -> None:
    logs = Logs()
    logs.append("a", lines(0, 2), 10, 0, keep=100)
    logs.append("a", lines(2, 2), 20, 2, keep=100)

    def numbers(start: int, revision: int | None = None) -> list[int]:
        found = logs.after("a", start, revision)
        assert found is not None
        return [line.n for line in found]

    assert numbers(0) == [0, 1, 2, 3]
    assert numbers(1, 19) == [1]
    assert numbers(1, 20) == [1, 2, 3]
    assert numbers(0, 9) == []
    assert [logs.first_after("a", revision) for revision in (8, 9, 10, 19, 20)] == [0, 0, 2, 2, 4]
    assert logs.first_after("b", 10) is None


@pytest.mark.parametrize("revision", [9, 10])
def test_who_cannot_tell_what_came_first_says_so(revision: int) -> None:
    """Lines before those that are kept may belong there as well."""
    logs = Logs(limit=3 * (OVERHEAD + len("line 0")))
    logs.append("a", lines(0, 2), 10, 0, keep=100)
    logs.append("a", lines(2, 2), 10, 2, keep=100)

    assert logs.first_after("a", revision) == {9: None, 10: 4}[revision]
    assert logs.after("a", 0) is None


def test_a_line_that_the_store_lost_is_not_missed() -> None:
    """Its number is never given again, and whoever has read up to it has read all there is."""
    logs = Logs()
    logs.append("a", lines(5, 1), 10, 4, keep=100)
    logs.append("a", lines(8, 1), 11, 6, keep=100)

    assert [line.n for line in logs.after("a", 4) or ()] == [5, 8]
    assert [line.n for line in logs.after("a", 6) or ()] == [8]
    assert logs.after("a", 3) is None
    assert (logs.first_after("a", 10), logs.first_after("a", 9)) == (8, None)
    logs.append("b", lines(2, 1), 12, 0, keep=100)
    assert logs.first_after("b", 9) == 2


async def test_a_line_that_comes_with_a_report_belongs_to_it(tmp_path: Path) -> None:
    """Also while that cannot be shown yet, because something before it is not decided."""
    go = trio.Event()

    async def run(params: NoParams, handle: Handle) -> JSON:
        await go.wait()
        handle.progress(1, 2)
        await handle.log("a line")
        await trio.sleep_forever()

    async with running(MemoryStore(), table(operation(run)), str(tmp_path)) as service:
        registry = service.registry
        id = (await service.start(ROOT, "toy", {})).id
        await trio.testing.wait_all_tasks_blocked()
        ahead = registry.take(None)
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        after = registry.logs.first_after(id, ahead.revision)
        registry.give_up(ahead)
        change = registry.feed.newest(id)
        assert change is not None
        told = registry.logs.after(id, 0, change.revision)

    assert change.revision > ahead.revision
    assert after == 0
    assert [line.line for line in told or ()] == ["a line"]


def test_what_the_store_does_not_keep_is_not_kept_here_either() -> None:
    """Or a page of a log would have a gap in it, which nobody counts."""
    logs = Logs()
    logs.append("a", lines(0, 3), 10, 0, keep=2)

    assert logs.after("a", 0) is None
    assert [line.n for line in logs.after("a", 1) or ()] == [1, 2]


def test_a_task_that_was_made_under_a_claim_is_counted_once() -> None:
    """It was counted twice until the claim was let go of, and an owner was refused its last tasks."""
    registry = Registry()
    with registry.quota.claimed("ann", 2) as claim:
        registry.add(Live(task(owner="ann")), claim)
        assert registry.quota.taken("ann") == 1
    with pytest.raises(RuntimeError), registry.quota.claimed("ann", 2):
        raise RuntimeError

    assert registry.quota.taken("ann") == 1


async def test_a_task_that_holds_much_takes_several_units(autojump_clock: object, tmp_path: Path) -> None:
    """Or an owner of ten thousand tasks filled the memory with them, and each start of the daemon again."""
    store, much, many = MemoryStore(), "x" * 10 * UNIT, {str(n): "" for n in range(900)}
    wide = "\N{GRINNING FACE}" * 10 * UNIT
    async with running(store, table(EXTERNAL), str(tmp_path)) as service:
        taken = service.registry.quota.taken
        service.max_result_bytes = service.max_text = 20 * UNIT
        one, other = [(await service.start(ROOT, "external", {})).id for _ in range(2)]
        assert taken("root") == 2

        await service.update(ROOT, one, draft=lambda _: Draft(much))
        held = taken("root")
        assert held >= 12
        service.tasks_per_owner = held
        with pytest.raises(TooManyTasks):
            await service.update(ROOT, other, draft=lambda _: Draft(much))
        with pytest.raises(TooManyTasks):
            await service.annotate(ROOT, other, lambda _: many)
        for said in (
            {"annotations": many},
            {"description": wide},
            {"dbg": wide},
            {"label": wide},
            {"status": wide},
        ):
            with pytest.raises(TooManyTasks):
                await service.start(ROOT, "external", {}, **said)
        assert (await service.get(ROOT, other)).annotations == {}
        assert taken("root") == held

        await service.update(ROOT, one, draft=lambda _: Draft())  # what it took once it keeps
        await service.update(ROOT, other, progress=Report(fraction=0.5))
        with pytest.raises(TooManyTasks):
            await service.start(ROOT, "external", {})
        service.tasks_per_owner = held + 1
        third = (await service.start(ROOT, "external", {})).id
        await service.complete(ROOT, third, much)
        await service.update(ROOT, one, draft=lambda _: Draft(much))
        assert taken("root") == held

    async with running(store, table(EXTERNAL), str(tmp_path)) as service:
        assert service.registry.quota.taken("root") == held
        await service.complete(ROOT, one, "done")
        await service.complete(ROOT, other)
        await trio.testing.wait_all_tasks_blocked()
        assert service.registry.quota.taken("root") == 0


def test_one_task_may_always_be_made_however_much_it_holds() -> None:
    quota = Registry().quota
    with quota.claimed("ann", 5, "x" * 100 * UNIT), pytest.raises(TooManyTasks), quota.claimed("ann", 5):
        raise AssertionError
    assert quota.taken("ann") == 0


# Revisions: none is used that was not set aside.


def no_room(connection: sqlite3.Connection, count: int) -> int:
    raise sqlite3.OperationalError("database or disk is full")


async def test_no_task_is_stored_with_a_revision_that_was_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk was full for long, and has room again just before the store tries to set some aside."""
    monkeypatch.setattr("taskd.registry.BLOCK", 100)
    path = tmp_path / "taskd.sqlite"
    store, stored = await SqliteStore.open(path), 0
    async with running(store, table(EXTERNAL), str(tmp_path / "work")) as service:
        id = (await service.start(ROOT, "external", {})).id
        monkeypatch.setattr(rows, "reserve", no_room)
        while service.registry.touch() is not None:
            pass
        await trio.testing.wait_all_tasks_blocked(0.1)  # until that was tried, in vain
        for change in (service.start(ROOT, "external", {}), service.complete(ROOT, id)):
            with suppress(StoreUnavailable):
                await change
                stored += 1
    await store.close()

    store = await SqliteStore.open(path)  # which refuses a revision that was never given
    assert (stored, [task.id for task in await store.open_tasks()]) == (0, [id])
    await store.close()


async def test_calls_leave_revisions_for_the_undo_that_may_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    monkeypatch.setattr("taskd.registry.BLOCK", 100)
    store, world = StuckStore(), World()
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
        await trio.testing.wait_all_tasks_blocked()
        store.full = True
        while service.registry.touch() is not None:
            pass
        for _ in range(200):
            with pytest.raises(StoreUnavailable):
                await service.start(ROOT, "toy", {})
        await undone_before_it_is_told(service, store, world, id)


async def test_what_is_destroyed_when_no_revision_is_left_is_shown_when_there_are_some(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """It cannot be refused any more. Here it takes three blocks, one after the other."""
    monkeypatch.setattr("taskd.registry.BLOCK", 100)
    store, registry = StuckStore(), Registry()
    async with trio.open_nursery() as nursery:
        await nursery.start(registry.keep_revisions, store.reserve)
        store.full = True
        registry.forget(task() for _ in range(300))
        assert registry.feed.revision == 100
        with pytest.raises(StoreUnavailable):
            registry.take(None, best_effort=True)
        store.full = False
        with trio.fail_after(60):
            while registry.feed.revision < 300:
                await registry.feed.moved()
        await trio.testing.wait_all_tasks_blocked()
        assert await store.reserve(1) == 401
        registry.give_up(registry.take(None))
        nursery.cancel_scope.cancel()
