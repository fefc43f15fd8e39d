"""XenAPI's ``session``, ``pool`` and ``host``: the few messages that clients send beside ``task`` and ``event``.

Which those are was seen on the wire from PyPI's xenapi and npm's xen-api. All logins are alike: the connection has
told already who calls, as on xapi's own Unix socket (xapi-project/xen-api, ocaml/xapi/xapi_session.ml), so names
and passwords are taken and not looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from taskd.dialects.xenapi.message import VOID, Message, Visit, text
from taskd.dialects.xenapi.pool import ref_of
from taskd.errors import XenApiError
from taskd.model import JSON


async def _login(visit: Visit, *_: str) -> JSON:
    return visit.sessions.open(visit.caller).ref


async def _logout(visit: Visit) -> JSON:
    visit.sessions.end(visit.known)
    return VOID


async def _this_host(visit: Visit, session: str) -> JSON:
    visit.sessions.find(visit.caller, session)
    return ref_of("host", visit.desk.host)


def _one(visit: Visit, kind: str, ref: str) -> Mapping[str, JSON]:
    """The record of the one object of that class.

    Raises:
        XenApiError: HANDLE_INVALID: the ref is another's.
    """
    try:
        return visit.desk.records(visit.caller, kind)[ref]
    except KeyError:
        raise XenApiError("HANDLE_INVALID", (kind, ref)) from None


async def _get_all(visit: Visit, *, kind: str) -> JSON:
    return list(visit.desk.records(visit.caller, kind))


async def _get_all_records(visit: Visit, *, kind: str) -> JSON:
    return visit.desk.records(visit.caller, kind)


async def _get_record(visit: Visit, ref: str, *, kind: str) -> JSON:
    return _one(visit, kind, ref)


async def _get_field(visit: Visit, ref: str, *, kind: str, field: str) -> JSON:
    return _one(visit, kind, ref)[field]


async def _get_by_uuid(visit: Visit, uuid: str, *, kind: str) -> JSON:
    for ref, record in visit.desk.records(visit.caller, kind).items():
        if record["uuid"] == uuid:
            return ref
    raise XenApiError("UUID_INVALID", (kind, uuid))


async def _get_by_name_label(visit: Visit, label: str, *, kind: str) -> JSON:
    records = visit.desk.records(visit.caller, kind)
    return [ref for ref, record in records.items() if record["name_label"] == label]


async def _add_note(visit: Visit, ref: str, key: str, value: str) -> JSON:
    _one(visit, "pool", ref)
    notes = visit.desk.slip(visit.caller).notes
    if key in notes:
        raise XenApiError("MAP_DUPLICATE_KEY", ("pool", "other_config", ref, key))
    visit.desk.write(visit.caller, {**notes, key: value})
    return VOID


async def _remove_note(visit: Visit, ref: str, key: str) -> JSON:
    _one(visit, "pool", ref)
    notes = visit.desk.slip(visit.caller).notes
    if key in notes:
        visit.desk.write(visit.caller, {name: notes[name] for name in notes if name != key})
    return VOID


_POOL: Final = (
    "uuid", "name_label", "name_description", "allowed_operations", "current_operations", "master", "other_config",
)  # fmt: skip

_HOST: Final = (
    "uuid", "name_label", "name_description", "allowed_operations", "current_operations", "hostname", "address",
    "enabled", "other_config", "software_version", "API_version_major", "API_version_minor", "API_version_vendor",
    "resident_VMs",
)  # fmt: skip

_SELF: Final = ("self", text)


def _objects(kind: str, fields: tuple[str, ...]) -> list[Message]:
    """The messages that XenAPI has for any class whose objects can be looked at."""

    def row(name: str, call: Callable[..., Awaitable[JSON]], *params: str) -> Message:
        return Message(f"{kind}.{name}", partial(call, kind=kind), tuple((param, text) for param in params))

    return [
        row("get_all", _get_all),
        row("get_all_records", _get_all_records),
        row("get_record", _get_record, "self"),
        row("get_by_uuid", _get_by_uuid, "uuid"),
        row("get_by_name_label", _get_by_name_label, "label"),
        *(row(f"get_{field}", partial(_get_field, field=field), "self") for field in fields),
    ]


_NAME: Final = (("uname", text), ("pwd", text))

MESSAGES: Final = (
    Message(
        "session.login_with_password",
        _login,
        (*_NAME, ("version", text), ("originator", text)),
        optional=2,
        session=False,
    ),
    Message("session.slave_local_login_with_password", _login, _NAME, session=False),
    Message("session.slave_login", _login, (("host", text), ("psecret", text)), session=False),
    Message("session.slave_local_login", _login, (("psecret", text),), session=False),
    Message("session.logout", _logout),
    Message("session.local_logout", _logout),
    Message("session.get_this_host", _this_host, (_SELF,)),
    *_objects("pool", _POOL),
    Message("pool.add_to_other_config", _add_note, (_SELF, ("key", text), ("value", text))),
    Message("pool.remove_from_other_config", _remove_note, (_SELF, ("key", text))),
    *_objects("host", _HOST),
)
