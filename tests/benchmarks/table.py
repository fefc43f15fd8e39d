"""The rows: what is measured, beside what, what is to be reached, what measures it. README.rst has them too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from tests.benchmarks import answering, busy, copies, durable, events, growth, idle, resident, steps, stored
from tests.benchmarks.measure import Extent, Outcomes


@attrs.frozen
class Goal:
    """``bound`` in ``unit``; ``least``: to be reached or passed, else not to be passed."""

    least: bool
    bound: float
    unit: str

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g} {self.unit}".strip()

    def met(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound


def least(bound: float, unit: str = "×") -> Goal:
    return Goal(True, bound, unit)


def most(bound: float, unit: str = "×") -> Goal:
    return Goal(False, bound, unit)


@attrs.frozen
class Row:
    """``measure`` gives an outcome for the row's name, and perhaps for others'. ``plotted`` ones take long: they
    are measured when they are named, or for a plot.
    """

    name: str
    what: str
    beside: str
    goal: Goal
    measure: Callable[[Extent], Outcomes]
    plotted: bool = False


def beside_others(name: str, what: str, measure: Callable[[Extent], Outcomes]) -> Iterator[Row]:
    """A copy beside each of the others: not far behind ``cp``, ahead of the rest."""
    for other, (command, _) in copies.OTHERS.items():
        yield Row(f"{name}-{other}", what, f"``{command}``", least(0.95 if other == "cp" else 1), measure)
        what = "the same"


QEMU: Final = "qemu-storage-daemon, ``query-jobs`` with no jobs"

ROWS: Final = (
    Row("stat-qemu", "``Task.stat``, one request at a time", QEMU, least(4), answering.alone),
    Row("stat-echo", "the same", "trio echo of lines (the floor)", least(0.6), answering.alone),
    Row("stat-32-qemu", "``Task.stat``, 32 in flight on one connection", QEMU, least(15), answering.in_flight),
    Row("stat-32-echo", "the same", "trio echo through orjson", least(0.3), answering.in_flight),
    Row(
        "stat-64-sum",
        "``Task.stat``, 64 connections",
        "one connection, 32 in flight",
        least(0.5),
        answering.together,
    ),
    Row("stat-64-p99", "the same, p99", "p50", most(3), answering.together),
    Row(
        "stat-http",
        "``Task.stat`` over HTTP, kept alive",
        "supervisor, ``getProcessInfo``",
        least(3),
        answering.http,
    ),
    Row("stat-stored", "``Task.stat`` of 1,000,000 stored tasks", "of 1,000", most(1.2), stored.a_million),
    Row("list-stored", "``Task.list``, 100 of 1,000,000", "of 1,000", most(1.2), stored.a_million),
    Row(
        "ls-qemu",
        "``Task.ls`` of 1,000 tasks",
        "qemu-storage-daemon, ``query-jobs`` with 1,000 jobs",
        least(10),
        answering.a_thousand,
    ),
    Row(
        "life-qemu",
        "durable start, complete, destroy; one client",
        "qemu-storage-daemon, create and dismiss, not durable",
        least(1.5),
        durable.one_client,
    ),
    Row(
        "start-64-disk",
        "durable ``Task.start``, 64 clients",
        "one fdatasync at a time",
        least(3),
        durable.many_clients,
    ),
    Row("step-dbos", "a task with one durable step", "DBOS on SQLite", least(10), steps.one_step),
    Row("step-taskflow", "the same", "TaskFlow on SQLite", least(10), steps.one_step),
    Row("step-huey", "the same", "huey on SQLite", least(10), steps.one_step),
    *beside_others("copy", "copy of 4 GiB of data, fsync included", copies.plain),
    *beside_others("sparse", "copy of 4 GiB, 15 of 16 parts holes", copies.sparse),
    *beside_others("pieces", "copy of 4 GiB, half of it holes: 32,768 pieces of 64 KiB", copies.pieces),
    Row(
        "reflink-cp",
        "copy by reflink on XFS, the time more than",
        f"``{copies.SHARED}``",
        most(20, "ms"),
        copies.reflink,
    ),
    Row("stat-copying", "``Task.stat``, p99 while two copies run", "idle p99", most(3), busy.copying),
    Row("cancel-call", "``Task.cancel`` of 1,000 running tasks, p99", "", most(5, "ms"), busy.cancel),
    Row("cancel-copy", "cancel of a copy until it has ended", "", most(100, "ms"), busy.cancel_copy),
    Row(
        "events-echo",
        "1,000 watchers, events told",
        "trio echo, 1,000 connections, lines as long",
        least(0.3),
        events.told,
    ),
    Row("start-stored", "start until READY, 1,000,000 stored tasks", "with none", most(1.2), stored.a_million),
    Row(
        "memory-empty",
        "resident memory, no tasks",
        "Python that has imported trio, orjson, jsonrpcserver, cattrs",
        most(2),
        resident.empty,
    ),
    Row("memory-task", "of each running task", "", most(8, "KiB"), resident.each_task),
    Row("memory-stored", "with 1,000,000 stored", "with none", most(1.2), stored.a_million),
    Row("idle-calls", "system calls of an idle daemon in 10 s", "", most(5, ""), idle.system_calls),
    Row(
        "grows-stat",
        "``Task.stat`` at 10² to 10⁶ stored tasks, where it is dearest",
        "at 10²",
        most(1.2),
        growth.by_tasks,
        plotted=True,
    ),
    Row(
        "grows-tasks",
        "cost by stored tasks, 10² to 10⁶: steepest step",
        "linear",
        most(1, ""),
        growth.by_tasks,
        plotted=True,
    ),
    Row(
        "grows-connections", "by connections, 1 to 10⁴", "linear", most(1, ""), growth.by_connections, plotted=True
    ),
    Row("grows-size", "by message size, 10² to 10⁶ bytes", "linear", most(1, ""), growth.by_size, plotted=True),
)

# What was measured last on a machine that did nothing else, as ``--json`` writes it; README.rst has these figures.
FIGURES: Final = Path(__file__).parent / "figures.json"


def figures() -> dict[str, Any]:
    """``date``, ``machine``, ``load``, and ``rows`` by name."""
    read: dict[str, Any] = json.loads(FIGURES.read_text())
    return read


def reached(row: Row) -> str:
    """The row's figure, in words: the median, and between what the rounds were."""
    said = figures()["rows"].get(row.name)
    if said is None:
        return "not measured"
    if "why" in said:
        return f"skipped: {said['why']}"
    return f"{said['value']:.3g} {row.goal.unit} ({said['low']:.3g} … {said['high']:.3g})".replace("  ", " ")
