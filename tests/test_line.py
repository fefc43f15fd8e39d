"""The line of the queued tasks: order, fairness, limits, targets, what is told, and leaving it by a cancel."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from pathlib import Path
from random import Random

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from taskd import config
from taskd.errors import ConfigError
from taskd.model import JSON, Caller, Task, Undo, now
from taskd.operations import Handle, Operation, Operations
from taskd.runner import line, recovery
from taskd.runner.line import LOOKING, Line
from taskd.service import Service
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, bounded, ended, running, user
from tests.test_runner import reached, table

ANN, BOB = user("ann", 1001), user("bob", 1002)


@pytest.fixture
def gives_up() -> None:
    """Who asks for this has it that nobody waits longer than ``LOOKING`` for a look at a target."""


@pytest.fixture(autouse=True)
def looking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all other tests each look is waited for, however long this machine takes for it."""
    if "gives_up" not in request.fixturenames:
        for room in (line, recovery):
            monkeypatch.setattr(room, "LOOKING", inf)


@attrs.frozen
class ToyParams:
    """``target`` is what it works on; with ``hold`` it works until it is let go."""

    target: str | None = None
    seconds: float = 1.0
    hold: bool = False


@attrs.define(eq=False)
class Toys:
    """Operations that take their time; ``begun`` and ``at`` say in which order and when they began."""

    begun: list[str] = attrs.field(factory=list)
    at: dict[str, float] = attrs.field(factory=dict)
    held: defaultdict[str, trio.Event] = attrs.field(factory=lambda: defaultdict(trio.Event))

    def operation(self, name: str = "toy", look: Callable[[str], str] = lambda target: target) -> Operation:
        def targets(params: ToyParams) -> frozenset[str]:
            return frozenset() if params.target is None else frozenset({look(params.target)})

        async def run(params: ToyParams, handle: Handle) -> JSON:
            self.begun.append(handle.id)
            self.at[handle.id] = trio.current_time()
            if params.hold:
                await self.held[handle.id].wait()
            elif params.target is None:
                await trio.sleep(params.seconds)
            return None

        everyone = frozenset({"admin", "user"})
        return Operation(name, "", ToyParams, run, targets=targets, roles=everyone)

    def untargeted(self, name: str = "toy") -> Operation:
        """Without a look, which a thread takes, all is done on the event loop."""
        return attrs.evolve(self.operation(name), targets=None)

    def let_go(self, *ids: str) -> None:
        for id in ids:
            self.held[id].set()


def that_hangs(kind: Operation, go_on: trio.Event) -> Operation:
    """The same, but it works until it is interrupted, and its undo waits until it may ``go_on``."""

    async def run(params: ToyParams, handle: Handle) -> JSON:
        await handle.journal("unmake")
        await trio.sleep_forever()

    return attrs.evolve(kind, run=run, verbs={"unmake": go_on.wait})


def that_owes(kind: Operation, stuck: list[bool]) -> Operation:
    """The same, but it fails, and its undo does, too, while there is something in ``stuck``."""

    async def run(params: ToyParams, handle: Handle) -> JSON:
        await handle.journal("unmake")
        raise OSError(5, "Input/output error")

    async def unmake() -> None:
        if stuck:
            raise OSError(16, "Device or resource busy")

    return attrs.evolve(kind, run=run, verbs={"unmake": unmake})


async def started(service: Service, caller: Caller = ANN, operation: str = "toy", **params: JSON) -> str:
    return (await service.start(caller, operation, params)).id


async def waits_for(service: Service, id: str) -> str | None:
    await wait_all_tasks_blocked()
    return (await service.get(ROOT, id)).waits_for


async def told(service: Service, id: str, waits_for: str | None) -> None:
    """Wait until it is told that the task waits for that."""
    live = service.registry.get(id)
    assert live is not None
    with bounded(20):
        while live.task.waits_for != waits_for:
            await live.changed()


