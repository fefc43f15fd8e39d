"""What a runner owes beside the sweeps: queues, deadlines, undo that fails, a store that cannot write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd.errors import StoreUnavailable, TaskInProgress, TooManyTasks
from taskd.model import JSON, Failure, LogLine, Task, Undo
from taskd.operations import Handle, Operation, Operations
from taskd.operations.external import OPERATION as EXTERNAL
from taskd.runner import ATTEMPTS, PATIENCE, Answer
from taskd.service import Service
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, ended, running
from tests.stores import StuckStore


@attrs.frozen
class NoParams:
    pass


Run = Callable[[NoParams, Handle], Awaitable[JSON]]


def operation(run: Run, **more: object) -> Operation:
    return Operation("toy", "", NoParams, run, **more)  # type: ignore[arg-type]  # of many types


def table(*operations: Operation) -> Operations:
    return {each.name: each for each in operations}


async def forever(params: NoParams, handle: Handle) -> JSON:
    await trio.sleep_forever()


async def at_once(params: NoParams, handle: Handle) -> JSON:
    return {"answer": 42}


async def reached(service: Service, id: str, state: State) -> Task:
    """The task, as soon as it is in that state."""
    live = service.registry.get(id)
    with trio.fail_after(600):
        while live is not None and live.task.state is not state:
            await live.changed()
    assert live is not None
    return live.task


@attrs.define
class World:
    """A thing that an operation makes, and its undo breaks as often as it is told."""

    made: bool = False
    undo_failures: int = 0
    undone: int = 0

    async def run(self, params: NoParams, handle: Handle) -> JSON:
        await handle.journal("unmake")
        self.made = True
        await trio.sleep_forever()

    async def unmake(self) -> None:
        if self.undo_failures > 0:
            self.undo_failures -= 1
            raise OSError(16, "Device or resource busy")
        self.made = False
        self.undone += 1

    def operation(self, **more: object) -> Operation:
        return operation(self.run, verbs={"unmake": self.unmake}, **more)


async def test_a_returned_value_is_committed_as_the_result(autojump_clock: object, tmp_path: Path) -> None:
    async with running(MemoryStore(), table(operation(at_once)), str(tmp_path)) as service:
        task = await ended(service, (await service.start(ROOT, "toy", {})).id)

    assert (task.state, task.result, task.progress.fraction) == (State.COMPLETED, {"answer": 42}, 1.0)
    assert task.started_at is not None
    assert task.finished_at is not None
    assert not task.cancellable


async def test_operations_beyond_the_limit_are_queued_in_order(autojump_clock: object, tmp_path: Path) -> None:
    begun: list[str] = []

    async def run(params: NoParams, handle: Handle) -> JSON:
        begun.append(handle.id)
        await trio.sleep(1)
        return None

    async with running(MemoryStore(), table(operation(run)), str(tmp_path), running_tasks=1) as service:
        ids = [(await service.start(ROOT, "toy", {})).id for _ in range(3)]
        await reached(service, ids[0], State.RUNNING)
        assert [(await service.get(ROOT, id)).state for id in ids[1:]] == [State.QUEUED] * 2
        for id in ids:
            await ended(service, id)

    assert begun == ids


async def test_a_queued_task_is_cancelled_without_ever_running(autojump_clock: object, tmp_path: Path) -> None:
    async with running(MemoryStore(), table(operation(forever)), str(tmp_path), running_tasks=1) as service:
        first = (await service.start(ROOT, "toy", {})).id
        await reached(service, first, State.RUNNING)
        second = (await service.start(ROOT, "toy", {})).id

        assert await service.cancel(ROOT, second) is Answer.ACCEPTED
        task = await ended(service, second)

    assert (task.state, task.attempt, task.started_at) == (State.CANCELLED, 0, None)


async def test_a_cancel_twice_in_a_row_is_accepted_twice(autojump_clock: object, tmp_path: Path) -> None:
    world = World(undo_failures=2)
    async with running(MemoryStore(), table(world.operation()), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
        assert await service.cancel(ROOT, id) is Answer.ACCEPTED
        await reached(service, id, State.UNDOING)
        assert await service.cancel(ROOT, id) is Answer.ACCEPTED
        task = await ended(service, id)
        assert await service.cancel(ROOT, id) is Answer.ENDED
        assert await service.cancel(ROOT, id, must=True) is Answer.ENDED

    assert task.state is State.CANCELLED
    assert task.error is None
    assert not world.made


async def test_an_accepted_cancel_is_on_disk_before_it_is_answered(autojump_clock: object, tmp_path: Path) -> None:
    """A crash right after the answer cannot forget it: the task is not run again."""
    store, world = MemoryStore(), World()
    kind = world.operation(restartable=True)
    async with running(store, table(kind), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
        await trio.testing.wait_all_tasks_blocked()
        await service.cancel(ROOT, id)
        photograph = store.photograph()
    async with running(photograph, table(kind), str(tmp_path)) as service:
        assert (await ended(service, id)).state is State.CANCELLED


async def test_a_deadline_that_passes_undoes_and_fails(autojump_clock: object, tmp_path: Path) -> None:
    world = World()
    async with running(MemoryStore(), table(world.operation()), str(tmp_path)) as service:
        task = await ended(service, (await service.start(ROOT, "toy", {}, deadline_s=5)).id)

    assert task.error is not None
    assert (task.state, task.error.code, world.made) == (State.FAILED, "DEADLINE_EXCEEDED", False)


async def test_a_deadline_that_passes_in_the_queue_fails_too(autojump_clock: object, tmp_path: Path) -> None:
    async with running(MemoryStore(), table(operation(forever)), str(tmp_path), running_tasks=1) as service:
        first = (await service.start(ROOT, "toy", {})).id
        await reached(service, first, State.RUNNING)
        task = await ended(service, (await service.start(ROOT, "toy", {}, deadline_s=5)).id)

    assert task.error is not None
    assert (task.state, task.error.code, task.attempt) == (State.FAILED, "DEADLINE_EXCEEDED", 0)


async def test_an_undo_that_fails_for_a_while_is_tried_again(autojump_clock: object, tmp_path: Path) -> None:
    world = World(undo_failures=3)
    async with running(MemoryStore(), table(world.operation()), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
        await trio.testing.wait_all_tasks_blocked()
        await service.cancel(ROOT, id)
        task = await ended(service, id)

    assert (task.state, task.residue, world.made) == (State.CANCELLED, (), False)


async def residual(service: Service, **more: Any) -> Task:
    """A task whose undo failed for good."""
    id = (await service.start(ROOT, "toy", {}, **more)).id
    await reached(service, id, State.RUNNING)
    await trio.testing.wait_all_tasks_blocked()
    await service.cancel(ROOT, id)
    return await ended(service, id)


async def test_an_undo_that_cannot_be_done_is_told_as_residue(autojump_clock: object, tmp_path: Path) -> None:
    world = World(undo_failures=100)
    async with running(MemoryStore(), table(world.operation()), str(tmp_path)) as service:
        task = await residual(service)

    assert task.error is not None
    assert (task.state, task.error.code) == (State.FAILED, "UNDO_FAILED")
    assert [(left.verb, left.reason) for left in task.residue] == [("unmake", "toy: Device or resource busy")]
    assert task.journal == (Undo("unmake", {}),)


async def test_recover_tries_again_and_the_outcome_stays(autojump_clock: object, tmp_path: Path) -> None:
    world = World(undo_failures=6)
    async with running(MemoryStore(), table(world.operation()), str(tmp_path)) as service:
        before = await residual(service)
        after = await service.recover(ROOT, before.id)

    assert (after.state, after.error, after.finished_at) == (State.FAILED, before.error, before.finished_at)
    assert (after.residue, after.journal, world.made) == ((), (), False)
    assert after.revision > before.revision


async def test_what_owes_an_undo_counts_as_unfinished(autojump_clock: object, tmp_path: Path) -> None:
    """Else whoever prevents the undo of his tasks could make them without end. Also after a restart."""
    world, store = World(undo_failures=10), MemoryStore()
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        await residual(service)
        with pytest.raises(TooManyTasks):
            await attrs.evolve(service, tasks_per_owner=1).start(ROOT, "toy", {})
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        strict = attrs.evolve(service, tasks_per_owner=1)
        (id,) = await service.ids(ROOT)
        while service.registry.get(id) is not None:
            await trio.sleep(1)
        with pytest.raises(TooManyTasks):
            await strict.start(ROOT, "toy", {})
        await service.recover(ROOT, id)
        second = await strict.start(ROOT, "toy", {})
        await service.cancel(ROOT, second.id)
        await ended(service, second.id)
        assert await strict.start(ROOT, "toy", {}) is not None


async def test_every_start_tries_the_residue_again(autojump_clock: object, tmp_path: Path) -> None:
    store, world = MemoryStore(), World(undo_failures=5)
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        id = (await residual(service)).id
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        with trio.fail_after(60):
            while (await service.get(ROOT, id)).residue:
                await trio.sleep(0.1)

    assert not world.made


async def test_a_step_is_not_undone_before_those_that_came_after_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    """The journal is a stack: when its top cannot be undone, what lies below stays, and is told."""
    undone: list[str] = []

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.journal("first")
        await handle.journal("second")
        raise OSError(28, "No space left on device")

    async def first() -> None:
        undone.append("first")

    async def second() -> None:
        raise OSError(5, "Input/output error")

    kind = operation(run, verbs={"first": first, "second": second})
    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        task = await ended(service, (await service.start(ROOT, "toy", {})).id)

    assert undone == []
    assert [left.verb for left in task.residue] == ["second", "first"]
    assert task.error is not None
    assert "No space left on device" in task.error.message


async def test_an_interrupted_task_is_run_three_times_and_no_more(autojump_clock: object, tmp_path: Path) -> None:
    store, world = MemoryStore(), World()
    kind = world.operation(restartable=True)
    async with running(store, table(kind), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
    for attempt in range(2, ATTEMPTS + 1):
        async with running(store, table(kind), str(tmp_path)) as service:
            with trio.fail_after(600):
                while (task := await reached(service, id, State.RUNNING)).attempt < attempt:
                    await trio.sleep(0.1)
    async with running(store, table(kind), str(tmp_path)) as service:
        task = await ended(service, id)

    assert task.error is not None
    assert (task.state, task.error.code, task.attempt) == (State.FAILED, "INTERRUPTED", ATTEMPTS)


async def test_new_work_waits_until_what_was_interrupted_is_undone(autojump_clock: object, tmp_path: Path) -> None:
    """The target of the new task may be what the old one's undo still writes to."""
    store, world = MemoryStore(), World()
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
        await trio.testing.wait_all_tasks_blocked()
    world.undo_failures = 3
    seen: list[bool] = []

    async def look(params: NoParams, handle: Handle) -> JSON:
        seen.append(world.made)
        return None

    other = attrs.evolve(operation(look), name="look")
    async with running(store, table(world.operation(), other), str(tmp_path)) as service:
        await ended(service, (await service.start(ROOT, "look", {})).id)

    assert seen == [False]


