"""What a store that refuses, or takes its time, leaves behind: nothing stranded, nothing told that is not so."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from taskd.dialects.xenapi import XenApi
from taskd.errors import BadParams, DoesNotExist, IllegalMove, StoreUnavailable
from taskd.model import Failure, Progress, Task, Time, Undo
from taskd.operations import Handle
from taskd.registry import Live
from taskd.runner.handle import advanced
from taskd.service import Query, Report, Service, bounds, notes
from taskd.service.report import reported
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, bounded, ended, running, user
from tests.dialects.client import login
from tests.stores import SlowStore, StuckStore
from tests.test_runner import NoParams, World, operation, reached, residual, table
from tests.test_watching import ALICE, BOB, Fold, follow, serving


@attrs.define
class Finish:
    """A finish of two steps, of which the first is impossible while it is ``broken``."""

    broken: bool = True
    done: list[str] = attrs.field(factory=list)

    async def run(self, params: NoParams, handle: Handle) -> object:
        await handle.commit("r", [Undo("one"), Undo("two")])
        return None

    async def one(self) -> None:
        if self.broken:
            raise OSError(16, "Device or resource busy")
        self.done.append("one")

    async def two(self) -> None:
        self.done.append("two")

    async def owing(self, service: Service) -> Task:
        """A committed task that could not do its finish."""
        task = await reached(service, (await service.start(ROOT, "toy", {})).id, State.COMMITTED)
        live = service.registry.get(task.id)
        assert live is not None
        while not live.task.residue:
            await live.changed()
        return live.task


# What is given up.


async def test_a_forced_destroy_that_cannot_be_written_leaves_the_finish_to_be_done(
    tmp_path: Path, autojump_clock: object
) -> None:
    finish, store = Finish(), StuckStore()
    kind = operation(finish.run, verbs={"one": finish.one, "two": finish.two})
    async with running(store, table(kind), str(tmp_path)) as service:
        task = await finish.owing(service)
        store.full = True
        with pytest.raises(StoreUnavailable):
            await service.destroy(ROOT, task.id, force=True)
        store.full = finish.broken = False

        end = await ended(service, task.id)
        assert (end.state, end.residue, finish.done) == (State.COMPLETED, (), ["one", "two"])


async def test_a_finish_that_succeeds_while_its_task_is_given_up_disturbs_nobody(
    tmp_path: Path, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    finish, go = Finish(), trio.Event()

    async def one() -> None:
        if finish.broken:
            raise OSError(16, "Device or resource busy")
        await go.wait()

    kind = operation(finish.run, verbs={"one": one, "two": finish.two})
    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        task = await finish.owing(service)
        finish.broken = False
        await trio.sleep(1000)
        await service.destroy(ROOT, task.id, force=True)
        go.set()
        await trio.sleep(1000)

        assert await service.newest(task.id) is None
    assert "could not be attended" not in caplog.text


async def test_only_a_failed_task_has_an_undo_to_be_tried_again(tmp_path: Path, autojump_clock: object) -> None:
    finish = Finish()
    kind = operation(finish.run, verbs={"one": finish.one, "two": finish.two})
    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        task = await finish.owing(service)
        with pytest.raises(IllegalMove, match="recovered"):
            await service.runner.recover(Live.again(task))


@pytest.mark.parametrize("waits", ["wait", "recover"])
async def test_who_waits_for_a_task_that_is_given_up_is_told(
    tmp_path: Path, autojump_clock: object, waits: str
) -> None:
    finish, told = Finish(), trio.Event()
    kind = operation(finish.run, verbs={"one": finish.one, "two": finish.two})

    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        task = await finish.owing(service)

        async def wait() -> None:
            with pytest.raises(DoesNotExist):
                await (service.wait(ROOT, task.id) if waits == "wait" else service.recover(ROOT, task.id))
            told.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await service.destroy(ROOT, task.id, force=True)
            with bounded():
                await told.wait()


# What is alive once more.


@pytest.mark.parametrize("forgotten", [False, True], ids=["lines in memory", "lines on disk"])
async def test_the_log_is_there_while_a_task_is_recovered(
    tmp_path: Path, autojump_clock: object, forgotten: bool
) -> None:
    world = World(undo_failures=5)

    async def run(params: NoParams, handle: Handle) -> object:
        await handle.log("a line")
        return await world.run(params, handle)

    kind = attrs.evolve(world.operation(), run=run)
    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        task = await residual(service)
        if forgotten:
            service.registry.logs.forget(task.id)
        world.undo_failures = 3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(service.recover, ROOT, task.id))
            await trio.testing.wait_all_tasks_blocked()
            assert [line.line for line in await service.log(ROOT, task.id)] == ["a line"]
            fold = Fold()
            nursery.start_soon(partial(follow, service, ROOT, fold, ids=[task.id]))
            await trio.sleep(60)
            nursery.cancel_scope.cancel()
        assert fold.lines(task.id) == ["a line"]


async def test_the_log_is_there_while_a_destroy_is_refused(tmp_path: Path, autojump_clock: object) -> None:
    go = trio.Event()

    class Store(MemoryStore):
        async def delete(self, id: str) -> None:
            await go.wait()
            raise StoreUnavailable("the disk is gone")

    async def destroy(id: str) -> None:
        with pytest.raises(StoreUnavailable):
            await service.destroy(ROOT, id)

    async with serving(tmp_path, store=Store()) as (service, nursery):
        task = await service.start(ROOT, "external", {})
        await service.update(ROOT, task.id, log=["one"])
        await service.complete(ROOT, task.id)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(destroy, task.id)
        await trio.testing.wait_all_tasks_blocked()

        assert [line.line for line in await service.log(ROOT, task.id)] == ["one"]
        go.set()


async def test_a_task_is_told_to_be_gone_only_when_it_is(tmp_path: Path, autojump_clock: object) -> None:
    store = StuckStore()
    async with serving(tmp_path, store=store) as (service, _):
        task = await service.start(ROOT, "external", {})
        end = await service.complete(ROOT, task.id)
        await trio.testing.wait_all_tasks_blocked()
        revision, store.full = service.registry.feed.revision, True
        with pytest.raises(StoreUnavailable):
            await service.destroy(ROOT, task.id)

        assert service.registry.feed.since(revision) == []
        assert await service.get(ROOT, task.id) == end
        store.full = False
        await service.destroy(ROOT, task.id)
        assert [change.gone for change in service.registry.feed.since(revision)] == [True]


# A cancel.


async def test_a_cancel_that_the_store_refused_is_shown_and_noted_with_the_next_change(
    tmp_path: Path, autojump_clock: object
) -> None:
    store = StuckStore()
    async with serving(tmp_path, store=store) as (service, _):
        task = await service.start(ROOT, "external", {})
        store.full = True
        with pytest.raises(StoreUnavailable):
            await service.cancel(ROOT, task.id)
        assert (await service.get(ROOT, task.id)).cancel_requested
        store.full = False
        await service.update(ROOT, task.id, status="x")

        kept = await store.get(task.id)
        assert kept is not None
        assert kept.cancel_requested


async def test_a_producer_that_fails_after_a_cancel_that_was_refused_has_obeyed_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    store = StuckStore()
    async with serving(tmp_path, store=store) as (service, _):
        task = await service.start(ROOT, "external", {})
        store.full = True
        with pytest.raises(StoreUnavailable):
            await service.cancel(ROOT, task.id)
        store.full = False

        end = await service.fail(ROOT, task.id, Failure("X", "broke"))
        assert (end.state, end.cancel_requested) == (State.CANCELLED, True)


# Reports.


async def test_a_producer_that_waited_for_our_store_is_not_lost(tmp_path: Path, autojump_clock: object) -> None:
    store = SlowStore()
    async with serving(tmp_path, store=store) as (service, nursery):
        task = await service.start(ROOT, "external", {"heartbeat_s": 10})
        store.held.add(task.id)
        nursery.start_soon(partial(service.update, ROOT, task.id, status="alive"))
        await trio.sleep(20)
        store.held.clear()
        store.go.set()
        await trio.sleep(9)  # within the heartbeat of the answer

        assert (await service.get(ROOT, task.id)).state is State.RUNNING


async def test_lines_that_were_refused_with_their_report_have_no_numbers(tmp_path: Path) -> None:
    store = StuckStore()
    async with serving(tmp_path, store=store) as (service, _):
        task = await service.start(ROOT, "external", {})
        store.full = True
        with pytest.raises(StoreUnavailable):
            await service.update(ROOT, task.id, log=["a", "b"])
        store.full = False
        await service.update(ROOT, task.id, log=["a", "b"])

        assert [(line.n, line.line) for line in await service.log(ROOT, task.id)] == [(0, "a"), (1, "b")]


async def test_revisions_do_not_go_back_over_a_crash(tmp_path: Path, autojump_clock: object) -> None:
    """The progress that was shown last is forgotten, but not that its revision was given."""
    go = trio.Event()

    async def run(params: NoParams, handle: Handle) -> object:
        for n in range(5):
            handle.progress(n, 5)
        go.set()
        return await trio.sleep_forever()

    store = MemoryStore()
    kind = operation(run, restartable=True)
    async with running(store, table(kind), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await go.wait()
        seen, store = await service.get(ROOT, id), store.photograph()
    async with running(store, table(kind), str(tmp_path)) as service:
        assert (await service.get(ROOT, id)).revision > seen.revision


def test_a_movement_is_never_earlier_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Progress(done=1, total=9, unit="bytes", moved_at=Time(5.0))
    monkeypatch.setattr(time, "time", lambda: 3.0)

    assert advanced(old, 2, 9, "bytes", 0.5).moved_at == 5.0
    assert reported(old, Report(done=2)).moved_at == 5.0
    assert reported(old, Report(done=2, unit="files")).moved_at == 5.0


# Lists.


async def test_a_task_that_is_only_being_made_is_in_no_list(tmp_path: Path, autojump_clock: object) -> None:
    """Its place in the order of changes waits for another's, which the store is slow to write."""
    store = SlowStore()
    async with serving(tmp_path, store=store) as (service, nursery):
        slow = await service.start(ROOT, "external", {})
        store.held.add(slow.id)
        nursery.start_soon(partial(service.update, ROOT, slow.id, status="x"))
        await store.waiting.wait()
        nursery.start_soon(partial(service.start, ROOT, "external", {}, label="new"))
        await trio.testing.wait_all_tasks_blocked()

        fold = Fold()
        nursery.start_soon(follow, service, ROOT, fold)
        await fold.synced.wait()
        listed = {task.id for task in await service.list(ROOT, Query())}
        store.go.set()
        assert (set(fold.tasks), listed) == ({slow.id}, {slow.id})


