"""The numbers: a task of each kind is walked through its life, and the counters are looked at before and after."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from taskd import dialects, operations
from taskd.errors import StoreUnavailable, TooManyTasks, XenApiError
from taskd.metrics import Metrics, Now
from taskd.model import JSON, Failure
from taskd.operations import Handle, Operation
from taskd.service import Service, health
from taskd.service.health import PATIENCE
from taskd.states import State
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT, ended, running

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]

EMPTY = Now("1", {}, 0, 0, 0.0, recovering=False)


def samples(text: bytes) -> Samples:
    """What Prometheus reads in it, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((f"taskd_{name}", frozenset(labels.items())), 0.0)


@attrs.define
class Difference:
    """What has been counted since the last look."""

    service: Service
    _last: Samples = attrs.field(factory=dict)

    async def __call__(self) -> dict[str, float]:
        """``name{label values}`` of what has changed, by how much; times only by how many there were."""
        found = samples(await self.service.health.text())
        changed = {
            self._said(*key): found.get(key, 0.0) - self._last.get(key, 0.0)
            for key in found.keys() | self._last.keys()
            if found.get(key, 0.0) != self._last.get(key, 0.0)
        }
        self._last = found
        left_out = ("_bucket", "_sum", "loop_lag_seconds", "revision", "info")
        return {key: more for key, more in changed.items() if not key.partition("{")[0].endswith(left_out)}

    @staticmethod
    def _said(name: str, labels: frozenset[tuple[str, str]]) -> str:
        values = ",".join(value for _, value in sorted(labels))
        return name.removeprefix("taskd_") + (f"{{{values}}}" if values else "")


def counted(service: Service) -> Difference:
    """The daemon's own way to tell ``Metrics`` of changes."""
    service.registry.noted = service.metrics.changed
    return Difference(service)


@attrs.frozen
class Nothing:
    pass


def toy(run: Callable[[Nothing, Handle], Awaitable[JSON]], undo: Callable[[], Awaitable[None]]) -> Operation:
    return Operation("toy", "", Nothing, run, verbs={"undo": undo})


async def forever(params: Nothing, handle: Handle) -> JSON:
    await handle.journal("undo")
    await trio.sleep_forever()


# Lives.


async def test_a_copy_is_made_runs_and_ends_and_its_bytes_are_counted(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(300_000))
    async with running(MemoryStore(), operations.load(), str(tmp_path / "w")) as service:
        since = counted(service)
        await since()
        task = await service.start(ROOT, "copy", {"source": str(source), "target": str(target)})
        done = await ended(service, task.id)
        assert isinstance(done.result, dict)
        found = await since()

    moved = {"copied_bytes_total": float(str(done.result["copied"]))} if done.result["copied"] else {}
    assert found == {
        "tasks_made_total{copy}": 1,
        "task_starts_total{copy}": 1,
        "task_ends_total{copy,completed}": 1,
        **moved,
    }


async def test_a_copy_that_is_cancelled_counts_no_bytes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    async with running(MemoryStore(), operations.load(), str(tmp_path / "w")) as service:
        since = counted(service)
        params: Mapping[str, JSON] = {"source": str(source), "target": str(tmp_path / "t"), "rate_limit": 1}
        task = await service.start(ROOT, "copy", params)
        await service.cancel(ROOT, task.id)
        await ended(service, task.id)
        found = await since()

    assert found["task_ends_total{copy,cancelled}"] == 1
    assert found["cancel_seconds_count"] == 1
    assert "copied_bytes_total" not in found


@pytest.mark.parametrize(("program", "outcome"), [("true", "completed"), ("false", "failed")])
async def test_a_command_is_counted_by_how_it_ends(tmp_path: Path, program: str, outcome: str) -> None:
    async with running(MemoryStore(), operations.load(), str(tmp_path)) as service:
        since = counted(service)
        await since()
        task = await service.start(ROOT, "command", {"argv": [program]})
        await ended(service, task.id)

        assert await since() == {
            "tasks_made_total{command}": 1,
            "task_starts_total{command}": 1,
            f"task_ends_total{{command,{outcome}}}": 1,
        }