async def test_what_a_crash_left_running_is_dead_before_anything_of_any_task_is_undone(
    autojump_clock: object, tmp_path: Path
) -> None:
    store, seen = MemoryStore(), list[str]()

    def journaling(verb: str) -> Run:
        async def run(params: NoParams, handle: Handle) -> JSON:
            await handle.journal(verb)
            await trio.sleep_forever()

        return run

    async def unmake() -> None:
        seen.append("undone")

    async def kill() -> None:
        await trio.sleep(1)
        seen.append("killed")

    maker = operation(journaling("unmake"), verbs={"unmake": unmake})
    parent = operation(journaling("kill"), verbs={"kill": kill}, urgent=frozenset({"kill"}))
    parent = attrs.evolve(parent, name="parent")
    async with running(store, table(maker, parent), str(tmp_path)) as service:
        ids = [(await service.start(ROOT, name, {})).id for name in ("toy", "parent")]
        await trio.testing.wait_all_tasks_blocked()
    async with running(store, table(maker, parent), str(tmp_path)) as service:
        for id in ids:
            await ended(service, id)

    assert seen[:2] == ["killed", "undone"]


async def test_an_operation_that_is_gone_leaves_its_task_as_residue(
    autojump_clock: object, tmp_path: Path
) -> None:
    """A plugin was removed: its task's undo is unknown, which is said and not hidden; with it back, it is done."""
    store, world = MemoryStore(), World()
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
        await trio.testing.wait_all_tasks_blocked()
    async with running(store, {}, str(tmp_path)) as service:
        task = await ended(service, id)
        assert "no installed operation knows the verb 'unmake'" in task.residue[0].reason
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        with trio.fail_after(60):
            while (await service.get(ROOT, id)).residue:
                await trio.sleep(0.1)

    assert not world.made


