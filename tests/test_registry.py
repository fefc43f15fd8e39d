"""What the registry keeps beside the snapshots: whose the tasks are, and which lines belong to which change."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from taskd.model import LogLine, Time
from taskd.operations.external import OPERATION as EXTERNAL
from taskd.registry.logs import OVERHEAD, Logs
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, running
from tests.test_runner import table


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


async def test_a_task_that_is_only_being_made_is_nobodys_yet(tmp_path: Path) -> None:
    """Its place in the order of changes is not reached: a follower is told of it when it is."""
    async with running(MemoryStore(), table(EXTERNAL), str(tmp_path)) as service:
        registry = service.registry
        ahead = registry.take(None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.start, ROOT, "external", {})
            await trio.testing.wait_all_tasks_blocked()
            assert len(registry) == 1
            assert registry.of("root") == []
            registry.give_up(ahead)
        assert len(registry.of("root")) == 1


def lines(first: int, count: int) -> list[LogLine]:
    return [LogLine(n, Time(0.0), f"line {n}") for n in range(first, first + count)]


def test_a_line_belongs_to_the_change_that_it_is_shown_with() -> None:
    logs = Logs()
    logs.append("a", lines(0, 2), 10)
    logs.append("a", lines(2, 2), 20)

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
    logs.append("a", lines(0, 2), 10)
    logs.append("a", lines(2, 2), 10)

    assert logs.first_after("a", revision) == {9: None, 10: 4}[revision]
    assert logs.after("a", 0) is None
