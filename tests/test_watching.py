"""Watching without losing anything: snapshot, changes in order, resumption, resync, whole logs (law L8)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd.errors import BadParams, DoesNotExist
from taskd.model import Caller, Failure, LogLine, Task, Time, Undo
from taskd.operations import Handle, Operation, external
from taskd.registry import Feed, Logs
from taskd.registry import feed as place
from taskd.service import Report, Service
from taskd.service import watching as law
from taskd.service.watching import Kind, Notice
from taskd.states import State
from taskd.store import Store
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT, Steps, bounded, ended, running, user

ALICE, BOB = user("alice", 1000), user("bob", 1001)


@attrs.frozen
class ToyParams:
    pass


def toy(steps: int = 3) -> Operation:
    """Moves, logs and commits; all of it in a few steps."""

    async def run(params: ToyParams, handle: Handle) -> object:
        await handle.journal("nothing")
        for n in range(steps):
            handle.progress(n + 1, steps, "steps")
            await handle.log(f"line {n}", f"and {n}")
        await handle.commit({"steps": steps}, [Undo("nothing")])
        return None

    async def nothing() -> None:
        await trio.lowlevel.checkpoint()

    return Operation(
        name="toy",
        summary="",
        params=ToyParams,
        run=run,
        verbs={"nothing": nothing},
        roles=frozenset({"admin", "user"}),
    )


@attrs.define
class Fold:
    """What a client knows that is told these notices, and where it would go on."""

    tasks: dict[str, Task] = attrs.field(factory=dict)
    logs: dict[str, list[LogLine]] = attrs.field(factory=dict)
    kinds: list[Kind] = attrs.field(factory=list)
    revisions: list[int] = attrs.field(factory=list)
    since: int | None = None
    stale: set[str] = attrs.field(factory=set)
    synced: trio.Event = attrs.field(factory=trio.Event)

    def take(self, notice: Notice) -> None:
        task = notice.task
        self.kinds.append(notice.kind)
        match notice.kind:
            case Kind.RESYNC:
                self.stale = {id for id, task in self.tasks.items() if not task.state.ended}
            case Kind.SYNCED:
                for id in self.stale:
                    del self.tasks[id]
                self.stale = set()
                self.synced.set()
            case Kind.DESTROYED:
                assert task is not None
                self.tasks.pop(task.id, None)
            case Kind.LOG:
                assert task is not None
                self.logs.setdefault(task.id, []).extend(notice.lines)
            case _:
                assert task is not None
                known = self.tasks.get(task.id)
                assert known is None or known.revision <= task.revision
                self.tasks[task.id] = task
                self.stale.discard(task.id)
        if notice.kind in (Kind.SYNCED, Kind.CHANGED, Kind.DESTROYED):
            self.since = notice.revision
        if notice.kind in (Kind.CHANGED, Kind.DESTROYED):
            self.revisions.append(notice.revision)

    def lines(self, id: str) -> Sequence[str]:
        return [line.line for line in self.logs.get(id, ())]

    @property
    def log_from(self) -> Mapping[str, int]:
        return {id: lines[-1].n + 1 for id, lines in self.logs.items()}


async def follow(service: Service, caller: Caller, fold: Fold, **asked: Any) -> None:
    """Run a watch into ``fold`` until cancelled."""
    watch = await law.begin(service, caller, log=True, **asked)

    async def tell(notices: Sequence[Notice]) -> None:
        for notice in notices:
            fold.take(notice)
        await trio.lowlevel.checkpoint()

    await watch.run(tell)


@asynccontextmanager
async def serving(
    folder: Path, *operations: Operation, store: Store | None = None
) -> AsyncIterator[tuple[Service, trio.Nursery]]:
    table = {each.name: each for each in (*operations, external.OPERATION)}
    async with running(store or MemoryStore(), table, str(folder / "workspace")) as service:
        async with trio.open_nursery() as nursery:
            yield service, nursery
            nursery.cancel_scope.cancel()


async def quiet(service: Service) -> None:
    """Everything that has happened was told."""
    await trio.sleep(10 * law.CALM)


def external_task(owner: str = "o", processor: str = "p", id: str = "an id", **more: Any) -> Task:
    return Task(
        id=id,
        operation="external",
        params={},
        owner=owner,
        processor=processor,
        resident_on="host",
        created_at=Time(0.0),
        **more,
    )


async def truth(service: Service, id: str) -> tuple[State, Sequence[str]]:
    task = await service.get(ROOT, id)
    return task.state, [line.line for line in await service.log(ROOT, id)]


# What is told.


async def test_first_what_there_is_then_every_change_in_order(tmp_path: Path, autojump_clock: object) -> None:
    async with serving(tmp_path) as (service, nursery):
        old = await service.start(ROOT, "external", {})
        done = await service.start(ROOT, "external", {})
        await service.complete(ROOT, done.id)
        fold = Fold()
        nursery.start_soon(follow, service, ROOT, fold)
        await fold.synced.wait()
        assert (set(fold.tasks), fold.kinds) == ({old.id}, [Kind.SNAPSHOT, Kind.SYNCED])

        new = await service.start(ROOT, "external", {})
        await quiet(service)
        await service.update(ROOT, old.id, status="moving")
        await service.fail(ROOT, new.id, Failure("X", "it broke"))
        await service.destroy(ROOT, new.id)
        await quiet(service)

        assert fold.revisions == sorted(fold.revisions)
        assert fold.kinds[-1] is Kind.DESTROYED
        assert {id: task.status for id, task in fold.tasks.items()} == {old.id: "moving"}


async def test_the_many_watches_of_one_user_do_not_keep_anothers_waiting(
    tmp_path: Path, autojump_clock: object
) -> None:
    """They make changes gather, for half a second at most."""
    async with serving(tmp_path) as (service, nursery):
        task = await service.start(ROOT, "external", {})
        told: list[float] = []
        fold = Fold()
        watch = await law.begin(service, ROOT)

        async def tell(notices: Sequence[Notice]) -> None:
            for notice in notices:
                fold.take(notice)
            if Kind.CHANGED in fold.kinds:
                told.append(trio.current_time())

        with ExitStack() as crowd:
            for _ in range(1024 * 64):
                crowd.enter_context(service.registry.feed.bell())
            nursery.start_soon(watch.run, tell)
            await fold.synced.wait()
            for status in ("one", "two"):
                await service.update(ROOT, task.id, status=status)
                await quiet(service)
                await trio.sleep(law.CROWDED)
            await trio.sleep(100)
        assert len(told) == 2
        assert law.CALM < told[1] - told[0] <= 2 * law.CROWDED
        assert service.registry.feed.crowd == 1


async def test_what_happens_while_a_watch_tells_what_there_is_is_told_after_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        ids = [(await service.start(ROOT, "external", {})).id for _ in range(law.BATCH + 10)]
        fold, began = Fold(), False
        watch = await law.begin(service, ROOT)

        async def tell(notices: Sequence[Notice]) -> None:
            nonlocal began
            for notice in notices:
                fold.take(notice)
            if not began:
                began = True
                for id in (ids[0], ids[-1]):
                    await service.update(ROOT, id, status="moved")

        nursery.start_soon(watch.run, tell)
        await fold.synced.wait()
        await quiet(service)

        assert [fold.tasks[id].status for id in (ids[0], ids[1], ids[-1])] == ["moved", None, "moved"]


async def test_a_slow_watcher_sees_the_latest_not_the_backlog_and_every_line(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        task = await service.start(ROOT, "external", {})
        fold, go_on = Fold(), trio.Event()
        watch = await law.begin(service, ROOT, log=True)

        async def tell(notices: Sequence[Notice]) -> None:
            for notice in notices:
                fold.take(notice)
            if Kind.CHANGED in {notice.kind for notice in notices}:
                await go_on.wait()

        nursery.start_soon(watch.run, tell)
        await fold.synced.wait()
        for n in range(500):
            await service.update(ROOT, task.id, progress=Report(done=n, total=1000), log=[f"line {n}"])
            if n == 0:
                await quiet(service)
        await service.complete(ROOT, task.id)
        go_on.set()
        await quiet(service)

        assert fold.kinds.count(Kind.CHANGED) == 2  # the one it was stuck at, and the last
        assert fold.tasks[task.id].state is State.COMPLETED
        assert fold.lines(task.id) == [f"line {n}" for n in range(500)]


async def test_a_lagging_watcher_reads_on_from_its_index_though_memory_has_forgotten(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        service.registry.logs = Logs(limit=1000)
        task = await service.start(ROOT, "external", {})
        await service.update(ROOT, task.id, log=[f"early {n}" for n in range(2 * law.PAGE + 3)])
        fold = Fold()
        nursery.start_soon(follow, service, ROOT, fold)
        await fold.synced.wait()
        await service.update(ROOT, task.id, log=["late"])
        await quiet(service)

        assert fold.lines(task.id) == [*(f"early {n}" for n in range(2 * law.PAGE + 3)), "late"]
        assert fold.kinds[:4] == [Kind.LOG, Kind.LOG, Kind.LOG, Kind.SNAPSHOT]


async def test_nobody_is_told_of_what_is_not_theirs(tmp_path: Path, autojump_clock: object) -> None:
    async with serving(tmp_path) as (service, nursery):
        bobs = await service.start(BOB, "external", {})
        folds = {who: Fold() for who in (ALICE, BOB, ROOT)}
        for who, fold in folds.items():
            nursery.start_soon(follow, service, who, fold)
        await quiet(service)
        alices = await service.start(ALICE, "external", {})
        await service.update(BOB, bobs.id, log=["private"])
        await quiet(service)

        assert set(folds[ALICE].tasks) == {alices.id}
        assert set(folds[BOB].tasks) == {bobs.id}
        assert set(folds[ROOT].tasks) == {alices.id, bobs.id}
        assert bobs.id not in folds[ALICE].logs


async def test_a_watch_of_some_tasks_knows_them_in_any_state_and_no_others(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        done, going, other = [await service.start(ROOT, "external", {}) for _ in range(3)]
        await service.complete(ROOT, done.id)
        fold = Fold()
        nursery.start_soon(partial(follow, service, ROOT, fold, ids=[done.id, going.id]))
        await fold.synced.wait()
        await service.update(ROOT, other.id, status="no matter")
        await service.complete(ROOT, going.id)
        await service.destroy(ROOT, done.id)
        await quiet(service)

        assert {id: task.state for id, task in fold.tasks.items()} == {going.id: State.COMPLETED}
        assert fold.kinds.count(Kind.DESTROYED) == 1


async def test_a_task_that_is_not_there_cannot_be_watched_and_a_foreign_one_is_not_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _):
        bobs = await service.start(BOB, "external", {})
        for id in ("nothing", bobs.id):
            with pytest.raises(DoesNotExist, match=f"no task {id}"):
                await law.begin(service, ALICE, [id])
        for ids in ([], [bobs.id] * (law.MOST + 1)):
            with pytest.raises(BadParams, match=r"params\.ids"):
                await law.begin(service, BOB, ids)


# Going on after a disconnect.


async def test_a_watch_goes_on_where_another_ended_wherever_that_was(
    tmp_path: Path, autojump_clock: object
) -> None:
    """For every n: the connection breaks after the n-th notice; with the next one nothing is missing."""
    n, broke = 0, True
    while broke:
        n, broke = n + 1, False
        async with serving(tmp_path / str(n), toy()) as (service, nursery):
            fold = Fold()
            watch = await law.begin(service, ROOT, log=True)

            async def tell(notices: Sequence[Notice], fold: Fold = fold, last: int = n) -> None:
                for notice in notices:
                    fold.take(notice)
                    if len(fold.kinds) == last:
                        raise ConnectionResetError

            async def until_it_breaks(run: Any = watch.run, tell: Any = tell) -> None:
                nonlocal broke
                try:
                    await run(tell)
                except ConnectionResetError:
                    broke = True

            nursery.start_soon(until_it_breaks)
            await fold.synced.wait()  # who has not come so far starts afresh
            first = await service.start(ROOT, "toy", {})
            second = await service.start(ROOT, "external", {})
            await ended(service, first.id)
            await quiet(service)
            await service.update(ROOT, second.id, log=["one", "two"])
            await quiet(service)
            await service.complete(ROOT, second.id)
            await quiet(service)
            nursery.start_soon(partial(follow, service, ROOT, fold, since=fold.since, log_from=fold.log_from))
            await quiet(service)

            for id in (first.id, second.id):
                assert (fold.tasks[id].state, fold.lines(id)) == await truth(service, id), n
    assert n > 7


async def test_a_revision_that_is_too_old_gets_a_resync_with_all_that_has_ended_since(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        service.registry.feed.limit = 3
        ends, goes, dies = [await service.start(ROOT, "external", {}) for _ in range(3)]
        before = await service.start(ROOT, "external", {})
        await service.complete(ROOT, before.id)
        fold = Fold()
        with trio.CancelScope() as first:
            nursery.start_soon(follow, service, ROOT, fold)
            await fold.synced.wait()
            first.cancel()
        since = fold.since
        await service.update(ROOT, goes.id, status="on", log=["a", "b"])
        await service.complete(ROOT, ends.id)
        await service.complete(ROOT, dies.id)
        await service.destroy(ROOT, dies.id)
        for _ in range(4):
            await service.complete(ROOT, (await service.start(ROOT, "external", {})).id)
        again = Fold(tasks=dict(fold.tasks), since=since)
        nursery.start_soon(partial(follow, service, ROOT, again, since=since))
        await quiet(service)

        assert again.kinds[0] is Kind.RESYNC
        assert again.kinds.count(Kind.SYNCED) == 1
        assert again.tasks[ends.id].state is State.COMPLETED
        assert again.tasks[goes.id].status == "on"
        assert again.lines(goes.id) == ["a", "b"]
        assert dies.id not in again.tasks
        assert before.id not in again.tasks


async def test_a_watcher_that_lags_beyond_the_feed_is_resynced_and_ends_with_the_truth(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        service.registry.feed.limit = 5
        fold, go_on = Fold(), trio.Event()
        watch = await law.begin(service, ROOT, log=True)

        async def tell(notices: Sequence[Notice]) -> None:
            for notice in notices:
                fold.take(notice)
            if Kind.CHANGED in {notice.kind for notice in notices}:
                await go_on.wait()

        nursery.start_soon(watch.run, tell)
        tasks = [await service.start(ROOT, "external", {}) for _ in range(20)]
        for task in tasks[::2]:
            await service.update(ROOT, task.id, log=["a line"])
            await service.complete(ROOT, task.id)
        go_on.set()
        await quiet(service)

        assert Kind.RESYNC in fold.kinds
        for n, task in enumerate(tasks):
            assert fold.tasks[task.id].state is (State.RUNNING if n % 2 else State.COMPLETED)
            assert fold.lines(task.id) == ([] if n % 2 else ["a line"])


async def test_a_revision_of_another_run_is_too_old(tmp_path: Path, autojump_clock: object) -> None:
    store = MemoryStore()
    async with serving(tmp_path, store=store) as (service, _):
        task = await service.start(ROOT, "external", {})
        since = service.registry.feed.revision
    async with serving(tmp_path, store=store) as (service, nursery):
        for asked in (since, since + 10**9):
            fold = Fold()
            nursery.start_soon(partial(follow, service, ROOT, fold, since=asked))
            await fold.synced.wait()
            assert (fold.kinds[0], set(fold.tasks)) == (Kind.RESYNC, {task.id})


# At any moment.


@pytest.mark.parametrize("make", [MemoryStore, SqliteStore], ids=["memory", "sqlite"])
async def test_whoever_begins_at_any_step_ends_with_the_true_state_and_the_whole_log(
    tmp_path: Path, make: type
) -> None:
    """For every n: a watcher begins before the task's n-th step."""
    n, begun = 0, True
    while begun:
        n, begun = n + 1, False
        folder = tmp_path / str(n)
        folder.mkdir()
        store = MemoryStore() if make is MemoryStore else await SqliteStore.open(folder / "taskd.sqlite")
        async with serving(folder, toy(), store=store) as (service, nursery):
            fold = Fold()

            def begin(service: Service = service, nursery: trio.Nursery = nursery, fold: Fold = fold) -> None:
                nonlocal begun
                begun = True
                nursery.start_soon(follow, service, ROOT, fold)

            steps = Steps(n, begin)
            trio.lowlevel.add_instrument(steps)
            task = await service.start(ROOT, "toy", {})
            await ended(service, task.id)
            trio.lowlevel.remove_instrument(steps)
            if begun:
                with bounded():
                    await fold.synced.wait()
                    if task.id in fold.tasks:
                        while not fold.tasks[task.id].state.ended:
                            await trio.sleep(0.001)
                        assert (fold.tasks[task.id].state, fold.lines(task.id)) == await truth(service, task.id)
        await store.close()
    assert n > 10