async def through(service: Service, *ids: str) -> None:
    for id in ids:
        assert (await service.wait(ROOT, id)).state is State.COMPLETED


# Order and fairness.


async def test_one_owners_tasks_run_in_the_order_in_which_they_were_started(
    autojump_clock: object, tmp_path: Path
) -> None:
    toys = Toys()
    async with running(MemoryStore(), table(toys.untargeted()), str(tmp_path), running_tasks=1) as service:
        ids = [await started(service) for _ in range(20)]
        await through(service, *ids)

    assert toys.begun == ids


async def test_owners_take_turns_however_many_tasks_one_has(autojump_clock: object, tmp_path: Path) -> None:
    toys = Toys()
    async with running(MemoryStore(), table(toys.untargeted()), str(tmp_path), running_tasks=2) as service:
        many = [await started(service, ANN) for _ in range(50)]
        few = [await started(service, BOB) for _ in range(5)]
        await through(service, *few)
        pairs = [set(toys.begun[at : at + 2]) for at in range(0, 12, 2)]
        assert pairs == [set(many[:2]), *(set(pair) for pair in zip(many[2:7], few, strict=True))]
        await through(service, *many)


async def test_no_owner_runs_more_than_an_owner_may(autojump_clock: object, tmp_path: Path) -> None:
    toys = Toys()
    limits = partial(running, running_tasks=3, running_per_owner=2)
    async with limits(MemoryStore(), table(toys.untargeted()), str(tmp_path)) as service:
        ids = [await started(service, ANN) for _ in range(4)]
        await wait_all_tasks_blocked()
        assert sorted(toys.begun) == sorted(ids[:2])
        assert await waits_for(service, ids[2]) == "a free slot: 3 run at a time, 2 of one owner"
        bobs = await started(service, BOB)
        await wait_all_tasks_blocked()
        assert sorted(toys.begun) == sorted([*ids[:2], bobs])
        await through(service, *ids, bobs)


async def test_an_operation_at_its_limit_holds_up_no_other(autojump_clock: object, tmp_path: Path) -> None:
    toys = Toys()
    operations = table(toys.untargeted("slow"), toys.untargeted("quick"))
    limits = partial(running, running_tasks=4, running_per_operation={"slow": 1})
    async with limits(MemoryStore(), operations, str(tmp_path)) as service:
        slow = [await started(service, operation="slow", seconds=10) for _ in range(3)]
        quick = await started(service, operation="quick")
        await wait_all_tasks_blocked()
        assert sorted(toys.begun) == sorted([slow[0], quick])
        assert await waits_for(service, slow[1]) == "a free slot: 4 run at a time, 1 of slow"
        await through(service, *slow, quick)

    assert [round(toys.at[id] - toys.at[slow[0]]) for id in slow] == [0, 10, 20]


async def test_the_order_outlives_a_restart(tmp_path: Path) -> None:
    store, toys = MemoryStore(), Toys()
    async with running(store, table(toys.operation()), str(tmp_path), running_tasks=1) as service:
        first = await started(service, hold=True)
        ids = [await started(service, target="one") for _ in range(5)]
        await reached(service, first, State.RUNNING)
    toys.begun.clear()
    async with running(store, table(toys.operation()), str(tmp_path), running_tasks=4) as service:
        await through(service, *ids)

    assert toys.begun == ids


async def test_an_undo_takes_no_slot(autojump_clock: object, tmp_path: Path) -> None:
    toys, go_on = Toys(), trio.Event()
    kind = that_hangs(toys.untargeted("maker"), go_on)
    operations = table(kind, toys.untargeted())
    async with running(MemoryStore(), operations, str(tmp_path), running_tasks=1) as service:
        first = await started(service, operation="maker")
        second = await started(service)
        await reached(service, first, State.RUNNING)
        await service.cancel(ROOT, first)
        await through(service, second)
        assert (await service.get(ROOT, first)).state is State.UNDOING
        go_on.set()
        assert (await service.wait(ROOT, first)).state is State.CANCELLED