async def test_who_asks_for_somebody_elses_tasks_gets_none_and_not_their_own(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _):
        for caller in (ALICE, BOB):
            await service.start(caller, "external", {})

        assert await service.list(ALICE, Query(owner="bob")) == ()
        assert [task.owner for task in await service.list(user("bob", 1001), Query(owner="bob"))] == ["bob"]


# What is said in one report.


@pytest.mark.parametrize(
    ("log", "fault"), [([""] * 1001, "1000 lines"), (["x" * 600_000] * 2, "1048576 characters")]
)
def test_a_report_has_an_end_to_its_lines(log: list[str], fault: str) -> None:
    bounds.lines(["x" * 1000] * 1000)
    with pytest.raises(BadParams, match=rf"params\.log.*{fault}"):
        bounds.lines(log)


def test_each_note_counts_for_something_though_it_be_empty() -> None:
    most = notes.ANNOTATIONS // (notes.EACH + 4)
    assert len(notes.changed({}, lambda _: {f"{n:04}": "" for n in range(most)})) == most
    with pytest.raises(BadParams, match="annotations"):
        notes.changed({}, lambda _: {f"{n:04}": "" for n in range(most + 1)})


async def test_what_was_said_of_the_outcome_counts_with_an_end_that_waits_behind_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    store = SlowStore()
    async with serving(tmp_path, store=store) as (service, nursery):
        client = await login(XenApi(service), ROOT)
        ref = await client("task.create", "", "")
        id = ref.removeprefix("OpaqueRef:")
        store.held.add(id)
        nursery.start_soon(client, "task.set_result", ref, "<value>r</value>")
        await store.waiting.wait()
        nursery.start_soon(client, "task.set_status", ref, "success")
        await trio.testing.wait_all_tasks_blocked()
        store.go.set()

        assert (await ended(service, id)).result == "<value>r</value>"