async def test_an_unforeseen_error_tells_the_peer_nothing_from_inside(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def run(params: NoParams, handle: Handle) -> JSON:
        raise ZeroDivisionError("a secret of the inside")

    async with running(MemoryStore(), table(operation(run)), str(tmp_path)) as service:
        task = await ended(service, (await service.start(ROOT, "toy", {})).id)

    assert task.error == Failure("INTERNAL_ERROR", f"internal error in task {task.id}", (task.id,))


async def test_an_operation_that_swallows_its_cancellation_does_not_commit(
    autojump_clock: object, tmp_path: Path
) -> None:
    world = World()

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.journal("unmake")
        world.made = True
        try:
            await trio.sleep_forever()
        except BaseException:
            return "done after all"

    kind = operation(run, verbs={"unmake": world.unmake})
    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
        await trio.testing.wait_all_tasks_blocked()
        assert await service.cancel(ROOT, id) is Answer.ACCEPTED
        task = await ended(service, id)

    assert (task.state, task.result, world.made) == (State.CANCELLED, None, False)


async def test_an_operation_that_commits_behind_a_shield_honours_a_cancel(
    autojump_clock: object, tmp_path: Path
) -> None:
    """No Cancelled reaches it there: the door itself looks."""
    world = World()

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.journal("unmake")
        world.made = True
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
            await handle.commit("whole")
        return None

    kind = operation(run, verbs={"unmake": world.unmake})
    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
        assert await service.cancel(ROOT, id) is Answer.ACCEPTED
        task = await ended(service, id)

    assert (task.state, world.made) == (State.CANCELLED, False)


class SlowAnswerStore(MemoryStore):
    """Every write is done at once, and says so a second later."""

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        await super().write(task, expect=expect, log=log, keep=keep)
        await trio.sleep(1)


@pytest.mark.parametrize("deadline_s", [0.5, 1.5, 2.5, 3.5])
async def test_a_deadline_that_falls_into_a_write_leaves_memory_and_disk_agreed(
    deadline_s: float, autojump_clock: object, tmp_path: Path
) -> None:
    world = World()

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.journal("unmake")
        world.made = True
        return None

    store = SlowAnswerStore()
    kind = operation(run, verbs={"unmake": world.unmake})
    async with running(store, table(kind), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {}, deadline_s=deadline_s)).id
        task = await ended(service, id)
        await trio.sleep(10)
        assert await store.get(id) == task

    assert world.made is (task.state is State.COMPLETED)


