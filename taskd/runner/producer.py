"""External tasks: the work is done elsewhere, and its producer says how it ends.

There is nothing to undo here, so a task goes from running to its end in one durable write. A cancel is shown to
the producer; if it answers that it failed, the task is cancelled, if it says that it completed, it is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from taskd.errors import AlreadyEnded, DeadlineExceeded, ProducerLost, TaskdError
from taskd.model import JSON, Failure
from taskd.registry import Live
from taskd.runner.handle import completed, describe
from taskd.runner.operation import Operation
from taskd.states import Event

if TYPE_CHECKING:
    from taskd.runner import Runner


async def complete(runner: Runner, live: Live, result: JSON) -> None:
    """The producer says that it is done.

    Raises:
        AlreadyEnded: the first end stays.
        StoreUnavailable: nothing has changed.
    """
    async with live.lock:
        _refuse_ended(live)
        done = completed(live.progress)
        await runner.write(live, Event.COMMITTED, Event.FINISHED, result=result, progress=done)


async def fail(runner: Runner, live: Live, error: Failure) -> None:
    """The producer says that it failed, or that it obeyed the cancel. Raises as ``complete`` does."""
    async with live.lock:
        _refuse_ended(live)
        end = Event.CANCELLED if live.cancel_asked else Event.FAILED
        await runner.write(live, Event.STOPPED, end, error=error)


async def call_off(runner: Runner, live: Live) -> None:
    """The producer says that it has stopped, asked or not, and left nothing. Raises as ``complete`` does."""
    async with live.lock:
        _refuse_ended(live)
        await runner.write(live, Event.STOPPED, Event.CANCELLED, cancel_requested=True, error=None)


async def listen(runner: Runner, live: Live, operation: Operation) -> None:
    """End a running task when its producer falls silent or its time is up; returns when it has ended."""
    silence = getattr(runner.structure(live.task.params, operation.params), "heartbeat_s", None)
    live.heard_at = trio.current_time()
    deadline = runner.deadline(live)
    while not live.task.state.ended:
        lost = float("inf") if silence is None else live.heard_at + silence
        with trio.CancelScope(deadline=min(lost, deadline)):
            await live.changed()
        moment = trio.current_time()
        if moment >= deadline:
            await runner.decided(live, partial(_lose, runner, live, DeadlineExceeded(live.task.deadline_s or 0)))
        elif silence is not None and moment >= live.heard_at + silence:
            await runner.decided(live, partial(_lose, runner, live, ProducerLost(silence), silence))


async def _lose(runner: Runner, live: Live, error: TaskdError, silence: float | None = None) -> None:
    # While the store could not write, the producer may have been heard again.
    heard = silence is not None and trio.current_time() < live.heard_at + silence
    if not live.task.state.ended and not heard:
        await runner.write(live, Event.STOPPED, Event.FAILED, error=describe(error, live))


def _refuse_ended(live: Live) -> None:
    if live.task.state.ended:
        raise AlreadyEnded(live.task.id)
