"""An operation that takes one durable step, and does nothing (``steps``)."""

from __future__ import annotations

from typing import Final

import attrs

from taskd.model import JSON
from taskd.operations import Handle, Operation


@attrs.frozen
class StepParams:
    """Params of ``step``: none."""


async def run(params: StepParams, handle: Handle) -> JSON:
    await handle.journal("nothing")
    return "done"


async def nothing() -> None:
    """Undo: there is nothing to undo."""


OPERATION: Final = Operation("step", "Take one durable step", StepParams, run, verbs={"nothing": nothing})
