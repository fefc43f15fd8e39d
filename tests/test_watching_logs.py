"""Watching logs: each line is told once, before the change that it came with, whatever becomes of its task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from taskd.model import Task
from taskd.service import End, Service
from taskd.service import watching as law
from taskd.service.watching import Kind, Notice
from taskd.states import State
from tests.bench import ROOT
from tests.test_watching import Fold, follow, quiet, serving


@pytest.mark.parametrize("how", ["destroy_on_finish", "destroy", "prune"])
async def test_the_last_lines_of_a_task_that_is_destroyed_at_once_are_told(
    tmp_path: Path, autojump_clock: object, how: str
) -> None:
    async with serving(tmp_path) as (service, nursery):
        fold = Fold()
        task = await service.start(ROOT, "external", {}, destroy_on_finish=how == "destroy_on_finish")
        nursery.start_soon(follow, service, ROOT, fold)
        await quiet(service)
        await service.update(ROOT, task.id, log=["first"])
        await service.update(ROOT, task.id, log=["last words"], end=End(State.COMPLETED))
        if how == "destroy":
            await service.destroy(ROOT, task.id)
        if how == "prune":
            await service.store.prune(before=0, keep=0, forgotten=service.registry.forget)
        await quiet(service)

        assert fold.lines(task.id) == ["first", "last words"]
        assert fold.kinds[-1] is Kind.DESTROYED


async def test_who_goes_on_is_told_the_last_lines_of_what_was_destroyed_and_no_others(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        old, new = [await service.start(ROOT, "external", {}) for _ in range(2)]
        await service.update(ROOT, old.id, log=["told before"], end=End(State.COMPLETED))
        since = service.registry.feed.revision
        await service.update(ROOT, new.id, log=["told now"], end=End(State.COMPLETED))
        for task in (old, new):
            await service.destroy(ROOT, task.id)
        fold = Fold()
        nursery.start_soon(partial(follow, service, ROOT, fold, since=since))
        await quiet(service)

        assert (fold.lines(old.id), fold.lines(new.id)) == ([], ["told now"])


async def test_the_lines_of_what_is_gone_stay_no_longer_than_the_feed_tells_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _):
        logs = service.registry.logs
        task = await service.start(ROOT, "external", {})
        await service.update(ROOT, task.id, log=["a line"], end=End(State.COMPLETED))
        await trio.testing.wait_all_tasks_blocked()
        await service.destroy(ROOT, task.id)
        assert [line.line for line in logs.last(task.id, 0, 0, 9)] == ["a line"]

        service.registry.feed.limit = 1
        await service.start(ROOT, "external", {})
        assert logs.last(task.id, 0, 0, 9) == []


async def _ended(service: Service, *lines: str) -> Task:
    task = await service.start(ROOT, "external", {})
    return await service.update(ROOT, task.id, log=lines, end=End(State.COMPLETED))


async def test_a_look_at_an_ended_task_does_not_tell_its_log_again(tmp_path: Path, autojump_clock: object) -> None:
    async with serving(tmp_path) as (service, nursery):
        fold = Fold()
        nursery.start_soon(follow, service, ROOT, fold)
        task = await _ended(service, "one", "two")
        await quiet(service)
        service.registry.touch(await service.get(ROOT, task.id))
        await quiet(service)

        assert fold.lines(task.id) == ["one", "two"]


async def test_a_resync_of_named_tasks_does_not_tell_their_logs_again(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with serving(tmp_path) as (service, nursery):
        service.registry.feed.limit = 3
        going, done = await service.start(ROOT, "external", {}), await _ended(service, "one", "two")
        fold = Fold()
        nursery.start_soon(partial(follow, service, ROOT, fold, ids=[done.id, going.id]))
        await quiet(service)
        await service.update(ROOT, going.id, status="x")
        await trio.sleep(law.CALM / 2)  # what happens now is told later
        await service.update(ROOT, going.id, status="y")
        for _ in range(6):
            await service.start(ROOT, "external", {})
        await quiet(service)

        assert Kind.RESYNC in fold.kinds
        assert fold.lines(done.id) == ["one", "two"]


async def test_two_resyncs_in_a_row_tell_each_line_once(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends while a slow reader's resync is told is in it already, and in the next one."""
    monkeypatch.setattr(law, "BATCH", 1)
    monkeypatch.setattr(law, "PAGE", 1)
    async with serving(tmp_path) as (service, nursery):
        service.registry.feed.limit = 2
        first, task, *others = [await service.start(ROOT, "external", {}) for _ in range(5)]
        await service.complete(ROOT, first.id)
        fold, go, stuck = Fold(), trio.Event(), trio.Event()
        watch = await law.begin(service, ROOT, since=0, log=True)

        async def tell(notices: Sequence[Notice]) -> None:
            for notice in notices:
                fold.take(notice)
            if Kind.SNAPSHOT in fold.kinds and not stuck.is_set():
                stuck.set()
                await go.wait()

        nursery.start_soon(watch.run, tell)
        await stuck.wait()
        await service.update(ROOT, task.id, log=["one", "two"], end=End(State.COMPLETED))
        for other in others:
            await service.update(ROOT, other.id, status="x")
        go.set()
        await quiet(service)

        assert fold.kinds.count(Kind.RESYNC) == 2
        assert fold.lines(task.id) == ["one", "two"]


async def test_of_what_has_ended_only_so_much_is_remembered(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(law, "ENDINGS", 3)
    async with serving(tmp_path) as (service, nursery):
        watch, fold = await law.begin(service, ROOT, log=True), Fold()

        async def tell(notices: Sequence[Notice]) -> None:
            for notice in notices:
                fold.take(notice)

        nursery.start_soon(watch.run, tell)
        tasks = [await _ended(service, "a line") for _ in range(9)]
        await quiet(service)

        assert [fold.lines(task.id) for task in tasks] == [["a line"]] * 9
        assert set(watch._told) == {task.id for task in tasks[-3:]}