# Targets.


async def test_two_tasks_on_one_target_never_run_together(tmp_path: Path) -> None:
    """The first of an owner's goes first; of another owner's no more is told than must be."""
    toys = Toys()
    async with running(MemoryStore(), table(toys.operation()), str(tmp_path)) as service:
        ids = [await started(service, ANN, target="one", hold=True) for _ in range(3)]
        await told(service, ids[1], f"task {ids[0]}, which has the same target")
        await told(service, ids[2], f"task {ids[1]}, which has the same target")
        bobs = await started(service, BOB, target="one", hold=True)
        await told(service, bobs, "a task of another owner, which has the same target")
        free = await started(service, BOB, target="two")
        await through(service, free)
        assert toys.begun == [ids[0], free]
        for done in (1, 2, 3, 4):
            last = toys.begun[-1] if done > 1 else ids[0]
            toys.let_go(last)
            await through(service, last)
            while len(toys.begun) < done + 2 and done < 4:
                await trio.lowlevel.checkpoint()

    assert [id for id in toys.begun if id in ids] == ids
    assert toys.begun.count(bobs) == 1


async def test_what_a_task_waits_for_changes_with_who_is_before_it(tmp_path: Path) -> None:
    toys = Toys()
    async with running(MemoryStore(), table(toys.operation()), str(tmp_path)) as service:
        first, second, third = [await started(service, target="one", hold=True) for _ in range(3)]
        await told(service, third, f"task {second}, which has the same target")
        await service.cancel(ROOT, second)
        await told(service, third, f"task {first}, which has the same target")
        await service.cancel(ROOT, first)
        await told(service, third, None)
        await reached(service, third, State.RUNNING)
        assert (await ended(service, second)).waits_for is None
        toys.let_go(third)
        await through(service, third)


async def test_a_task_that_waits_for_a_slot_keeps_nobody_from_its_target(tmp_path: Path) -> None:
    toys = Toys()
    operations = table(toys.operation("slow"), toys.operation("quick"))
    limits = {"slow": 1}
    async with running(MemoryStore(), operations, str(tmp_path), running_per_operation=limits) as service:
        first = await started(service, ANN, "slow", hold=True)
        waiting = await started(service, ANN, "slow", target="one")
        await told(service, waiting, "a free slot: 64 run at a time, 1 of slow, 32 of one owner")
        await through(service, await started(service, BOB, "quick", target="one"))
        toys.let_go(first)
        await through(service, waiting)


async def test_a_target_that_becomes_another_while_the_task_waits_is_the_other_one(tmp_path: Path) -> None:
    toys, names = Toys(), {"link": "one"}
    kind = toys.operation(look=lambda target: names.get(target, target))
    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        one, two = [await started(service, target=target, hold=True) for target in ("one", "two")]
        task = await started(service, target="link")
        await told(service, task, f"task {one}, which has the same target")
        names["link"] = "two"
        toys.let_go(one)
        await told(service, task, f"task {two}, which has the same target")
        await through(service, await started(service, BOB, target="one"))
        toys.let_go(two)
        await through(service, task)


async def test_a_target_stays_claimed_while_an_undo_is_owed_to_it(mock_clock: MockClock, tmp_path: Path) -> None:
    """Also over a restart: nobody gets at it first."""
    mock_clock.rate = 10  # for the pauses between two tries
    stuck, toys, store = [True], Toys(), MemoryStore()
    kind = that_owes(toys.operation("maker"), stuck)
    operations = table(kind, toys.operation())
    async with running(store, operations, str(tmp_path)) as service:
        owing = await started(service, operation="maker", target="one")
        assert (await ended(service, owing)).residue != ()
        task = await started(service, target="one")
        await told(service, task, f"task {owing}, which has the same target")
    async with running(store, operations, str(tmp_path)) as service:
        await told(service, task, f"task {owing}, which has the same target")
        while service.registry.get(owing) is not None:  # the start tries it, in vain
            await trio.lowlevel.checkpoint()
        stuck.clear()
        assert (await service.recover(ROOT, owing)).residue == ()
        await through(service, task)


