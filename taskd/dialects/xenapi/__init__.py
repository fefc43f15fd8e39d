"""XenAPI: its classes ``task`` and ``event``, and the least of ``session``, ``pool``, ``host`` and ``system``.

``XenApi.call`` is the whole of it: find the message, count its params, look at the session, read the params, call
the verb, and say our errors in XenAPI's codes. The name of a class is taken in any case, and ``_`` for ``.``, as
xapi does for every message (xapi-project/xen-api, ocaml/idl/ocaml_backend/gen_server.ml). The connection tells
who calls: a password is never looked at, and a session is a word that the user's own connections may use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import attrs

from taskd.dialects import table
from taskd.dialects.xenapi import event, few, task
from taskd.dialects.xenapi.message import REF, Message, Visit
from taskd.dialects.xenapi.pool import Desk
from taskd.dialects.xenapi.sessions import Sessions
from taskd.errors import (
    AlreadyEnded,
    BadParams,
    DoesNotExist,
    HasResidue,
    NotExternal,
    PermissionDenied,
    TaskdError,
    TaskInProgress,
    TooLate,
    TooManyTasks,
    Unauthenticated,
    XenApiError,
)
from taskd.model import JSON, Caller
from taskd.service import Service

__all__ = ["CLASSES", "XenApi"]

CLASSES: Final = frozenset({"session", "task", "event", "pool", "host", "system"})


async def _list_methods(visit: Visit, *, names: Sequence[str]) -> JSON:
    """Every message that there is; npm's xen-api fetches all records of each class that it finds in here."""
    return list(names)


def _messages() -> Mapping[str, Message]:
    rows = [*few.MESSAGES, *task.MESSAGES, *event.MESSAGES]
    names = [*sorted(row.name for row in rows), "system.listMethods"]
    rows.append(Message("system.listMethods", partial(_list_methods, names=names), session=False))
    return {row.name: row for row in rows}


MESSAGES: Final = _messages()


def _canonical(method: str) -> str | None:
    """``task.get_record`` for ``Task.get_record`` and ``task_get_record``; None for no class of ours."""
    for place, letter in enumerate(method):
        if letter in "._":
            kind = method[:place].lower()
            return f"{kind}.{method[place + 1 :]}" if kind in CLASSES else None
    return None


@attrs.define(eq=False)
class XenApi:
    """The dialect of one daemon, with the sessions that are open in it."""

    service: Service
    sessions: Sessions = attrs.field(factory=Sessions)
    _desk: Desk = attrs.field(init=False)
    _ours: frozenset[str] = attrs.field(factory=lambda: frozenset(table()))

    def __attrs_post_init__(self) -> None:
        self._desk = Desk(self.service)

    def answers(self, method: str, args: Sequence[JSON] = ()) -> bool:
        """The call is one of XenAPI's: of a message; or of no method of another dialect, and in one of its classes
        or in what looks like a session, for there are many more classes than ours.
        """
        name = _canonical(method)
        if name in MESSAGES or method in self._ours:
            return name in MESSAGES
        return name is not None or (bool(args) and isinstance(args[0], str) and args[0].startswith(REF))

    def spelled(self, method: str) -> str | None:
        """The one spelling of a message's name; None where there is no such message."""
        name = _canonical(method)
        return name if name in MESSAGES else None

    async def call(self, caller: Caller, method: str, args: Sequence[JSON], /, *, subtask_of: str = "") -> JSON:
        """The bare result of a message. ``subtask_of`` is the ref in the header of that name, if there was one.

        A cancel ends a call that waits and changes nothing; what a call has done by then stays done.

        Raises:
            XenApiError: all that is raised on purpose.
        """
        message = MESSAGES.get(_canonical(method) or "")
        if message is None:
            raise XenApiError("MESSAGE_METHOD_UNKNOWN", (method,))
        try:
            self.service.allow(caller, message.name)
        except TaskdError as error:
            raise _said(error, method) from error
        rest = args[1:] if message.session else args
        message.check_number(method, len(args) - int(message.session))
        session = None
        if message.session:
            if not isinstance(args[0], str):
                raise XenApiError("FIELD_TYPE_ERROR", ("session_id",))
            session = self.sessions.find(caller, args[0])
        visit = Visit(self.service, self.sessions, self._desk, caller, session, subtask_of)
        try:
            return await message.call(visit, *message.read(rest))
        except TaskdError as error:
            raise _said(error, method) from error


def _said(error: TaskdError, method: str) -> XenApiError:
    """One of our errors in XenAPI's words (xen-api, ocaml/idl/datamodel_errors.ml)."""
    match error:
        case XenApiError():
            return error
        case DoesNotExist():
            return XenApiError("HANDLE_INVALID", (error.kind, f"OpaqueRef:{error.id}"))
        case Unauthenticated():
            return XenApiError("SESSION_AUTHENTICATION_FAILED", (str(error),))
        case PermissionDenied():
            return XenApiError("RBAC_PERMISSION_DENIED", (method, str(error)))
        case TaskInProgress() | HasResidue() | NotExternal() | AlreadyEnded() | TooLate():
            return XenApiError("OPERATION_NOT_ALLOWED", (str(error),))
        case TooManyTasks():
            return XenApiError("TOO_MANY_PENDING_TASKS")
        case BadParams():
            return XenApiError("INVALID_VALUE", (error.path.removeprefix("params."), error.fault))
        case _:
            return XenApiError("INTERNAL_ERROR", (str(error),))
