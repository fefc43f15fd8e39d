"""Whose a task is: its owner's, for whom it is done, and its producer's, who does it.

To anybody else a task does not exist, be it an admin (SDU-eScience/UCloud, backend/task-service: the processor is
part of every WHERE). In V1's last years anybody could view any task, by mistake; that is not served.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from taskd.errors import DoesNotExist, NotExternal, PermissionDenied
from taskd.model import Caller, Task


def owned(caller: Caller, task: Task) -> Task:
    """``task``, for its owner. Raises DoesNotExist for others."""
    if caller.user != task.owner:
        raise DoesNotExist("task", task.id)
    return task


def related(caller: Caller, task: Task) -> Task:
    """``task``, for its owner and its producer. Raises DoesNotExist for others."""
    if caller.user not in (task.owner, task.processor):
        raise DoesNotExist("task", task.id)
    return task


def produced(caller: Caller, task: Task) -> Task:
    """``task``, for its producer. Raises DoesNotExist for others."""
    if caller.user != task.processor:
        raise DoesNotExist("task", task.id)
    return task


@contextmanager
def hidden(task: Task) -> Iterator[None]:
    """Around what may be refused on this one task: it then does not exist, as one of which nobody is told."""
    try:
        yield
    except (PermissionDenied, NotExternal):
        raise DoesNotExist("task", task.id) from None
