"""Who may call what, and whose a task is: its owner's, for whom it is done, and its producer's, who does it.

To anybody else a task does not exist, be it an admin (SDU-eScience/UCloud, backend/task-service: the processor is
part of every WHERE). In V1's last years anybody could view any task, by mistake; that is not served.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from taskd.errors import DoesNotExist, NotExternal, PermissionDenied
from taskd.model import Caller, Task

_USERS: Final = frozenset({"user", "admin"})
_SERVICES: Final = frozenset({"service", "admin"})

# V1's Roles.END_USER and Roles.PRIVILEGED (backend/service-lib, Auth.kt); a service may see what it produces.
ROLES: Final[Mapping[str, frozenset[str]]] = {
    "Tasks.list": _USERS,
    "Tasks.view": _USERS | _SERVICES,
    "Tasks.listen": _USERS,
    "Tasks.create": _SERVICES,
    "Tasks.postStatus": _SERVICES,
    "Tasks.markAsComplete": _SERVICES,
    # What only the second generation has.
    "Tasks.browse": _USERS,
    "Tasks.retrieve": _USERS | _SERVICES,
    "Tasks.pauseOrCancel": _USERS,
}


def allow(caller: Caller, name: str) -> None:
    """Raises PermissionDenied where no role of the caller may call ``name``."""
    if not caller.roles & ROLES[name]:
        raise PermissionDenied(name)


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