async def test_many_watchers_of_many_changes_all_end_with_the_truth(
    tmp_path: Path, autojump_clock: object
) -> None:
    """A hundred, a tenth of them slow; benchmarks have a thousand."""
    async with serving(tmp_path) as (service, nursery):
        tasks = [await service.start(ROOT, "external", {}) for _ in range(10)]
        folds = [Fold() for _ in range(100)]

        async def slowly(fold: Fold) -> None:
            async def tell(notices: Sequence[Notice]) -> None:
                for notice in notices:
                    fold.take(notice)
                await trio.sleep(0.1)

            await (await law.begin(service, ROOT, log=True)).run(tell)

        for n, fold in enumerate(folds):
            nursery.start_soon(*((slowly, fold) if n % 10 == 0 else (follow, service, ROOT, fold)))
        for n in range(1000):
            task = tasks[n % 10]
            await service.update(ROOT, task.id, progress=Report(done=n), log=[f"line {n}"])
            if n % 100 == 0:
                await trio.sleep(0.01)
        for task in tasks[:5]:
            await service.complete(ROOT, task.id)
        await trio.sleep(3600)

        for task in tasks:
            expected = await truth(service, task.id)
            assert {(fold.tasks[task.id].state, tuple(fold.lines(task.id))) for fold in folds} == {
                (expected[0], tuple(expected[1]))
            }