async def test_what_a_task_has_worked_on_stays_its_own_also_where_its_names_lead_elsewhere_after_a_start(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    """Its disk is away at the start, and comes back under another name: what is completed there meanwhile would
    go with its undo. What its names lead to now it has, too.
    """
    mock_clock.rate = 10  # for the pauses between two tries
    toys, names, store, away = Toys(), {"link": "one"}, MemoryStore(), [True]
    maker = toys.operation("maker", lambda target: names.get(target, target))
    operations = table(that_owes(maker, away), toys.operation())
    async with running(store, operations, str(tmp_path)) as service:
        owing = await started(service, operation="maker", target="link")
        assert (await ended(service, owing)).residue != ()
    names["link"] = "two"
    async with running(store, operations, str(tmp_path)) as service:
        tasks = [await started(service, target=target) for target in ("one", "two")]
        for task in tasks:
            await told(service, task, f"task {owing}, which has the same target")
        while service.registry.get(owing) is not None:  # the start tries it, in vain
            await trio.lowlevel.checkpoint()
        away.clear()
        assert (await service.recover(ROOT, owing)).residue == ()
        await through(service, *tasks)


async def test_what_two_tasks_have_worked_on_is_the_others_when_one_owes_nothing_more(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    """The names of two disks were exchanged at a start, so that each task has what the other has had."""
    mock_clock.rate = 10  # for the pauses between two tries
    toys, store, away = Toys(), MemoryStore(), [True]
    numbers = {"sda": "8:0", "sdb": "8:16"}
    maker = toys.operation("maker", lambda target: numbers[target])
    operations = table(that_owes(maker, away), toys.operation())
    async with running(store, operations, str(tmp_path)) as service:
        owing = [await started(service, operation="maker", target=name) for name in numbers]
        for id in owing:
            assert (await ended(service, id)).residue != ()
    numbers |= {"sda": "8:16", "sdb": "8:0"}
    async with running(store, operations, str(tmp_path)) as service:
        for id in owing:
            while service.registry.get(id) is not None:  # the start tries it, in vain
                await trio.lowlevel.checkpoint()
        first = service.runner.line._claims.against(frozenset(numbers.values()), "")
        assert first is not None
        tasks = [await started(service, target=number) for number in numbers.values()]
        away.clear()
        for id in sorted(owing, key=lambda id: id != first.id):
            for task in tasks:
                await told(service, task, f"task {id}, which has the same target")
            assert (await service.recover(ROOT, id)).residue == ()
        await through(service, *tasks)


@pytest.mark.parametrize("committed", [False, True], ids=["undo", "finish"])
@pytest.mark.parametrize("away", [True, False], ids=["away", "at a loss"])
async def test_a_target_stays_claimed_where_the_operation_of_whoever_owes_it_something_cannot_be_asked(
    mock_clock: MockClock, tmp_path: Path, committed: bool, away: bool
) -> None:
    """Its package is removed, or does not load: what it does when it is back, it does to nobody's work."""
    mock_clock.rate = 10  # for the pauses between two tries
    stuck, toys, store = [True], Toys(), MemoryStore()

    async def run(params: ToyParams, handle: Handle) -> JSON:
        await handle.journal("step")
        if committed:
            await handle.commit(None, [Undo("step")])
            return None
        raise OSError(5, "Input/output error")

    async def step() -> None:
        if stuck:
            raise OSError(16, "Device or resource busy")
        toys.begun.append("step")

    def at_a_loss(params: ToyParams) -> frozenset[str]:
        raise LookupError(params.target)

    maker = attrs.evolve(toys.operation("maker"), run=run, verbs={"step": step})
    meanwhile = [] if away else [attrs.evolve(maker, targets=at_a_loss)]
    async with running(store, table(maker, toys.operation()), str(tmp_path)) as service:
        owing = await started(service, operation="maker", target="one")
        live = service.registry.get(owing)
        assert live is not None
        while not live.task.residue:
            await live.changed()
    async with running(store, table(*meanwhile, toys.operation()), str(tmp_path)) as service:
        task = await started(service, target="one")
        await told(service, task, f"task {owing}, which has the same target")
    stuck.clear()
    async with running(store, table(maker, toys.operation()), str(tmp_path)) as service:
        await through(service, task)
        done = await service.get(ROOT, owing)

    assert toys.begun == ["step", task]
    assert (done.residue, done.targets) == ((), ())


async def test_a_task_that_is_queued_again_after_a_crash_has_no_target_while_it_waits(tmp_path: Path) -> None:
    """Else it and one before it, whose target has become the same, would wait for each other for ever."""
    toys, names, store = Toys(), {"link": "one"}, MemoryStore()
    plain = toys.operation(look=lambda target: names.get(target, target))

    async def run(params: ToyParams, handle: Handle) -> JSON:
        await handle.journal("nothing")
        assert plain.run is not None
        return await plain.run(params, handle)

    async def nothing() -> None:
        await trio.lowlevel.checkpoint()

    operations = table(attrs.evolve(plain, run=run, verbs={"nothing": nothing}, restartable=True))
    async with running(store, operations, str(tmp_path)) as service:
        one = await started(service, target="one", hold=True)
        before = await started(service, target="link")
        await told(service, before, f"task {one}, which has the same target")
        names["link"] = "two"
        two = await started(service, target="two", hold=True)
        while two not in toys.begun:
            await trio.lowlevel.checkpoint()
    toys.begun.clear()
    toys.let_go(one, two)
    async with running(store, operations, str(tmp_path)) as service:
        with bounded(30):
            await through(service, one, before, two)

    assert toys.begun.index(before) < toys.begun.index(two)


class SlowLooks:
    """A look at a target that takes until it is let through: a disk that does not answer."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def __call__(self, target: str) -> str:
        if target.startswith("slow"):
            assert self.gate.wait(30)
        return target.removeprefix("slow ")


async def test_the_first_goes_first_also_where_its_target_is_longer_looked_for(tmp_path: Path) -> None:
    toys, looks = Toys(), SlowLooks()
    async with running(MemoryStore(), table(toys.operation(look=looks)), str(tmp_path)) as service:
        first = await started(service, target="slow one")
        second = await started(service, target="one")
        await wait_all_tasks_blocked(0.02)
        assert toys.begun == []
        looks.gate.set()
        await through(service, first, second)

    assert toys.begun == [first, second]


async def test_a_disk_that_does_not_answer_holds_up_its_owner_for_a_moment_and_others_not_at_all(
    gives_up: None, mock_clock: MockClock, tmp_path: Path
) -> None:
    toys, looks = Toys(), SlowLooks()
    async with running(MemoryStore(), table(toys.operation(look=looks)), str(tmp_path)) as service:
        hanging = await started(service, ANN, target="slow one")
        second = await started(service, ANN, target="two")
        await through(service, await started(service, BOB, target="one"))
        await wait_all_tasks_blocked(0.02)
        assert (await service.get(ROOT, second)).state is State.QUEUED
        mock_clock.jump(LOOKING)
        await through(service, second, await started(service, ANN, target="three"))
        looks.gate.set()
        await through(service, hanging)


async def test_what_is_owed_to_a_disk_that_does_not_answer_at_a_start_is_held_when_it_does(
    gives_up: None, mock_clock: MockClock, tmp_path: Path
) -> None:
    mock_clock.rate = 100
    toys, before, looks, store = Toys(), SlowLooks(), SlowLooks(), MemoryStore()
    before.gate.set()

    def operations(look: SlowLooks) -> Operations:
        maker = that_owes(toys.operation("maker", look), [True])
        return table(maker, toys.operation())

    async with running(store, operations(before), str(tmp_path)) as service:
        owing = await started(service, operation="maker", target="slow one")
        assert (await ended(service, owing)).residue != ()
    async with running(store, operations(looks), str(tmp_path)) as service:
        await through(service, await started(service, target="two"))
        looks.gate.set()
        with bounded(30):
            while service.runner.line._claims.against(frozenset({"one"}), "") is None:
                await trio.lowlevel.checkpoint()
        task = await started(service, target="one")
        await told(service, task, f"task {owing}, which has the same target")


@pytest.mark.parametrize("destroyed", [False, True], ids=["recovered", "destroyed"])
async def test_what_is_no_longer_owed_when_the_disk_answers_is_not_held(
    destroyed: bool, gives_up: None, mock_clock: MockClock, tmp_path: Path
) -> None:
    """It was held for ever, for a task that owed nothing, or was no more."""
    mock_clock.rate = 100
    toys, before, looks, store, busy = Toys(), SlowLooks(), SlowLooks(), MemoryStore(), [True]
    before.gate.set()

    def operations(look: SlowLooks) -> Operations:
        return table(that_owes(toys.operation("maker", look), busy), toys.operation())

    async with running(store, operations(before), str(tmp_path)) as service:
        owing = await started(service, operation="maker", target="slow one")
        assert (await ended(service, owing)).residue != ()
    async with running(store, operations(looks), str(tmp_path)) as service:
        with bounded(30):
            while service.registry.get(owing) is not None:
                await trio.sleep(0.1)
        busy.clear()
        assert (await service.recover(ROOT, owing)).residue == ()
        if destroyed:
            await service.destroy(ROOT, owing)
        looks.gate.set()
        await wait_all_tasks_blocked(0.05)
        with bounded(30):
            await through(service, await started(service, target="one"))


# Leaving the line.


@pytest.mark.parametrize("place", ["a slot", "a target", "a look", "the look before"])
async def test_a_cancel_takes_a_task_out_wherever_it_waits(place: str, tmp_path: Path) -> None:
    toys, looks = Toys(), SlowLooks()
    kind = toys.operation(look=looks)
    limit = 1 if place == "a slot" else 4
    async with running(MemoryStore(), table(kind), str(tmp_path), running_tasks=limit) as service:
        target = {"a look": "slow one", "the look before": "slow one", "a slot": "other"}.get(place, "one")
        first = await started(service, target=target, hold=True)
        if place in ("a slot", "a target"):
            await reached(service, first, State.RUNNING)
        second = await started(service, target="slow two" if place == "a look" else "one")
        third = await started(service, target="one")
        await wait_all_tasks_blocked(0.02)

        await service.cancel(ROOT, second)
        task = await ended(service, second)

        assert (task.state, task.attempt, task.waits_for) == (State.CANCELLED, 0, None)
        await service.cancel(ROOT, first)
        assert (await ended(service, first)).state is State.CANCELLED
        await through(service, third)
        looks.gate.set()


async def test_while_what_was_interrupted_is_undone_the_others_wait_and_can_be_cancelled(
    autojump_clock: object, tmp_path: Path
) -> None:
    store, toys, go_on = MemoryStore(), Toys(), trio.Event()
    kind = that_hangs(toys.untargeted("maker"), go_on)
    operations = table(kind, toys.untargeted())
    async with running(store, operations, str(tmp_path)) as service:
        await reached(service, await started(service, operation="maker"), State.RUNNING)
        await wait_all_tasks_blocked()
    async with running(store, operations, str(tmp_path)) as service:
        first, second = await started(service), await started(service)
        assert await waits_for(service, first) == "the recovery of tasks that were interrupted"
        await service.cancel(ROOT, first)
        assert (await ended(service, first)).state is State.CANCELLED
        go_on.set()
        await through(service, second)


async def test_when_what_was_interrupted_is_undone_nobody_is_said_to_wait_for_that(tmp_path: Path) -> None:
    """It was said on for as long as a disk did not answer what the target is."""
    store, toys, looks, go_on = MemoryStore(), Toys(), SlowLooks(), trio.Event()
    maker = that_hangs(toys.untargeted("maker"), go_on)
    operations = table(maker, toys.operation(look=looks))
    async with running(store, operations, str(tmp_path)) as service:
        await reached(service, await started(service, operation="maker"), State.RUNNING)
        await wait_all_tasks_blocked()
    async with running(store, operations, str(tmp_path)) as service:
        task = await started(service, target="slow one")
        await told(service, task, "the recovery of tasks that were interrupted")
        go_on.set()
        await told(service, task, None)
        assert (await service.get(ROOT, task)).state is State.QUEUED
        looks.gate.set()
        await through(service, task)


@pytest.mark.parametrize("answers", [True, False], ids=["its target is known", "not even its target is known"])
async def test_an_undo_that_hangs_at_a_start_holds_up_who_wants_its_target_and_the_others_for_a_moment(
    answers: bool, gives_up: None, mock_clock: MockClock, tmp_path: Path
) -> None:
    mock_clock.rate = 100
    store, toys, before, looks, go_on = MemoryStore(), Toys(), SlowLooks(), SlowLooks(), trio.Event()
    before.gate.set()

    def operations(look: SlowLooks) -> Operations:
        maker = that_hangs(toys.operation("maker", look), go_on)
        return table(maker, toys.operation(), toys.untargeted("other"))

    async with running(store, operations(before), str(tmp_path)) as service:
        interrupted = await started(service, operation="maker", target="slow one")
        await reached(service, interrupted, State.RUNNING)
        await wait_all_tasks_blocked(0.02)
    if answers:
        looks.gate.set()
    async with running(store, operations(looks), str(tmp_path)) as service:
        same = await started(service, BOB, target="one")
        with bounded(30):
            await through(service, await started(service, BOB, "other"), await started(service, BOB, target="two"))
        await told(service, same, "a task of another owner, which has the same target")
        looks.gate.set()
        go_on.set()
        await through(service, same)


@pytest.mark.parametrize("targeted", [False, True], ids=["without targets", "each on its own target"])
async def test_after_a_restart_too_one_owners_tasks_run_in_the_order_in_which_they_were_started(
    tmp_path: Path, targeted: bool
) -> None:
    """Those that were interrupted first, though each is undone in its own time."""
    store, toys = MemoryStore(), Toys()
    kind = attrs.evolve(toys.operation() if targeted else toys.untargeted(), restartable=True)
    async with running(store, table(kind), str(tmp_path), running_tasks=3) as service:
        ids = [await started(service, hold=True, target=str(n)) for n in range(8)]
        with bounded(30):
            while len(toys.begun) < 3:
                await trio.sleep(0.001)
    toys.begun.clear()
    toys.let_go(*ids)
    async with running(store, table(kind), str(tmp_path), running_tasks=1) as service:
        await through(service, *ids)

    assert toys.begun == ids


# What is told.


async def test_what_a_task_waits_for_is_told_by_the_record_and_kept_nowhere(
    autojump_clock: object, tmp_path: Path
) -> None:
    store, toys = MemoryStore(), Toys()
    seen: list[str | None] = []
    async with running(store, table(toys.untargeted()), str(tmp_path), running_tasks=1) as service:
        first = await started(service)
        live = service.registry.get(await started(service))
        assert live is not None
        while not live.task.state.ended:
            if not seen or seen[-1] != live.task.waits_for:
                seen.append(live.task.waits_for)
            await live.changed()
            kept = await store.get(live.task.id)
            assert kept is not None
            assert kept.waits_for is None
        await through(service, first)

    assert seen == [None, "a free slot: 1 run at a time", None]


async def test_a_limit_that_is_set_anew_is_told_anew(autojump_clock: object, tmp_path: Path) -> None:
    toys = Toys()
    async with running(MemoryStore(), table(toys.untargeted()), str(tmp_path), running_tasks=1) as service:
        ids = [await started(service) for _ in range(4)]
        assert await waits_for(service, ids[2]) == "a free slot: 1 run at a time"
        service.runner.running_tasks = 2
        await reached(service, ids[1], State.RUNNING)
        assert await waits_for(service, ids[2]) == "a free slot: 2 run at a time"
        assert await waits_for(service, ids[1]) is None
        await through(service, *ids)


def test_a_limit_is_for_an_operation_that_there_is(tmp_path: Path) -> None:
    settings = config.load(None, {"TASKD_RUNNING_PER_OPERATION": "copy=4, command=2,copy=3"})
    assert settings.operation_limits == {"copy": 3, "command": 2}
    for wrong in ("copy", "copy=0", "copy=-1", "=4", "copy=4.5", "copy = 4"):
        with pytest.raises(ConfigError, match="expected limits of at least 1, such as copy=4"):
            config.load(None, {"TASKD_RUNNING_PER_OPERATION": wrong})
    with pytest.raises(ConfigError, match=r"running_per_operation: there is no operation 'cpoy'"):
        Line(64, 32, {"cpoy": 4}).expect(["copy", "command"])


# Any line at all.


def task(n: int, owner: str, operation: str) -> Task:
    return Task(str(n), operation, {}, owner, "taskd:", "here", now(), seq=n)


@attrs.define(eq=False)
class Crowd:
    """Many tasks in one line, and the law looked at each time when one begins."""

    line: Line
    chance: Random
    running: dict[str, tuple[str, str, frozenset[str]]] = attrs.field(factory=dict)
    gone: int = 0

    async def go(self, n: int) -> None:
        owner, operation = self.chance.choice("abc"), self.chance.choice("xy")
        keys = [frozenset(self.chance.sample("123", self.chance.randint(0, 2))) for _ in range(2)]
        told: list[str] = []
        turn = self.line.enter(task(n, owner, operation), told.append, has_target=self.chance.random() < 0.8)
        looks = iter([keys[0], *[keys[self.chance.random() < 0.2]] * 1000])

        async def look() -> frozenset[str]:
            await trio.sleep(self.chance.random())
            return next(looks)

        with trio.move_on_after(self.chance.choice((3, 1e9, 1e9))):
            async with self.line.running(turn, look):
                self.begin(str(n), owner, operation, turn.keys)
                await trio.sleep(self.chance.random() * 3)
        self.running.pop(str(n), None)
        self.line.let_go(str(n))
        self.gone += 1

    def begin(self, id: str, owner: str, operation: str, keys: frozenset[str]) -> None:
        assert not any(keys & others for _, _, others in self.running.values())
        self.running[id] = (owner, operation, keys)
        assert len(self.running) <= self.line.total
        owners: Mapping[str, int] = Counter(owner for owner, _, _ in self.running.values())
        operations: Mapping[str, int] = Counter(operation for _, operation, _ in self.running.values())
        assert max(owners.values()) <= self.line.per_owner
        assert operations.get("x", 0) <= 2


@pytest.mark.parametrize("seed", range(30))
async def test_every_task_gets_through_any_line_and_the_limits_hold(seed: int, autojump_clock: object) -> None:
    crowd = Crowd(Line(4, 3, {"x": 2}), Random(seed))
    async with trio.open_nursery() as nursery:
        for n in range(60):
            nursery.start_soon(crowd.go, n)

    assert crowd.gone == 60
    assert left(crowd.line) == [0] * 6


def left(line: Line) -> list[int]:
    """What a line remembers of those that have gone."""
    state = (line._ready, line._blocked, line._same, line._last, +line._owners, +line._operations)
    return [len(each) for each in state]
