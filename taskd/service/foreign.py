"""What an operation's own code, perhaps a plugin's, is asked before a task is made of it."""

from __future__ import annotations

from taskd.errors import BadParams
from taskd.model import Rights
from taskd.runner import Operation, contained
from taskd.runner.rights import acting, in_thread


async def check(kind: Operation, params: object, rights: Rights | None) -> None:
    """Raises what the operation's own check raises, with those rights; a path is one of the call's params."""
    if kind.check is None:
        return
    try:
        with contained({}), acting(rights):
            await in_thread(kind.check, params)
    except BadParams as error:
        raise BadParams("params." + error.path, error.fault) from None


def label_of(kind: Operation, params: object) -> str:
    """The label of a task that was given none."""
    if kind.label is None:
        return kind.name
    with contained({}):
        return kind.label(params)
