"""The promise, swept: for n = 1, 2, 3 … until the task gets through, disturb it at step n and look at the disk.

Disturbed are every operation of ``cases.CASES`` over both stores: cancelled at the n-th step, failed at the n-th
wait, stopped and recovered, crashed (the process is gone at once, disk and store as they were) and recovered,
crashed in that recovery too and recovered again. Afterwards the target is whole or as before, nothing of ours is
left, the journal is empty, there was exactly one terminal state, and what a cancel was answered agrees with it.
"""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import attrs
import pytest
import trio

from taskd.model import JSON, Task
from taskd.operations import Operation
from taskd.operations.image import work
from taskd.registry import Live
from taskd.runner import Answer
from taskd.service import Service
from taskd.states import State
from taskd.store import Store
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT, Fault, Steps, ended, running
from tests.cases import CASES, Case, Photo, empty, photograph

pytestmark = [
    pytest.mark.parametrize("kind", ["memory", "sqlite"]),
    pytest.mark.parametrize("case", CASES, ids=str),
]

# No task takes as many steps; a sweep that gets here would not end.
TOO_MANY = 400


@pytest.fixture(autouse=True)
def hops_do_not_end_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a thread that had to wait for its turn makes one hop two, and of two runs the one has more steps."""
    monkeypatch.setattr(work, "_HOP_S", 3600.0)


@attrs.define(eq=False)
class World:
    """A case in a folder of its own, with a store that survives a crash, and what the law compares with."""

    case: Case
    kind: str
    root: Path
    folder: Path = attrs.field(init=False)
    workspace: Path = attrs.field(init=False)
    params: Mapping[str, JSON] = attrs.field(init=False)
    before: Photo = attrs.field(init=False)
    memory: MemoryStore = attrs.field(factory=MemoryStore)

    def __attrs_post_init__(self) -> None:
        if self.case.caller is not ROOT and os.geteuid() != 0:
            pytest.skip("to act with another user's rights, the daemon must be root")
        empty(self.root)
        self.folder = empty(self.root / "data")
        self.workspace = empty(self.root / "workspace")
        self.params = self.case.prepare(self.folder)
        self.before = photograph(self.folder)

    @property
    def _pickled(self) -> Path:
        return self.root / "memory.pickle"

    def save(self) -> None:
        """What is durable survives this process; the twin's rows need help for that."""
        if self.kind == "memory":
            self._pickled.write_bytes(pickle.dumps(self.memory.photograph()))

    def crash(self) -> None:
        """End this process at once, as ``kill -9`` does."""
        self.save()
        os._exit(9)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        if self.kind == "memory":
            if self._pickled.exists():
                self.memory = pickle.loads(self._pickled.read_bytes())
                self._pickled.unlink()
            yield self.memory
        else:
            store = await SqliteStore.open(self.root / "taskd.sqlite")
            try:
                yield store
            finally:
                with trio.CancelScope(shield=True):
                    await store.close()

    @asynccontextmanager
    async def service(self, operation: Operation | None = None) -> AsyncIterator[Service]:
        operation = operation or self.case.operation
        async with (
            self.store() as store,
            running(store, {operation.name: operation}, str(self.workspace)) as s,
        ):
            yield s

    async def start(self, service: Service) -> str:
        caller = self.case.caller
        task = await service.start(caller, self.case.operation.name, dict(self.params), request_id="one")
        return task.id

    def hold(self, task: Task, after: Photo) -> None:
        """The law."""
        assert task.state.ended
        assert task.journal == ()
        assert task.residue == ()
        assert os.listdir(self.workspace) == []
        assert photograph(self.folder) == (after if task.state is State.COMPLETED else self.before)
        assert (task.progress.fraction == 1.0) == (task.state is State.COMPLETED)


async def untouched(case: Case, kind: str, root: Path) -> tuple[Photo, int]:
    """What a run that nobody disturbs leaves behind, and in how many steps."""
    world = World(case, kind, root)
    steps = Steps()
    async with world.service() as service:
        trio.lowlevel.add_instrument(steps)
        task = await ended(service, await world.start(service))
        trio.lowlevel.remove_instrument(steps)
    after = photograph(world.folder)
    assert task.state is State.COMPLETED, task.error
    assert after != world.before
    world.hold(task, after)
    return after, steps.count


@asynccontextmanager
async def at_step(n: int, hook: Callable[[], None]) -> AsyncIterator[Steps]:
    steps = Steps(n, hook)
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(steps)


async def watch(service: Service, id: str, seen: list[State]) -> None:
    """Note every state that can be seen from outside."""
    live = service.registry.get(id)
    while live is not None and not live.task.state.ended:
        if not seen or seen[-1] is not live.task.state:
            seen.append(live.task.state)
        await live.changed()
    if live is not None:
        seen.append(live.task.state)


