"""What comes first after a start, before any task is run: three laws of order.

What a crashed daemon left running is dead before anything is undone (law L6). Nobody gets at a target that an undo
or a finish is still owed to. And new work waits until what was interrupted no longer touches anything: for what
has its targets to itself a moment only, since their disk may not answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
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

    They have what they had when they were started, and what their names lead to now. Whoever cannot be told of in
    time, because a disk does not answer, does not keep the others waiting: it has the rest when the disk does.
    Whose operation is away, or cannot tell any more, has what it had.
    """
    looks = {live: trio.Event() for live in found if live.task.journal}
    for live, told in looks.items():
        nursery.start_soon(_hold, runner, live, told)
    with trio.move_on_after(LOOKING):
        for told in looks.values():
            await told.wait()
    for live, told in looks.items():
        if not told.is_set():
            runner.line.hold(live.task, frozenset(live.task.targets))


async def _hold(runner: Runner, live: Live, told: trio.Event) -> None:
    keys = frozenset(live.task.targets)
    if has_target(runner, live):
        try:
            # Names may stand for other files by now, and devices have other numbers. What a look does not find
            # any more may be owed to as before: its disk comes back, under whatever name.
            keys |= await targets_of(runner, live)
        except Exception:
            logger.exception("what task %s works on cannot be told anew", live.task.id)
    # It may have ended meanwhile, and be undone or destroyed: that is another Live's doing.
    newest = runner.registry.get(live.task.id)
    owing = runner.registry.quota.owes(live.task) if newest is None else bool(newest.task.journal)
    if owing and not live.forgotten:
        runner.line.hold(live.task, keys)
    told.set()


def interrupted(found: Iterable[Live]) -> list[Live]:
    """Those that a crash fell into."""
    return [live for live in found if live.task.state not in (State.QUEUED, State.FAILED)]


async def settled(runner: Runner, interrupted: Sequence[Live]) -> None:
    """Wait until tasks found after a crash no longer touch anything, or cannot get on.

    Those that have targets hold them (``hold_targets``): an undo of theirs that hangs keeps nobody else waiting.
    """
    with trio.move_on_after(LOOKING):
        for live in interrupted:
            if has_target(runner, live):
                await _settled(runner, live)
    for live in interrupted:
        if not has_target(runner, live):
            await _settled(runner, live)


async def _settled(runner: Runner, live: Live) -> None:
    operation = runner.operations.get(live.task.operation)
    if operation is not None and operation.run is None:
        return
    while live.task.state in (State.RUNNING, State.UNDOING, State.COMMITTED) and not live.task.residue:
        await live.changed()
