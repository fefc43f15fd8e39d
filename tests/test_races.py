"""What two do at once: two tasks on one target, two callers on one task. Each was a hole once."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from taskd.errors import AlreadyEnded, DoesNotExist, HasResidue, NoResidue, StoreUnavailable, TaskInProgress
from taskd.model import JSON, Draft, LogLine, Task, Undo
from taskd.operations import Handle
from taskd.operations import copy as copying
from taskd.operations.external import OPERATION as EXTERNAL
from taskd.registry import AT_HAND, LIGHT
from taskd.registry.quota import UNIT
from taskd.runner import Answer
from taskd.service import Report
from taskd.states import State
from taskd.store import Forgotten, Query
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, ended, running
from tests.process import DaemonProcess
from tests.stores import SlowStore
from tests.test_runner import FullStore, NoParams, World, operation, reached, residual, table

CHUNK = 64 * 1024


def blocks(folder: Path, target: str, first: int, rate: int | None = None) -> dict[str, JSON]:
    (folder / f"source{first}").write_bytes(bytes([first + 1]) * 8 * CHUNK)
    listed = {"blocksize": CHUNK, "ranges": [[first, 4]]}
    source = str(folder / f"source{first}")
    return {"source": source, "target": target, "overwrite": True, "blocks": listed, "rate_limit": rate}


@pytest.mark.parametrize("names", [1, 2], ids=["aside", "in place"])
async def test_two_copies_onto_one_file_both_count(tmp_path: Path, names: int) -> None:
    """Also when they name it differently."""
    target = tmp_path / "target"
    target.write_bytes(b"o" * 8 * CHUNK)
    if names == 2:
        os.link(target, tmp_path / "other name")
    async with running(MemoryStore(), table(copying.OPERATION), str(tmp_path / "w")) as service:
        paths = [str(target), str(tmp_path / "other name" if names == 2 else target)]
        tasks = [
            await service.start(ROOT, "copy", blocks(tmp_path, path, first))
            for path, first in zip(paths, (0, 4), strict=True)
        ]
        states = [(await ended(service, task.id)).state for task in tasks]

    assert states == [State.COMPLETED] * 2
    assert target.read_bytes() == b"\x01" * 4 * CHUNK + b"\x05" * 4 * CHUNK


async def test_a_copy_waits_for_the_one_that_works_in_place_and_for_its_undo(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"o" * 8 * CHUNK)
    os.link(target, tmp_path / "other name")
    async with running(MemoryStore(), table(copying.OPERATION), str(tmp_path / "w")) as service:
        first = await service.start(ROOT, "copy", blocks(tmp_path, str(target), 0, rate=CHUNK))
        await reached(service, first.id, State.RUNNING)
        second = await service.start(ROOT, "copy", blocks(tmp_path, str(tmp_path / "other name"), 2))
        live = service.registry.get(first.id)
        assert live is not None
        while live.task.progress.done == 0:
            await live.changed()
        assert (await service.get(ROOT, second.id)).state is State.QUEUED
        await service.cancel(ROOT, first.id)
        assert (await ended(service, first.id)).state is State.CANCELLED
        assert (await ended(service, second.id)).state is State.COMPLETED

    assert target.read_bytes() == b"o" * 2 * CHUNK + b"\x03" * 4 * CHUNK + b"o" * 2 * CHUNK


async def test_a_copy_that_waits_for_its_target_can_be_cancelled(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"o" * 8 * CHUNK)
    async with running(MemoryStore(), table(copying.OPERATION), str(tmp_path / "w")) as service:
        first = await service.start(ROOT, "copy", blocks(tmp_path, str(target), 0, rate=CHUNK))
        await reached(service, first.id, State.RUNNING)
        second = await service.start(ROOT, "copy", blocks(tmp_path, str(target), 2))
        await service.cancel(ROOT, second.id)
        task = await ended(service, second.id)
        assert (task.state, task.attempt) == (State.CANCELLED, 0)
        await service.cancel(ROOT, first.id)
        await ended(service, first.id)

    assert target.read_bytes() == b"o" * 8 * CHUNK


async def test_two_who_recover_at_once_do_not_undo_twice_at_once(autojump_clock: object, tmp_path: Path) -> None:
    world, refused = World(undo_failures=6), 0
    async with running(MemoryStore(), table(world.operation()), str(tmp_path)) as service:
        task = await residual(service)

        async def recover() -> None:
            nonlocal refused
            try:
                await service.recover(ROOT, task.id)
            except (TaskInProgress, NoResidue):
                refused += 1

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(recover)
        assert service.registry.quota.taken("root") == 0

    assert (world.undone, refused) == (1, 4)


@pytest.mark.parametrize("steps", range(8))
async def test_a_report_that_meets_the_end_of_its_task_takes_nothing_of_its_owners_quota(
    autojump_clock: object, steps: int, tmp_path: Path
) -> None:
    """What it took after the end was given back nobody gave back: at last the owner was refused every task."""
    async with running(MemoryStore(), table(EXTERNAL), str(tmp_path)) as service, trio.open_nursery() as nursery:
        id = (await service.start(ROOT, "external", {})).id

        async def report() -> None:
            with suppress(AlreadyEnded):
                await service.update(ROOT, id, draft=lambda _: Draft("x" * 3 * UNIT))

        service.max_result_bytes = 4 * UNIT
        nursery.start_soon(service.complete, ROOT, id)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.start_soon(report)
        await ended(service, id)
        await trio.testing.wait_all_tasks_blocked()

        assert service.registry.quota.taken("root") == 0


async def test_what_is_being_destroyed_is_not_recovered(autojump_clock: object, tmp_path: Path) -> None:
    world, store = World(undo_failures=5), MemoryStore()
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        task = await residual(service)
        with pytest.raises(HasResidue):
            await service.destroy(ROOT, task.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(service.destroy, ROOT, task.id, force=True))
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            with pytest.raises(TaskInProgress):
                await service.recover(ROOT, task.id)

    assert world.undone == 0
    assert await store.get(task.id) is None


async def test_what_is_to_be_destroyed_when_it_is_undone_is_though_who_recovers_it_hangs_up(
    autojump_clock: object, tmp_path: Path
) -> None:
    world, store = World(undo_failures=5), SlowStore()
    async with running(store, table(world.operation()), str(tmp_path)) as service:
        id = (await residual(service, destroy_on_finish=True)).id
        store.held.add(id)
        with trio.CancelScope() as caller:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.recover, ROOT, id)
                await store.waiting.wait()
                caller.cancel()
                store.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await store.get(id) is None
        with pytest.raises(DoesNotExist):
            await service.get(ROOT, id)


class Ruthless(MemoryStore):
    """Forgets what nothing is owed to any more before it is told of that."""

    forgotten: Forgotten

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        await super().write(task, expect=expect, log=log, keep=keep)
        await self.prune(before=float("inf"), keep=0, forgotten=self.forgotten)


async def test_what_retention_takes_as_soon_as_it_owes_nothing_is_no_more(
    autojump_clock: object, tmp_path: Path
) -> None:
    world, store = World(undo_failures=6), Ruthless()
    async with running(store, table(world.operation(), EXTERNAL), str(tmp_path)) as service:
        store.forgotten = service.registry.forget
        owing = (await residual(service)).id
        assert (await service.recover(ROOT, owing)).residue == ()
        done = (await service.start(ROOT, "external", {})).id
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.wait, ROOT, done)  # for whom it has ended, as for all
            await trio.testing.wait_all_tasks_blocked()
            await service.complete(ROOT, done)
        for id in (owing, done):
            with pytest.raises(DoesNotExist):
                await service.get(ROOT, id)
            assert service.registry.get(id) is None
        assert service.count(ROOT) == service.registry.quota.taken("root") == len(service.registry) == 0
        await attrs.evolve(service, tasks_per_owner=1).start(ROOT, "external", {})


async def test_reports_that_come_together_never_take_progress_back(autojump_clock: object, tmp_path: Path) -> None:
    async with running(MemoryStore(), table(EXTERNAL), str(tmp_path)) as service:
        for _ in range(10):
            id = (await service.start(ROOT, "external", {})).id
            async with trio.open_nursery() as nursery:
                for done in (80, 20, 50):
                    report = Report(done=done, total=100)
                    nursery.start_soon(partial(service.update, ROOT, id, progress=report))
            assert (await service.get(ROOT, id)).progress.done == 80


async def steps(count: int) -> None:
    """So many steps of others, none if it is negative."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def test_nothing_is_written_to_a_task_after_its_end(autojump_clock: object, tmp_path: Path) -> None:
    """A report with a log line that comes at any step of the end is before it, or refused."""
    heard, store = set(), MemoryStore()
    async with running(store, table(EXTERNAL), str(tmp_path)) as service:
        for later in range(-20, 20):
            id, said = (await service.start(ROOT, "external", {})).id, list[str]()

            async def report(id: str = id, later: int = later, said: list[str] = said) -> None:
                await steps(later)
                with suppress(AlreadyEnded):
                    await service.update(ROOT, id, log=["a line"])
                    said.append("a line")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(report)
                await steps(-later)
                end = await service.complete(ROOT, id)
            assert await service.get(ROOT, id) == await store.get(id) == end
            assert [line.line for line in await service.log(ROOT, id)] == said
            heard.add(len(said))
    assert heard == {0, 1}