def cancel_soon(service: Service, nursery: trio.Nursery, given: list[Answer]) -> None:
    """Cancel the one task there is, and note what was answered; the record agrees at once."""

    async def cancel(live: Live) -> None:
        given.append(await service.cancel(ROOT, live.task.id))
        assert live.task.cancel_requested is (given[-1] is Answer.ACCEPTED)

    nursery.start_soon(cancel, next(iter(service.registry)))


async def test_cancelled_at_any_step_it_is_whole_or_never_made(case: Case, kind: str, commons: Path) -> None:
    after, total = await untouched(case, kind, commons / "untouched")
    answers: set[Answer] = set()
    for n in count(1):
        assert n < TOO_MANY
        world = World(case, kind, commons / "world")
        seen: list[State] = []
        given: list[Answer] = []
        async with world.service() as service, trio.open_nursery() as nursery:
            async with at_step(n, partial(cancel_soon, service, nursery, given)) as steps:
                id = await world.start(service)
                nursery.start_soon(watch, service, id, seen)
                task = await ended(service, id)
        if steps.count < n:
            break
        world.hold(task, after)
        answers.update(given)
        assert (given == [Answer.ACCEPTED]) == (task.state is State.CANCELLED)
        assert [state for state in seen if state.ended] == [task.state]

    # The work that commits when it has returned is never seen committed and not completed.
    assert answers in (set(Answer), {Answer.ACCEPTED, Answer.TOO_LATE}, {Answer.ACCEPTED, Answer.ENDED})
    assert n >= total


async def test_failed_at_any_wait_it_was_never_made(case: Case, kind: str, commons: Path) -> None:
    after, _ = await untouched(case, kind, commons / "untouched")
    ends: list[State] = []
    for n in count(1):
        assert n < TOO_MANY
        world = World(case, kind, commons / "world")
        fault = Fault(n)
        async with world.service(fault.put_into(case.operation)) as service:
            task = await ended(service, await world.start(service))
        world.hold(task, after)
        if not fault.thrown:
            break
        ends.append(task.state)
        if task.state is State.FAILED:
            assert task.error is not None
            assert task.error.code == "EIO"

    assert State.FAILED in ends
    assert task.state is State.COMPLETED


async def test_stopped_at_any_step_it_is_recovered(case: Case, kind: str, commons: Path) -> None:
    after, total = await untouched(case, kind, commons / "untouched")
    for n in count(1):
        assert n < TOO_MANY
        world = World(case, kind, commons / "world")
        stop = trio.CancelScope()
        id = ""
        with stop:
            async with at_step(n, stop.cancel) as steps, world.service() as service:
                id = await world.start(service)
                await ended(service, id)
        through = steps.count < n
        async with world.service() as service:
            task = await ended(service, id or await world.start(service))
        world.hold(task, after)
        assert_recovered(case, task)
        if through:
            break
    assert n >= total


def assert_recovered(case: Case, task: Task) -> None:
    """Run to its end again if it may be; else told to be interrupted."""
    if task.state is not State.COMPLETED:
        assert not case.operation.restartable
        assert task.error is not None
        assert task.error.code == "INTERRUPTED"


def in_another_process(life: Callable[[], None]) -> int:
    """Run ``life`` in a fork of this process; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            life()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def crashes(world: World, n: int) -> bool:
    """Live until a crash at step n; False when there was none because there are fewer steps."""

    async def main() -> None:
        async with at_step(n, world.crash), world.service() as service:
            await ended(service, await world.start(service))
        world.save()

    status = in_another_process(lambda: trio.run(main))
    assert status in (0, 9)
    return status == 9


def recovers(world: World) -> Task:
    async def main() -> Task:
        async with world.service() as service:
            return await ended(service, await world.start(service))

    return trio.run(main)


def crash_points(world_at: Callable[[], World]) -> Iterator[tuple[int, World]]:
    """Worlds crashed at step 1, 2, 3 … until a life gets through."""
    for n in count(1):
        assert n < TOO_MANY
        world = world_at()
        if not crashes(world, n):
            return
        yield n, world


def test_crashed_at_any_step_it_is_recovered(case: Case, kind: str, commons: Path) -> None:
    after, total = trio.run(untouched, case, kind, commons / "untouched")
    n = 0
    for n, world in crash_points(lambda: World(case, kind, commons / "world")):
        task = recovers(world)
        world.hold(task, after)
        assert_recovered(case, task)
        assert recovers(world) == task, f"the answer changed after the crash at step {n}"
    assert n >= total - 1


def test_crashed_again_in_its_recovery_it_is_recovered(case: Case, kind: str, commons: Path) -> None:
    """Every crash point, each followed by a crash at one point of its recovery, the next point each time."""
    after, _ = trio.run(untouched, case, kind, commons / "untouched")
    again = 1
    for _, world in crash_points(lambda: World(case, kind, commons / "world")):
        again = again + 1 if crashes(world, again) else 1
        task = recovers(world)
        world.hold(task, after)
        assert_recovered(case, task)
