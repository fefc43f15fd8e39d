"""What a task works on, as its operation says: keys for ``claims``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskd.registry import Live
from taskd.runner.rights import acting, in_thread

if TYPE_CHECKING:
    from taskd.runner import Runner


def has_target(runner: Runner, live: Live) -> bool:
    operation = runner.operations.get(live.task.operation)
    return operation is not None and operation.targets is not None


async def targets_of(runner: Runner, live: Live) -> frozenset[str]:
    """The keys, looked for with the task's rights. On cancel nobody waits for a disk that does not answer."""
    operation = runner.operations.get(live.task.operation)
    if operation is None or operation.targets is None:
        return frozenset()
    params = runner.structure(live.task.params, operation.params)
    with acting(live.task.rights):
        return await in_thread(operation.targets, params, abandon_on_cancel=True)