async def test_a_producer_that_is_heard_while_the_store_is_full_is_not_lost(
    autojump_clock: object, tmp_path: Path
) -> None:
    store = FullStore()
    async with running(store, table(EXTERNAL), str(tmp_path)) as service:
        id = (await service.start(ROOT, "external", {"heartbeat_s": 2})).id
        await trio.testing.wait_all_tasks_blocked()
        store.full = True
        await trio.sleep(3)
        store.full = False
        for _ in range(10):
            await service.update(ROOT, id)
            await trio.sleep(1)
        assert (await service.get(ROOT, id)).state is State.RUNNING


async def test_a_failure_in_words_that_json_cannot_say_is_told(autojump_clock: object, tmp_path: Path) -> None:
    """A path may hold any bytes."""

    async def run(params: NoParams, handle: Handle) -> JSON:
        raise OSError(26, "Text file busy", os.fsdecode(b"/caf\xe9/prog"))

    async with running(MemoryStore(), table(operation(run)), str(tmp_path)) as service:
        task = await ended(service, (await service.start(ROOT, "toy", {})).id)

    assert task.error is not None
    assert (task.error.code, task.error.data[0]) == ("ETXTBSY", "/caf\\udce9/prog")
    assert (await MemoryStore().create(task)) == task


async def test_a_handle_is_of_no_use_after_the_commit(autojump_clock: object, tmp_path: Path) -> None:
    seen: list[Task] = []

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.commit("first")
        live = service.registry.get(handle.id)
        assert live is not None
        for late in (handle.commit("second"), handle.journal("unmake")):
            try:
                await late
            except Exception:
                seen.append(live.task)
        return None

    kind = operation(run, verbs={"unmake": World().unmake})
    async with running(MemoryStore(), table(kind), str(tmp_path)) as service:
        task = await ended(service, (await service.start(ROOT, "toy", {})).id)

    assert (task.state, task.result) == (State.COMPLETED, "first")
    assert [(each.cancellable, each.journal) for each in seen] == [(False, ())] * 2


