"""Who may do what: roles, one table of rules, and the gate that asks (law L11).

A caller is known by the kernel's credentials of the connection; the config says which users are admins. A
task is a caller's own when the caller owns it or produces it. Whoever may not see a task gets the answer for
one that does not exist.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection
from typing import Final

import attrs

from taskd.errors import DoesNotExist, PermissionDenied
from taskd.model import Caller, Task

ADMIN: Final = "admin"
SERVICE: Final = "service"
USER: Final = "user"

EVERYONE: Final = frozenset({ADMIN, SERVICE, USER})
ADMINS: Final = frozenset({ADMIN})


@attrs.frozen
class Rule:
    """The roles that may use a verb on their own tasks, and those that may on anybody's."""

    own: frozenset[str] = EVERYONE
    foreign: frozenset[str] = ADMINS


RULES: Final[dict[str, Rule]] = {
    "get": Rule(),
    "wait": Rule(),
    "log": Rule(),
    "cancel": Rule(),
    "destroy": Rule(),
    "destroy with force": Rule(own=ADMINS),
    "recover": Rule(),
    "update": Rule(),
    "annotate": Rule(),
    "complete": Rule(),
    "fail": Rule(),
    "list": Rule(),
    # foreign: start a task that somebody else owns.
    "start": Rule(foreign=frozenset({ADMIN, SERVICE})),
}


def caller(uid: int, gid: int, pid: int, admins: Collection[str]) -> Caller:
    """The caller with these credentials; ``admins`` are user names. Looks the user up: may block.

    The daemon's own user is always an admin: it could read the store and signal the daemon anyway.

    Raises:
        OSError: there is no file descriptor left to look it up with.
    """
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        # Also what comes when the table of users could not be opened: whoever would then be a number would be
        # another user than before.
        os.close(os.open("/", os.O_PATH | os.O_CLOEXEC))
        user = str(uid)
    admin = uid == os.geteuid() or user in admins
    return Caller(uid, gid, pid, user, frozenset({ADMIN if admin else USER}))


def sees_all(caller: Caller) -> bool:
    """Lists show everybody's tasks to this caller."""
    return bool(caller.roles & RULES["list"].foreign)


def owns(caller: Caller, task: Task) -> bool:
    return caller.user in (task.owner, task.processor)


def check(caller: Caller, verb: str, task: Task | None, id: str) -> Task:
    """The gate of every verb on one task: ``task`` if the caller may use ``verb`` on it.

    Raises:
        DoesNotExist: there is no such task, or the caller may not know of it.
        PermissionDenied: the caller sees the task, but not for this verb.
    """
    rule = RULES[verb]
    if task is None or not (owns(caller, task) or caller.roles & RULES["get"].foreign):
        raise DoesNotExist("task", id)
    if not caller.roles & (rule.own if owns(caller, task) else rule.foreign):
        raise PermissionDenied(f"{verb} task {id}")
    return task


def check_start(caller: Caller, owner: str, operation: str, roles: Collection[str]) -> None:
    """The gate of ``start``: the operation's ``roles``, and the right to start for another owner.

    Raises:
        PermissionDenied: one of the two is missing.
    """
    if not caller.roles & frozenset(roles):
        raise PermissionDenied(f"start {operation}")
    if owner != caller.user and not caller.roles & RULES["start"].foreign:
        raise PermissionDenied(f"start a task for {owner}")
