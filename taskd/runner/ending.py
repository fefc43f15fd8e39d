"""A task has ended: it is let go of, and destroyed where that was to wait for its end."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from taskd.registry import Live

if TYPE_CHECKING:
    from taskd.runner import Runner

logger = logging.getLogger("taskd.runner")


async def bury(runner: Runner, live: Live, nursery: trio.Nursery) -> None:
    """Let go of it, and destroy it where that was to be; on cancel ``nursery`` goes on with that."""
    runner.registry.remove(live)
    task, said = live.task, live.task.error
    logger.info("%s %s%s", task.operation, task.state, f" {said.code}" if said else "", extra=task.about)
    if live.forgotten or not task.journal:  # what it still owes, it holds on to
        runner.line.let_go(task.id)
    if task.destroy_on_finish and not task.journal:
        destroyed = trio.Event()
        with suppress(RuntimeError):  # the nursery has ended, with the daemon: the next start does it
            nursery.start_soon(_destroy, runner, live, destroyed, name=f"task {task.id}")
            await destroyed.wait()


async def _destroy(runner: Runner, live: Live, destroyed: trio.Event) -> None:
    async def destroy() -> None:
        with trio.CancelScope(shield=True):
            await runner.store.delete(live.task.id)
            runner.registry.forget([live.task])

    try:
        await runner.decided(live, destroy)
    except Exception:
        # A fault of ours. The next start tries it again.
        logger.exception("could not be destroyed", extra=live.task.about)
    destroyed.set()