async def test_a_task_that_is_to_be_forgotten_waits_for_a_store_that_cannot_write(
    autojump_clock: object, tmp_path: Path
) -> None:
    class Stubborn(MemoryStore):
        refusals = 3

        async def delete(self, id: str) -> None:
            if self.refusals:
                self.refusals -= 1
                raise StoreUnavailable("database or disk is full")
            await super().delete(id)

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.commit(None, [Undo("unmake")])
        return None

    store, kind = Stubborn(), operation(run, verbs={"unmake": World().unmake})
    async with running(store, table(kind), str(tmp_path)) as service:
        task = await service.start(ROOT, "toy", {}, destroy_on_finish=True)
        await ended(service, task.id)
        await trio.sleep(60)
        assert await store.get(task.id) is None


def test_a_command_that_fails_has_failed_whoever_started_the_daemon(tmp_path: Path) -> None:
    """With SIGCHLD ignored, which a child inherits, the kernel forgets how children end."""
    daemon = DaemonProcess(tmp_path)
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        daemon.start()
    finally:
        signal.signal(signal.SIGCHLD, old)
    try:
        with daemon.connect() as connection:
            record = connection.start("command", {"argv": ["/bin/sh", "-c", "exit 7"]})
            end = connection.wait(record.id)
    finally:
        daemon.end()

    assert end.error is not None
    assert (end.state, end.error.code) == (State.FAILED, "COMMAND_FAILED")


def test_a_background_job_of_a_shell_is_not_stopped_by_ctrl_c(tmp_path: Path) -> None:
    """A script that starts `taskd &` has SIGINT ignored in it; the terminal's Ctrl-C is for the others."""
    daemon = DaemonProcess(tmp_path)
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        daemon.start()
    finally:
        signal.signal(signal.SIGINT, old)
    try:
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGINT)
        with daemon.connect() as connection:
            assert connection.ids() == ()
        assert daemon.stop() == 0
    finally:
        daemon.end()


