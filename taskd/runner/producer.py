"""External tasks: the work is done elsewhere, and its producer says how it ends.

There is nothing to undo here, so a task goes from running to its end in one durable write. A cancel is shown to
the producer; if it answers that it failed, the task is cancelled, if it says that it completed, it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from taskd.errors import DeadlineExceeded, ProducerLost, TaskdError
from taskd.model import JSON, Failure, now
from taskd.registry import Live
from taskd.runner.handle import completed, describe
from taskd.runner.operation import Operation
from taskd.states import Event, State, after

if TYPE_CHECKING:
    from taskd.runner import Runner


@attrs.frozen
class End:
    """How a producer says that its task has ended: COMPLETED with a result, FAILED with an error, or CANCELLED.

    FAILED after a cancel is its obedience, and the task is cancelled, but where it says that it failed ``anyhow``;
    CANCELLED says that it has stopped, asked or not, and left nothing.
    """

    state: State
    result: JSON = None
    error: Failure | None = None
    anyhow: bool = False


def begun() -> dict[str, Any]:
    """How a task is made whose producer is at work already."""
    return {"state": after(State.QUEUED, Event.STARTED), "attempt": 1, "started_at": now()}


async def report(
    runner: Runner, live: Live, changes: Mapping[str, Any], *, log: Iterable[str] = (), end: End | None = None
) -> None:
    """What the producer says, ``changes`` and its ``end`` together, in one durable change. The lock is held, and
    the task has not ended.

    Raises:
        StoreUnavailable: nothing has changed.
    """
    live.heard_at = trio.current_time()
    match end:
        case None:
            await runner.write(live, log=log, **changes)
        case End(State.COMPLETED):
            done = completed(changes.get("progress", live.progress))
            said = {**changes, "result": end.result, "progress": done}
            await runner.write(live, Event.COMMITTED, Event.FINISHED, log=log, **said)
        case End(State.CANCELLED):
            said = {**changes, "cancel_requested": True, "error": None}
            await runner.write(live, Event.STOPPED, Event.CANCELLED, log=log, **said)
        case _:
            event = Event.CANCELLED if live.cancel_asked and not end.anyhow else Event.FAILED
            await runner.write(live, Event.STOPPED, event, log=log, **{**changes, "error": end.error})
    live.heard_at = trio.current_time()  # however long the store took


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