async def test_an_external_task_runs_from_the_first_and_is_there_while_it_has_not_ended(tmp_path: Path) -> None:
    async with running(MemoryStore(), operations.load(), str(tmp_path)) as service:
        since = counted(service)
        await since()
        task = await service.start(ROOT, "external", {})
        assert await since() == {
            "tasks_made_total{external}": 1,
            "task_starts_total{external}": 1,
            "tasks{external,running}": 1,
        }
        await service.update(ROOT, task.id, label="goes on")
        assert await since() == {}
        await service.fail(ROOT, task.id, Failure("BROKEN", "it broke"))
        await trio.testing.wait_all_tasks_blocked()
        assert await since() == {"tasks{external,running}": -1, "task_ends_total{external,failed}": 1}
        await service.destroy(ROOT, task.id)
        assert await since() == {}


async def test_from_a_cancel_to_the_end_is_timed_once_whoever_asks_again(tmp_path: Path) -> None:
    async with running(MemoryStore(), operations.load(), str(tmp_path)) as service:
        since = counted(service)
        task = await service.start(ROOT, "external", {})
        await service.cancel(ROOT, task.id)
        await service.cancel(ROOT, task.id)
        assert "cancel_seconds_count" not in await since()
        await service.fail(ROOT, task.id, Failure("STOPPED", "as asked"))
        await trio.testing.wait_all_tasks_blocked()
        found = await since()

    assert (found["cancel_seconds_count"], found["task_ends_total{external,cancelled}"]) == (1, 1)


async def test_what_waits_for_a_slot_is_the_queue(tmp_path: Path) -> None:
    async def undo() -> None:
        pass

    async with running(MemoryStore(), {"toy": toy(forever, undo)}, str(tmp_path), running_tasks=1) as service:
        since = counted(service)
        for _ in range(3):
            await service.start(ROOT, "toy", {})
        await trio.testing.wait_all_tasks_blocked()
        found = await since()

    assert (found["tasks{toy,running}"], found["tasks{toy,queued}"], found["queue_length"]) == (1, 2, 2)
    assert (found["tasks_made_total{toy}"], found["task_starts_total{toy}"]) == (3, 1)


async def test_an_undo_that_fails_is_counted_and_its_residue_is_there_until_it_is_gone(
    autojump_clock: object, tmp_path: Path
) -> None:
    broken = True

    async def undo() -> None:
        if broken:
            raise OSError(5, "Input/output error")

    async with running(MemoryStore(), {"toy": toy(forever, undo)}, str(tmp_path)) as service:
        counted(service)

        async def fails() -> str:
            task = await service.start(ROOT, "toy", {})
            await trio.testing.wait_all_tasks_blocked()
            await service.cancel(ROOT, task.id)
            assert (await ended(service, task.id)).state is State.FAILED
            await trio.testing.wait_all_tasks_blocked()
            return task.id

        first, second = await fails(), await fails()
        found = samples(service.metrics.text(EMPTY))
        assert value(found, "undo_failures_total", operation="toy") == 2
        assert value(found, "tasks_with_residue") == 2
        await service.destroy(ROOT, first, force=True)
        assert value(samples(service.metrics.text(EMPTY)), "tasks_with_residue") == 1
        await service.recover(ROOT, second)
        assert value(samples(service.metrics.text(EMPTY)), "tasks_with_residue") == 1
        broken = False
        await service.recover(ROOT, second)
        found = samples(service.metrics.text(EMPTY))
        assert value(found, "tasks_with_residue") == 0
        assert value(found, "undo_failures_total", operation="toy") == 2
        assert value(found, "task_ends_total", operation="toy", outcome="failed") == 2


async def test_progress_is_no_change_that_is_counted(tmp_path: Path) -> None:
    heard: list[str] = []
    async with running(MemoryStore(), operations.load(), str(tmp_path)) as service:
        task = await service.start(ROOT, "external", {})
        service.registry.noted = lambda before, after: heard.append("changed")
        live = service.registry.get(task.id)
        assert live is not None
        service.registry.report(live, attrs.evolve(live.progress, done=5))

    assert heard == []


# The store.


async def test_each_transaction_is_timed_with_the_writes_that_share_it(tmp_path: Path) -> None:
    metrics = Metrics()
    store = await SqliteStore.open(tmp_path / "db", metrics.committed)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(store.reserve, 1)
    found = samples(metrics.text(EMPTY))
    commits = store.commits
    await store.close()

    assert value(found, "commit_seconds_count") == value(found, "commit_writes_count") == commits
    assert value(found, "commit_writes_sum") == 20
    assert 0 < value(found, "commit_seconds_sum") < 30