async def test_a_target_is_let_go_of_when_its_undo_is_done(tmp_path: Path) -> None:
    seen: list[str] = []
    undoing, go_on = trio.Event(), trio.Event()

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.journal("unmake")
        await trio.sleep_forever()

    async def unmake() -> None:
        undoing.set()
        await go_on.wait()
        seen.append("undone")

    async def look(params: NoParams, handle: Handle) -> JSON:
        seen.append("second")
        return None

    def targets(params: object) -> frozenset[str]:
        return frozenset({"the target"})

    first = operation(run, verbs={"unmake": unmake}, targets=targets)
    second = attrs.evolve(first, name="second", run=look)
    async with running(MemoryStore(), table(first, second), str(tmp_path)) as service:
        one = (await service.start(ROOT, "toy", {})).id
        await reached(service, one, State.RUNNING)
        two = (await service.start(ROOT, "second", {})).id
        await trio.testing.wait_all_tasks_blocked()
        await service.cancel(ROOT, one)
        await undoing.wait()
        await trio.testing.wait_all_tasks_blocked(0.05)
        go_on.set()
        await ended(service, two)

    assert seen == ["undone", "second"]


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
async def test_a_target_that_is_given_up_is_free_when_the_try_under_way_has_come_back(
    mock_clock: MockClock, tmp_path: Path, fails: bool
) -> None:
    mock_clock.rate = 10  # for the pauses between two tries
    seen: list[str] = []
    hanging, go_on = trio.Event(), trio.Event()

    async def run(params: NoParams, handle: Handle) -> JSON:
        await handle.commit(None, [Undo("publish")])
        return None

    async def publish() -> None:
        if seen == ["residue"]:
            hanging.set()
            await go_on.wait()
            seen.append("tried")
            if not fails:
                return
        elif seen:
            seen.append("tried again")
        raise OSError(30, "Read-only file system")

    async def look(params: NoParams, handle: Handle) -> JSON:
        seen.append("second")
        return None

    def targets(params: object) -> frozenset[str]:
        return frozenset({"the target"})

    first = operation(run, verbs={"publish": publish}, targets=targets)
    second = attrs.evolve(first, name="second", run=look)
    async with running(MemoryStore(), table(first, second), str(tmp_path)) as service:
        one = (await service.start(ROOT, "toy", {})).id
        live = service.registry.get(one)
        assert live is not None
        while not live.task.residue:
            await live.changed()
        seen.append("residue")
        two = (await service.start(ROOT, "second", {})).id
        await hanging.wait()
        await service.destroy(ROOT, one, force=True)
        await trio.sleep(2)
        assert seen == ["residue"]
        go_on.set()
        await service.wait(ROOT, two)
        await trio.sleep(2)  # as long as it would be tried again

    assert seen == ["residue", "tried", "second"]


class Overtaken(MemoryStore):
    """Holds up whoever has read a page."""

    def __init__(self) -> None:
        super().__init__()
        self.go = trio.Event()

    async def list(self, query: Query) -> Sequence[Task]:
        page = await super().list(query)
        await self.go.wait()
        return page


@pytest.mark.parametrize("destroyed", [False, True], ids=["ended", "destroyed"])
async def test_a_list_does_not_tell_what_was_overtaken_while_it_was_read(tmp_path: Path, destroyed: bool) -> None:
    """Progress is in memory only: with it, a higher revision than the store's was told of already."""
    end, store, listed = trio.Event(), Overtaken(), list[Task]()

    async def run(params: NoParams, handle: Handle) -> JSON:
        handle.progress(1, 2)
        await end.wait()
        return None

    async with (
        running(store, table(operation(run), EXTERNAL), str(tmp_path)) as service,
        trio.open_nursery() as nursery,
    ):

        async def look() -> None:
            listed.extend(await service.list(ROOT, Query(newest_first=False)))

        id = (await service.start(ROOT, "toy", {})).id
        await trio.testing.wait_all_tasks_blocked()
        told = await service.get(ROOT, id)
        assert told.progress.done == 1
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        end.set()
        await ended(service, id)
        for _ in range(AT_HAND + 1):  # and it is at hand no more
            await service.complete(ROOT, (await service.start(ROOT, "external", {})).id)
        if destroyed:
            await service.destroy(ROOT, id)
        await trio.testing.wait_all_tasks_blocked()
        store.go.set()

    assert [task.state for task in listed] == ([] if destroyed else [State.COMPLETED])


async def test_a_list_does_not_tell_what_was_recovered_while_it_was_read(
    autojump_clock: object, tmp_path: Path
) -> None:
    world, store, listed = World(undo_failures=6), Overtaken(), list[Task]()
    async with (
        running(store, table(world.operation()), str(tmp_path)) as service,
        trio.open_nursery() as nursery,
    ):

        async def look() -> None:
            listed.extend(await service.list(ROOT, Query()))

        # Too heavy to be at hand when it has ended.
        task = await residual(service, annotations={"a": "x" * LIGHT})
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        recovered = await service.recover(ROOT, task.id)
        store.go.set()

    assert listed == [recovered]


