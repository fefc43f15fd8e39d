"""The table of the operations that this daemon can run; what an operation is stands in ``taskd.runner``.

An operation is one file: its params (a frozen attrs class), the coroutine that does the work, and the verbs
that undo and finish it. A package brings its own through the entry point group ``taskd.operations``: the
entry point's object is an ``Operation``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points

from taskd.errors import BadParams, ConfigError
from taskd.runner.operation import Handle, Operation, Verb
from taskd.runner.rights import in_thread

__all__ = ["GROUP", "Handle", "Operation", "Operations", "Verb", "find", "in_thread", "load"]

GROUP = "taskd.operations"

Operations = Mapping[str, Operation]


def find(operations: Operations, name: str) -> Operation:
    """The operation of that name.

    Raises:
        BadParams: there is none; says which there are.
    """
    try:
        return operations[name]
    except KeyError:
        known = ", ".join(sorted(operations))
        raise BadParams("params.operation", f"there is no operation {name!r}; there are: {known}") from None


def load(extra: Iterable[Operation] = ()) -> Operations:
    """The operations in the box, ``extra``, and those of installed packages.

    Raises:
        ConfigError: an entry point is broken or takes a name that is taken.
    """
    from taskd.operations import command, copy, external

    table = {each.name: each for each in (copy.OPERATION, command.OPERATION, external.OPERATION, *extra)}
    for point in entry_points(group=GROUP):
        where = f"entry point {point.name} of {point.dist.name if point.dist else 'a package'}"
        try:
            operation = point.load()
        except Exception as error:
            raise ConfigError(where, f"cannot be loaded: {error}") from error
        if not isinstance(operation, Operation):
            raise ConfigError(where, f"is no Operation but {type(operation).__name__}")
        if operation.name in table:
            raise ConfigError(where, f"the name {operation.name!r} is taken")
        table[operation.name] = operation
    return table