async def test_a_transaction_that_fails_is_counted_as_that(tmp_path: Path) -> None:
    metrics = Metrics()
    store = await SqliteStore.open(tmp_path / "db", metrics.committed)

    before = store.commits
    await store._writer.write(lambda connection: connection.execute("SELECT 1"))
    with pytest.raises(StoreUnavailable):
        await store._writer.write(lambda connection: connection.execute("no SQL"))
    found = samples(metrics.text(EMPTY))
    await store.close()

    assert value(found, "commit_failures_total") == 1
    assert value(found, "commit_seconds_count") == before + 1


@attrs.define(eq=False)
class StuckStore(MemoryStore):
    """Does not come back from a write, as a disk may not."""

    tries: int = 0

    async def reserve(self, count: int) -> int:
        if count == 1:
            self.tries += 1
            await trio.sleep_forever()
        return await super().reserve(count)


async def test_a_store_that_hangs_is_one_that_cannot_write_and_is_tried_once_for_all_who_ask(
    autojump_clock: object, tmp_path: Path
) -> None:
    store = StuckStore()
    async with running(store, operations.load(), str(tmp_path)) as service:
        began, said = trio.current_time(), []

        async def ask() -> None:
            said.append(await service.health.fault())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        assert trio.current_time() - began == PATIENCE
        assert said == ["the store cannot write: it has not answered for 5 seconds"] * 2
        assert store.tries == 1


async def test_how_late_the_loop_wakes_is_told_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "BEAT", 0.01)
    async with running(MemoryStore(), operations.load(), str(tmp_path)) as service, trio.open_nursery() as nursery:
        nursery.start_soon(service.health.beat)
        await trio.testing.wait_all_tasks_blocked()
        until = time.perf_counter() + 0.1
        while time.perf_counter() < until:
            pass
        while service.health.loop_lag_s < 0.08:
            await trio.lowlevel.checkpoint()
        assert service.health.now().loop_lag_s < 20
        nursery.cancel_scope.cancel()


# What is told.


def test_an_error_of_xenapi_is_counted_as_the_one_that_it_stands_for() -> None:
    metrics = Metrics()
    try:
        raise XenApiError("TOO_MANY_PENDING_TASKS") from TooManyTasks(3)
    except XenApiError as error:
        metrics.refused(error)
    metrics.refused(TooManyTasks(3))
    metrics.refused(XenApiError("HANDLE_INVALID", ("task", "x")))
    found = samples(metrics.text(EMPTY))

    assert value(found, "refusals_total", error="Too_many_tasks") == 2
    assert value(found, "refusals_total", error="HANDLE_INVALID") == 1


def test_any_thread_may_count() -> None:
    metrics = Metrics()

    def count() -> None:
        for _ in range(1000):
            metrics.committed(0.001, 2, failed=False)
            metrics.request("native", "Task.get", 0.001)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = samples(metrics.text(EMPTY))

    assert value(found, "commit_writes_sum") == 8000
    assert value(found, "request_seconds_count", dialect="native", method="Task.get") == 4000


def test_two_daemons_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.committed(0.001, 1, failed=True)

    assert value(samples(one.text(EMPTY)), "commit_failures_total") == 1
    assert value(samples(other.text(EMPTY)), "commit_failures_total") == 0


def test_what_is_there_no_more_is_not_told_any_more() -> None:
    metrics = Metrics()
    metrics.text(attrs.evolve(EMPTY, tasks={("copy", "queued"): 2, ("copy", "running"): 1}))
    found = samples(metrics.text(attrs.evolve(EMPTY, tasks={("copy", "running"): 1})))

    assert value(found, "queue_length") == 0
    assert ("taskd_tasks", frozenset({("operation", "copy"), ("state", "queued")})) not in found


def test_the_lines_for_people_have_no_buckets_and_no_zeros() -> None:
    metrics = Metrics()
    metrics.request("native", "Task.get", 0.25)

    assert [*metrics.lines(attrs.evolve(EMPTY, connections=2))] == [
        'taskd_info{version="1"} 1',
        "taskd_connections 2",
        'taskd_request_seconds_count{dialect="native",method="Task.get"} 1',
        'taskd_request_seconds_sum{dialect="native",method="Task.get"} 0.25',
    ]


def test_every_method_of_the_table_has_a_dialect() -> None:
    found = {name: method.dialect for name, method in dialects.table().items()}

    assert set(found.values()) == {"native", "smapi", "ucloud"}
    assert (found["Task.get"], found["Task.stat"], found["Tasks.list"]) == ("native", "smapi", "ucloud")