@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest first", "newest first"])
@pytest.mark.parametrize(
    "filters", [{}, {"owner": "root", "label": "l", "since": 0}, {"states": (State.RUNNING,)}]
)
async def test_a_walk_through_a_list_goes_on_where_a_task_is_forgotten_while_a_page_is_read(
    tmp_path: Path, newest_first: bool, filters: dict[str, Any]
) -> None:
    """Whoever walks takes a page that is short for the last one."""
    store, pages = Overtaken(), list[list[str]]()
    query = Query(newest_first=newest_first, limit=3, **filters)
    async with running(store, table(EXTERNAL), str(tmp_path)) as service, trio.open_nursery() as nursery:

        async def walk() -> None:
            page: Sequence[Task] = ()
            while not pages or len(page) == query.limit:
                after = page[-1].seq if page else None
                page = await service.list(ROOT, attrs.evolve(query, after=after))
                pages.append([task.id for task in page])

        start = partial(service.start, ROOT, "external", {}, label="l")
        ids = [(await start(destroy_on_finish=True)).id for _ in range(10)]
        nursery.start_soon(walk)
        await trio.testing.wait_all_tasks_blocked()
        order = ids[::-1] if newest_first else ids
        for id in (order[1], order[2], order[4]):
            await service.complete(ROOT, id)
        await trio.testing.wait_all_tasks_blocked()
        store.go.set()

    there = [order[0], order[3], *order[5:]]
    assert pages == [there[:3], there[3:6], there[6:]]


async def test_a_list_that_reads_on_tells_nothing_older_than_what_was_told_meanwhile(tmp_path: Path) -> None:
    store, listed = Overtaken(), list[Task]()
    async with running(store, table(EXTERNAL), str(tmp_path)) as service, trio.open_nursery() as nursery:

        async def look() -> None:
            listed.extend(await service.list(ROOT, Query(newest_first=False, limit=2)))

        start = partial(service.start, ROOT, "external", {}, destroy_on_finish=True)
        first, second, third = [(await start()).id for _ in range(3)]
        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        await service.complete(ROOT, second)
        await trio.testing.wait_all_tasks_blocked()
        store.go.set()
        store.go = trio.Event()  # and held up again, by the page after
        await trio.testing.wait_all_tasks_blocked()
        told = await service.update(ROOT, first, status="on")
        store.go.set()

    assert [(task.id, task.revision) for task in listed][:1] == [(first, told.revision)]
    assert [task.id for task in listed] == [first, third]


class Durable(MemoryStore):
    """Tells when a task is durable, and holds up whoever made it."""

    def __init__(self) -> None:
        super().__init__()
        self.done, self.go = trio.Event(), trio.Event()

    async def create(self, task: Task) -> Task:
        stored = await super().create(task)
        self.done.set()
        await self.go.wait()
        return stored


async def test_who_learns_of_a_task_by_its_request_before_it_is_alive_can_cancel_it(tmp_path: Path) -> None:
    store = Durable()
    async with running(store, table(EXTERNAL), str(tmp_path)) as service, trio.open_nursery() as nursery:
        start = partial(service.start, ROOT, "external", {}, request_id="one")

        async def start_again_and_cancel() -> None:
            given.append(await service.cancel(ROOT, (await start()).id))

        given: list[Answer] = []
        nursery.start_soon(start)
        await store.done.wait()
        nursery.start_soon(start_again_and_cancel)
        await trio.testing.wait_all_tasks_blocked()
        store.go.set()
        await trio.testing.wait_all_tasks_blocked()

        assert given == [Answer.ACCEPTED]


async def test_a_task_that_is_durable_and_not_shown_yet_ends_no_list(tmp_path: Path) -> None:
    """It is shown after the changes that were decided before it, one of which takes its time."""
    go = trio.Event()

    class Slow(MemoryStore):
        async def create(self, task: Task) -> Task:
            if task.label == "slow":
                await go.wait()
            return await super().create(task)

    async with running(Slow(), table(EXTERNAL), str(tmp_path)) as service, trio.open_nursery() as nursery:
        ids = [(await service.start(ROOT, "external", {})).id for _ in range(4)]
        for label in ("slow", "durable"):
            nursery.start_soon(partial(service.start, ROOT, "external", {}, label=label))
            await trio.testing.wait_all_tasks_blocked()
        page = await service.list(ROOT, Query(limit=3))
        go.set()

    assert [task.id for task in page] == ids[:0:-1]
