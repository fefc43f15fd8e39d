"""What a message of XenAPI is: its name, its params with their types, and who calls it.

A message is called with the params after the session, each read by its type. The law: what is wrong with a param
is told by XenAPI's own code for it, with the field's name, before anything is done (xapi-project/xen-api,
ocaml/idl/datamodel_errors.ml).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import trio

from taskd.dialects.xenapi.pool import Desk
from taskd.dialects.xenapi.sessions import Session, Sessions
from taskd.errors import XenApiError
from taskd.model import JSON, Caller
from taskd.service import Service

# What a message without a result gives; SMAPIv3's is null (xen-api, doc/content/xen-api/wire-protocol.md).
VOID: Final = ""

REF: Final = "OpaqueRef:"
NULL: Final = "OpaqueRef:NULL"


@attrs.frozen(eq=False)
class Visit:
    """One call: of whom, in which session, as a part of which task (a ref, or nothing)."""

    service: Service
    sessions: Sessions
    desk: Desk
    caller: Caller
    session: Session | None
    subtask_of: str = ""

    @property
    def known(self) -> Session:
        """The session of a message that has one."""
        assert self.session is not None
        return self.session

    @property
    def turn(self) -> trio.Lock:
        """To be held where very many objects may be told of: one after the other, so that between the records of a
        user's two calls others have their turn.
        """
        return self.service.turns.of(self.caller, "event")


Read: TypeAlias = Callable[[str, JSON], Any]


@attrs.frozen
class Message:
    """A row of the table. ``params`` are names and types after the session; the last ``optional`` may be left out.

    ``call`` gives the bare result, or raises XenApiError or any other TaskdError.
    """

    name: str
    call: Callable[..., Awaitable[JSON]]
    params: tuple[tuple[str, Read], ...] = ()
    optional: int = 0
    session: bool = True

    def read(self, args: Sequence[JSON]) -> Sequence[Any]:
        """The params as the message takes them.

        Raises:
            XenApiError: one of them is of a wrong type.
        """
        return [read(name, arg) for (name, read), arg in zip(self.params, args, strict=False)]

    def check_number(self, method: str, received: int) -> None:
        """Count the params, the session not among them; ``method`` is the name as it was called.

        Raises:
            XenApiError: MESSAGE_PARAMETER_COUNT_MISMATCH, with xapi's counts, which are -1 where not even a
                session came (xen-api, ocaml/idl/ocaml_backend/gen_server.ml).
        """
        least = len(self.params) - self.optional
        if not least <= received <= len(self.params):
            counts = (method, str(least), str(received))
            raise XenApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", counts)


# The types of params.


def text(field: str, value: JSON) -> str:
    if not isinstance(value, str):
        raise XenApiError("FIELD_TYPE_ERROR", (field,))
    return str(value)


def number(field: str, value: JSON) -> float:
    """A finite number; as a numeral too, which is how XML-RPC's untagged values come."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise XenApiError("FIELD_TYPE_ERROR", (field,))
    try:
        read = float(value)
    except (ValueError, OverflowError):
        raise XenApiError("FIELD_TYPE_ERROR", (field,)) from None
    if not math.isfinite(read):
        raise XenApiError("INVALID_VALUE", (field, str(value)))
    return read


def texts(field: str, value: JSON) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise XenApiError("FIELD_TYPE_ERROR", (field,))
    return tuple(text(field, each) for each in value)


def pairs(field: str, value: JSON) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise XenApiError("FIELD_TYPE_ERROR", (field,))
    return {text(field, key): text(field, each) for key, each in value.items()}


# Refs: of a task, ``OpaqueRef:`` and its id.


def ref(id: str) -> str:
    return REF + id


def id_of(field: str, value: JSON) -> str:
    """The id of the task that a ref names, whether there is one or not.

    Raises:
        XenApiError: HANDLE_INVALID, as for a task that does not exist, where it is no ref at all.
    """
    said = text(field, value)
    if not said.startswith(REF):
        raise XenApiError("HANDLE_INVALID", ("task", said))
    return said.removeprefix(REF)
