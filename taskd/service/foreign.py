"""What an operation's own code, perhaps a plugin's, is asked before a task is made of it."""

from __future__ import annotations

import trio

from taskd.errors import BadParams
from taskd.runner import Operation, contained


async def check(kind: Operation, params: object) -> None:
    """Raises what the operation's own check raises; a path is one of the call's params."""
    if kind.check is None:
        return
    try:
        with contained({}):
            await trio.to_thread.run_sync(kind.check, params)
    except BadParams as error:
        raise BadParams("params." + error.path, error.fault) from None


def label_of(kind: Operation, params: object) -> str:
    """The label of a task that was given none."""
    with contained({}):
        return kind.label(params) if kind.label is not None else kind.name