async def test_a_watch_that_is_over_leaves_no_bell_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, nursery):
        task = await service.start(ALICE, "external", {})
        for asked in ({}, {"ids": [task.id]}):
            with trio.CancelScope() as scope:
                fold = Fold()

                async def stop_when_synced(fold: Fold = fold, scope: trio.CancelScope = scope) -> None:
                    await fold.synced.wait()
                    scope.cancel()

                nursery.start_soon(stop_when_synced)
                await follow(service, ALICE, fold, **asked)
        assert service.registry.feed._bells == {}


async def test_a_change_rings_those_whom_it_concerns_and_nobody_else(autojump_clock: object) -> None:
    feed = Feed()
    task = external_task(owner="alice", processor="builder")
    places = {
        "everything": place.EVERYTHING,
        "the task": place.one(task.id),
        "the owner": place.of("alice"),
        "the processor": place.of("builder"),
        "another task": place.one("other"),
        "another user": place.of("bob"),
    }
    with ExitStack() as stack:
        bells = {name: stack.enter_context(feed.bell(where)) for name, where in places.items()}
        feed.begin(1)
        feed.put(1, task, born=True)
        rung = set()
        for name, bell in bells.items():
            with trio.move_on_after(1):
                await bell.wait()
                rung.add(name)

    assert rung == {"everything", "the task", "the owner", "the processor"}
