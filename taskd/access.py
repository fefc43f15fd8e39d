"""Who may do what: roles, one table of rules, and the gate that asks (law L11).

A caller is known by the kernel's credentials of its connection, or by a token that a proxy passes on
(``service.tokens``). The settings say which users are admins, which are services, and which only are proxies. A
task is a caller's own when the caller owns it or produces it. Whoever may not see a task gets the answer for one
that does not exist.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Collection
from typing import Final, TypeVar

import attrs

from taskd.errors import DoesNotExist, PermissionDenied, Unauthenticated
from taskd.model import Caller, Task

T = TypeVar("T")

ADMIN: Final = "admin"
SERVICE: Final = "service"
USER: Final = "user"

EVERYONE: Final = frozenset({ADMIN, SERVICE, USER})
ADMINS: Final = frozenset({ADMIN})
NOBODY: Final[frozenset[str]] = frozenset()

# What a proxy is told that calls without a token.
NO_TOKEN: Final = "this connection is a proxy's: it must present a token, as Authorization: Bearer TOKEN"


@attrs.frozen
class Rule:
    """The roles that may use a verb on a task that they own, that they produce, and on anybody else's.

    Who owns a task and produces it may do what either may.
    """

    owner: frozenset[str] = EVERYONE
    processor: frozenset[str] = EVERYONE
    foreign: frozenset[str] = ADMINS


# How a task goes and ends is said by who does the work, not by whom it is done for.
_REPORT: Final = Rule(owner=ADMINS)

RULES: Final[dict[str, Rule]] = {
    "get": Rule(),
    "wait": Rule(),
    "log": Rule(),
    "cancel": Rule(),
    "destroy": Rule(),
    "destroy with force": Rule(owner=ADMINS, processor=ADMINS),
    "recover": Rule(),
    "annotate": Rule(),
    "update": _REPORT,
    "complete": _REPORT,
    "fail": _REPORT,
    # Whose tasks are in a list: those of the owner that calls, or everybody's.
    "list": Rule(processor=ADMINS),
    # Whose the new task is to be; its producer is whoever starts it.
    "start": Rule(processor=NOBODY, foreign=frozenset({ADMIN, SERVICE})),
}

_USERS: Final = frozenset({USER, ADMIN})
_SERVICES: Final = frozenset({SERVICE, ADMIN})

# The roles that may call a method at all, where not everyone may.
CALLS: Final[dict[str, frozenset[str]]] = {
    "Token.add": ADMINS,
    "Token.ls": ADMINS,
    "Token.rm": ADMINS,
    # UCloud's END_USER and PRIVILEGED (SDU-eScience/UCloud, backend/service-lib, Auth.kt); a service may see what
    # it produces.
    "Tasks.list": _USERS,
    "Tasks.view": EVERYONE,
    "Tasks.listen": _USERS,
    "Tasks.create": _SERVICES,
    "Tasks.postStatus": _SERVICES,
    "Tasks.markAsComplete": _SERVICES,
    # What only UCloud's second generation has.
    "Tasks.browse": _USERS,
    "Tasks.retrieve": EVERYONE,
    "Tasks.pauseOrCancel": _USERS,
}


def caller(
    uid: int,
    gid: int,
    pid: int,
    groups: frozenset[int] = frozenset(),
    *,
    admins: Collection[str] = (),
    services: Collection[str] = (),
    proxies: Collection[str] = (),
) -> Caller:
    """The caller with these credentials. Looks up users and groups: may block.

    The settings hold names of users, and of groups after a ``%``. A name that nobody has matches nobody. The
    daemon's own user is always an admin: it could read the store and signal the daemon anyway. Whoever is a
    proxy is nothing else, or what it forwards without a token would run as the proxy itself.

    Raises:
        OSError: there is no file descriptor left to look them up with.
    """
    entry = _found(lambda: pwd.getpwuid(uid))
    user = str(uid) if entry is None else entry.pw_name

    def among(names: Collection[str]) -> bool:
        return any(_is(name, uid, groups | {gid}) for name in names)

    if among(proxies):
        return Caller(uid, gid, pid, user, NOBODY, groups, proxy=True)
    known = {ADMIN: uid == os.geteuid() or among(admins), SERVICE: among(services)}
    roles = frozenset(role for role, granted in known.items() if granted)
    return Caller(uid, gid, pid, user, roles or frozenset({USER}), groups)


def _is(name: str, uid: int, gids: Collection[int]) -> bool:
    """By number, which is what the kernel knows: two names may be of one user."""
    if name.startswith("%"):
        group = _found(lambda: grp.getgrnam(name[1:]))
        return group is not None and group.gr_gid in gids
    entry = _found(lambda: pwd.getpwnam(name))
    return entry is not None and entry.pw_uid == uid


def _found(look: Callable[[], T]) -> T | None:
    """An entry of the tables of users and groups; None where there is none.

    Raises:
        OSError: the table cannot be opened, because there is no file descriptor left.
    """
    for _ in range(2):
        try:
            return look()
        except KeyError:
            # Also what comes when the table could not be opened, if only for a moment: whoever would then be a
            # number, or no proxy, would be another than before.
            os.close(os.open("/", os.O_PATH | os.O_CLOEXEC))
    return None


def sees_all(caller: Caller) -> bool:
    """Lists show everybody's tasks to this caller."""
    return bool(caller.roles & RULES["list"].foreign)


def may_produce_for_others(caller: Caller) -> bool:
    """The caller may have made tasks that others own."""
    return not caller.roles.isdisjoint(RULES["start"].foreign)


def may(caller: Caller, verb: str, task: Task) -> bool:
    """The table lets the caller use ``verb`` on ``task``."""
    rule = RULES[verb]
    granted, own = NOBODY, False
    for user, roles in ((task.owner, rule.owner), (task.processor, rule.processor)):
        if user == caller.user:
            granted, own = granted | roles, True
    return bool(caller.roles & (granted if own else rule.foreign))


def check(caller: Caller, verb: str, task: Task | None, id: str) -> Task:
    """The gate of every verb on one task: ``task`` if the caller may use ``verb`` on it.

    Raises:
        DoesNotExist: there is no such task, or the caller may not know of it.
        PermissionDenied: the caller sees the task, but not for this verb.
    """
    if task is None or not may(caller, "get", task):
        raise DoesNotExist("task", id)
    if not may(caller, verb, task):
        raise PermissionDenied(f"{verb} task {id}")
    return task


def check_start(caller: Caller, owner: str, operation: str, roles: Collection[str]) -> None:
    """The gate of ``start``: the operation's ``roles``, and the right to start for another owner.

    Raises:
        PermissionDenied: one of the two is missing.
    """
    rule = RULES["start"]
    if not caller.roles & frozenset(roles):
        raise PermissionDenied(f"start {operation}")
    if not caller.roles & (rule.owner if owner == caller.user else rule.foreign):
        raise PermissionDenied(f"start a task for {owner}")


def check_call(caller: Caller, method: str) -> None:
    """The gate of every method, before its params are read.

    Raises:
        Unauthenticated: the caller is nobody: a proxy by itself.
        PermissionDenied: none of the caller's roles may call the method.
    """
    if not caller.roles:
        raise Unauthenticated(NO_TOKEN)
    if not caller.roles & (granted := CALLS.get(method, EVERYONE)):
        raise PermissionDenied(f"{method} is for {' and '.join(sorted(granted))}")