@pytest.mark.parametrize(
    ("itself", "answer"),
    [
        pytest.param(True, Answer.TOO_LATE, id="by the operation"),
        pytest.param(False, Answer.ENDED, id="when it has returned"),
    ],
)
async def test_a_cancel_while_the_commit_is_written_is_too_late(
    itself: bool, answer: Answer, autojump_clock: object, tmp_path: Path
) -> None:
    """It waits for the write, and its answer agrees with the end. What has returned is committed and completed in
    one write."""

    async def run(params: NoParams, handle: Handle) -> JSON:
        if itself:
            await handle.commit()
        return None

    store = SlowStore()
    async with running(store, table(operation(run)), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        live = service.registry.get(id)
        assert live is not None
        while live.task.cancellable:
            await live.changed()
        assert live.task.state is State.RUNNING
        assert await service.cancel(ROOT, id) is answer
        task = await ended(service, id)

    assert task.state is State.COMPLETED
    assert not task.cancel_requested


class SlowStore(MemoryStore):
    """Every write takes a second."""

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        await trio.sleep(1)
        await super().write(task, expect=expect, log=log, keep=keep)


class FullStore(MemoryStore):
    """Cannot write while ``full``."""

    full = False

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        if self.full:
            raise StoreUnavailable("database or disk is full")
        await super().write(task, expect=expect, log=log, keep=keep)

    async def append_log(self, id: str, lines: Sequence[LogLine], *, keep: int) -> None:
        if self.full:
            raise StoreUnavailable("database or disk is full")
        await super().append_log(id, lines, keep=keep)


async def undone_before_it_is_told(service: Service, store: FullStore | StuckStore, world: World, id: str) -> None:
    """Its cancel cannot be stored; it is undone all the same, and told when there is room."""
    with pytest.raises(StoreUnavailable):
        await service.cancel(ROOT, id)
    with trio.fail_after(60):
        while world.made:
            await trio.sleep(0.1)
    assert (await service.get(ROOT, id)).state is State.UNDOING
    store.full = False
    assert (await ended(service, id)).state is State.CANCELLED


async def test_a_full_store_keeps_no_task_from_being_undone(autojump_clock: object, tmp_path: Path) -> None:
    """The disk may be full of what the task wrote: it is undone first, and told when it can be."""
    store, world = FullStore(), World()
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.RUNNING)
        await trio.testing.wait_all_tasks_blocked()
        store.full = True
        await undone_before_it_is_told(service, store, world, id)


