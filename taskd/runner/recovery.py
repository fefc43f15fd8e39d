"""What comes first after a start, before any task is run: three laws of order.

What a crashed daemon left running is dead before anything is undone (law L6). Nobody gets at a target that an undo
or a finish is still owed to. And new work waits until what was interrupted no longer touches anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from taskd.registry import Live
from taskd.runner.journal import do
from taskd.runner.line import LOOKING
from taskd.runner.targets import has_target, targets_of
from taskd.states import State

if TYPE_CHECKING:
    from taskd.runner import Runner

logger = logging.getLogger("taskd.runner")


async def kill_survivors(runner: Runner, found: Iterable[Live]) -> None:
    """Do the urgent steps of these tasks' journals, all at once."""
    async with trio.open_nursery() as nursery:
        for live in found:
            nursery.start_soon(_kill, runner, live)


async def _kill(runner: Runner, live: Live) -> None:
    operation = runner.operations.get(live.task.operation)
    for step in live.task.journal:
        if operation is not None and step.verb in operation.urgent:
            await do(live, step, operation)


async def hold_targets(runner: Runner, found: Iterable[Live], nursery: trio.Nursery) -> None:
    """What these tasks have worked on is theirs, until they owe nothing more.

    Whoever cannot be told in time, because a disk does not answer, does not keep the others waiting, and has it
    when the disk does. Whose operation is away, or cannot tell any more, has what it had when it was started.
    """
    owing = [live for live in found if live.task.journal]
    told = trio.Semaphore(0)
    for live in owing:
        nursery.start_soon(_hold, runner, live, told)
    with trio.move_on_after(LOOKING):
        for _ in owing:
            await told.acquire()


async def _hold(runner: Runner, live: Live, told: trio.Semaphore) -> None:
    keys = frozenset(live.task.targets)
    if has_target(runner, live):  # names may stand for other files by now, and devices have other numbers
        try:
            keys = await targets_of(runner, live)
        except Exception:
            logger.exception("what task %s works on cannot be told anew", live.task.id)
    if live.task.journal and not live.forgotten:
        runner.line.hold(live.task, keys)
    told.release()


def interrupted(found: Iterable[Live]) -> list[Live]:
    """Those that a crash fell into."""
    return [live for live in found if live.task.state not in (State.QUEUED, State.FAILED)]


async def settled(runner: Runner, live: Live) -> None:
    """Wait until a task found after a crash no longer touches its target, or cannot get on."""
    operation = runner.operations.get(live.task.operation)
    if operation is not None and operation.run is None:
        return
    while live.task.state in (State.RUNNING, State.UNDOING, State.COMMITTED) and not live.task.residue:
        await live.changed()
