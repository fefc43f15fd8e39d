"""One step of a journal, done; and what is owed when it could not be.

The order of the steps, and what is durable when, is the runner's (``taskd.runner``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio

from taskd.model import Residue, Undo
from taskd.registry import Live
from taskd.runner.handle import contained, describe
from taskd.runner.operation import Operation
from taskd.runner.rights import acting

logger = logging.getLogger("taskd.runner")

# Seconds before the second, third … try of a step.
PAUSES: Final = (0.1, 0.2, 0.4, 0.8)


async def do(live: Live, step: Undo, operation: Operation | None) -> str | None:
    """One undo or finish step, with the task's rights, tried again with growing pauses; None, or why it could not
    be done.

    A cancel ends it in the middle; the step is idempotent and will be done again.
    """
    verb = operation.verbs.get(step.verb) if operation is not None else None
    if verb is None:
        return f"no installed operation knows the verb {step.verb!r} of {live.task.operation!r}"
    for pause in (*PAUSES, None):
        try:
            with contained(live.task.about), acting(live.task.rights):
                await verb(**step.args)
        except Exception as error:
            reason = describe(error, live).message
            logger.warning("%s failed: %s", step.verb, reason, extra=live.task.about)
            if pause is None:
                return reason
            await trio.sleep(pause)
            if live.forgotten:  # whoever destroyed it may have put something else there by now
                return reason
        else:
            return None
    raise AssertionError("unreachable")


def residue_of(journal: Sequence[Undo], reason: str) -> tuple[Residue, ...]:
    """What is owed when the last step of ``journal`` could not be undone: it, and all that waits for it."""
    first, *waiting = reversed(journal)
    return (
        Residue(first.verb, first.args, reason),
        *(Residue(step.verb, step.args, "waits for the step before") for step in waiting),
    )