async def test_without_its_undo_on_disk_an_act_is_not_done(autojump_clock: object, tmp_path: Path) -> None:
    store, world = FullStore(), World()

    async def run(params: NoParams, handle: Handle) -> JSON:
        store.full = True
        return await world.run(params, handle)

    kind = operation(run, verbs={"unmake": world.unmake})
    async with running(store, table(kind), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        await reached(service, id, State.UNDOING)
        assert not world.made
        store.full = False
        task = await ended(service, id)

    assert task.error is not None
    assert (task.state, task.error.code) == (State.FAILED, "STORE_UNAVAILABLE")


async def test_a_finish_that_cannot_be_done_is_repeated_until_it_is(
    autojump_clock: object, tmp_path: Path
) -> None:
    """After the commit there is no way back: the task says what it waits for, and stays committed."""
    failures = 12
    published = False

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.commit("whole", [Undo("publish")])
        return None

    async def publish() -> None:
        nonlocal failures, published
        if failures:
            failures -= 1
            raise OSError(5, "Input/output error")
        published = True

    async with running(MemoryStore(), table(operation(run, verbs={"publish": publish})), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        live = service.registry.get(id)
        assert live is not None
        while not live.task.residue:
            await live.changed()
        assert (live.task.state, live.task.residue[0].reason) == (State.COMMITTED, "toy: Input/output error")
        assert await service.cancel(ROOT, id) is Answer.TOO_LATE
        task = await ended(service, id)

    assert (task.state, task.residue, task.result, published) == (State.COMPLETED, (), "whole", True)


async def test_an_ended_task_needs_no_memory(autojump_clock: object, tmp_path: Path) -> None:
    """What can be asked of it is in the store."""
    async with running(MemoryStore(), table(operation(at_once)), str(tmp_path)) as service:
        ids = [(await service.start(ROOT, "toy", {})).id for _ in range(10)]
        for id in ids:
            await ended(service, id)
        await trio.testing.wait_all_tasks_blocked()
        assert len(service.registry) == 0
        assert service.registry.quota.taken("root") == 0
        assert (await service.get(ROOT, ids[0])).state is State.COMPLETED


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "interrupt"])
async def test_an_operation_that_would_end_the_process_ends_its_task(
    error: BaseException, autojump_clock: object, tmp_path: Path
) -> None:
    """In its run, also from a nursery of its own, in its check and in its undo."""
    undone = 0

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.journal("unmake")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
        return None

    async def leave() -> None:
        raise error

    async def unmake() -> None:
        nonlocal undone
        undone += 1
        if undone == 1:
            raise error

    def check(params: object) -> None:
        raise error

    kind = operation(run, verbs={"unmake": unmake})
    other = attrs.evolve(kind, name="other", check=check)
    async with running(MemoryStore(), table(kind, other), str(tmp_path)) as service:
        with pytest.raises(RuntimeError):
            await service.start(ROOT, "other", {})
        task = await ended(service, (await service.start(ROOT, "toy", {})).id)

    assert task.error is not None
    assert (task.state, task.error.code, undone) == (State.FAILED, "INTERNAL_ERROR", 2)


@pytest.mark.parametrize("step", [Undo("unmaek"), Undo("unmake", {"wrong": 1})], ids=["verb", "argument"])
@pytest.mark.parametrize("where", ["journal", "finish"])
async def test_a_step_that_could_not_be_called_is_found_before_the_act(
    step: Undo, where: str, autojump_clock: object, tmp_path: Path
) -> None:
    world = World()

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.journal("unmake")
        if where == "journal":
            await handle.journal(step.verb, **step.args)
        world.made = True
        await handle.commit(None, [step])
        return None

    kind = operation(run, verbs={"unmake": world.unmake})
    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        task = await ended(service, (await service.start(ROOT, "toy", {})).id)

    assert (task.state, task.residue, world.made, world.undone) == (State.FAILED, (), False, 1)


async def test_a_finish_that_cannot_be_done_is_tried_at_once_by_recover(
    autojump_clock: object, tmp_path: Path
) -> None:
    failures, tries = 15, 0

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.commit(None, [Undo("publish")])
        return None

    async def publish() -> None:
        nonlocal tries
        tries += 1
        if tries <= failures:
            raise OSError(30, "Read-only file system")

    async with running(MemoryStore(), table(operation(run, verbs={"publish": publish})), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        live = service.registry.get(id)
        assert live is not None
        while not live.task.residue:
            await live.changed()
        began = trio.current_time()
        while (await service.recover(ROOT, id)).residue:
            pass
        assert trio.current_time() - began < PATIENCE
        assert (await ended(service, id)).state is State.COMPLETED


async def test_an_admin_can_forget_a_task_whose_finish_can_never_be_done(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.commit(None, [Undo("publish")])
        return None

    async def publish() -> None:
        raise OSError(30, "Read-only file system")

    store = MemoryStore()
    async with running(store, table(operation(run, verbs={"publish": publish})), str(tmp_path)) as service:
        id = (await service.start(ROOT, "toy", {})).id
        live = service.registry.get(id)
        assert live is not None
        while not live.task.residue:
            await live.changed()
        with pytest.raises(TaskInProgress):
            await service.destroy(ROOT, id)
        await service.destroy(ROOT, id, force=True)
        await trio.testing.wait_all_tasks_blocked()
        assert len(service.registry) == 0

    assert await store.ids() == []


async def test_destroy_on_finish_leaves_no_trace(autojump_clock: object, tmp_path: Path) -> None:
    store = MemoryStore()
    async with running(store, table(operation(at_once)), str(tmp_path)) as service:
        task = await ended(service, (await service.start(ROOT, "toy", {}, destroy_on_finish=True)).id)
        await trio.testing.wait_all_tasks_blocked()

    assert task.state is State.COMPLETED
    assert await store.get(task.id) is None


async def test_progress_never_goes_back_and_ends_at_one_only_when_completed(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def run(params: NoParams, handle: Handle) -> JSON:
        for done in (10, 50, 30, 100):
            handle.progress(done, 100)
            await trio.sleep(1)
        raise OSError(5, "Input/output error")

    seen: list[tuple[int, float]] = []
    async with running(MemoryStore(), table(operation(run)), str(tmp_path)) as service:
        task = await service.start(ROOT, "toy", {})
        while not task.state.ended:
            seen.append((task.progress.done, task.progress.fraction))
            task = await service.wait(ROOT, task.id, after_revision=task.revision)
        seen.append((task.progress.done, task.progress.fraction))

    assert seen == sorted(seen)
    assert {done for done, _ in seen} == {0, 10, 50, 100}
    assert task.state is State.FAILED
    assert task.progress.fraction < 1.0


async def test_revisions_grow_and_go_on_after_a_restart(autojump_clock: object, tmp_path: Path) -> None:
    store = MemoryStore()
    revisions: list[int] = []
    for _ in range(2):
        async with running(store, table(operation(at_once), EXTERNAL), str(tmp_path)) as service:
            task = await service.start(ROOT, "external", {})
            revisions.append(task.revision)
            revisions.append((await service.update(ROOT, task.id, status="at it")).revision)
            revisions.append((await ended(service, (await service.start(ROOT, "toy", {})).id)).revision)

    assert revisions == sorted(set(revisions))
