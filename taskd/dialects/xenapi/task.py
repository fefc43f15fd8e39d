"""XenAPI's class ``task``: every message that it has, on any task of the daemon.

Facts (xapi-project/xen-api, ocaml/idl/datamodel.ml and ocaml/xapi/xapi_task.ml): cancel and destroy succeed in
every state; a destroy waits for the end. Where xapi lets anybody with the right write anything at any time, the
law here is: only a task that was made with ``create`` (an external task) is reported on, and its first end stays.
Who says "failure" has failed, though a cancel was asked for: who obeys one says "cancelled", or fails with xapi's
code for that (ocaml/xapi/taskHelper.ml). On a task that taskd runs itself, ``set_status`` "cancelled" is a cancel
that is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Final
from xml.etree.ElementTree import ParseError

import attrs
import trio
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from taskd.dialects.xenapi import where
from taskd.dialects.xenapi.message import VOID, Message, Visit, id_of, number, pairs, ref, text, texts
from taskd.dialects.xenapi.record import FIELDS, OTHERS, TOLD, encode, other_config, record, status
from taskd.errors import BadParams, DoesNotExist, XenApiError
from taskd.model import JSON, Draft, Failure, Task
from taskd.service import End, Query, Report
from taskd.states import State

STATUSES: Final = frozenset({"pending", "success", "failure", "cancelling", "cancelled"})

# How the keys of other_config begin that are nobody's to set.
RESERVED: Final = (TOLD, *OTHERS)

# Tasks per look into the store; in between, others get their turn.
PAGE: Final = 1000


def shown(visit: Visit, task: Task) -> dict[str, JSON]:
    """The task's record."""
    return record(task, visit.service.registry.parts(task.id))


async def every(visit: Visit, label: str | None = None) -> AsyncIterator[Task]:
    """All tasks that the caller may see, oldest first; each snapshot is the newest when it is given."""
    after: int | None = None
    while True:
        query = Query(label=label, newest_first=False, after=after, limit=PAGE)
        page = await visit.service.list(visit.caller, query)
        for task in page:
            yield task
            await trio.lowlevel.checkpoint()  # what is made of each may take a while, and others have their turn
        if len(page) < PAGE:
            return
        after = page[-1].seq


# Looking.


async def _get_record(visit: Visit, id: str) -> JSON:
    return shown(visit, await visit.service.get(visit.caller, id))


async def _get_field(visit: Visit, id: str, *, field: str) -> JSON:
    return shown(visit, await visit.service.get(visit.caller, id))[field]


async def _get_by_uuid(visit: Visit, uuid: str) -> JSON:
    try:
        return ref((await visit.service.get(visit.caller, uuid)).id)
    except DoesNotExist:
        raise XenApiError("UUID_INVALID", ("task", uuid)) from None


async def _get_by_name_label(visit: Visit, label: str) -> JSON:
    async with visit.turn:
        return [ref(task.id) async for task in every(visit, label)]


async def _get_all(visit: Visit) -> JSON:
    return [ref(id) for id in await visit.service.ids(visit.caller)]


async def _get_all_records(visit: Visit) -> JSON:
    async with visit.turn:
        return {ref(task.id): shown(visit, task) async for task in every(visit)}


async def _get_all_records_where(visit: Visit, expression: str) -> dict[str, JSON]:
    test = where.parse(expression, {*FIELDS, "_ref"})
    found: dict[str, JSON] = {}
    async with visit.turn:
        async for task in every(visit):
            each = shown(visit, task)
            if test(where.Texts({**each, "_ref": ref(task.id)})):
                found[ref(task.id)] = each
    return found


async def _get_all_where(visit: Visit, expression: str) -> JSON:
    return list(await _get_all_records_where(visit, expression))


# Making, asking, ending.


async def _create(visit: Visit, label: str, description: str) -> JSON:
    parent = await _parent(visit)
    task = await visit.service.start(
        visit.caller, "external", {}, label=label, description=description, parent=parent
    )
    return ref(task.id)


async def _parent(visit: Visit) -> str | None:
    """The task that the caller says it is in the middle of, if there is one that it may know of."""
    if not visit.subtask_of:
        return None
    try:
        return (await visit.service.get(visit.caller, id_of("subtask_of", visit.subtask_of))).id
    except (DoesNotExist, XenApiError):
        return None


async def _cancel(visit: Visit, id: str) -> JSON:
    await visit.service.cancel(visit.caller, id)
    return VOID


async def _destroy(visit: Visit, id: str) -> JSON:
    await visit.service.destroy_when_ended(visit.caller, id)
    return VOID


# Reporting.


async def _set_status(visit: Visit, id: str, value: str) -> JSON:
    if value not in STATUSES:
        raise XenApiError("INVALID_VALUE", ("status", value))
    service, caller = visit.service, visit.caller
    task = await service.get(caller, id)
    kind = service.operations.get(task.operation)
    external = kind is not None and kind.run is None
    match value:
        case _ if status(task) == value:
            pass
        case "cancelled" if external and not task.state.ended:
            await service.call_off(caller, id)
        case "cancelled" | "cancelling":
            await service.cancel(caller, id)
        case "success":
            await service.update(caller, id, end=lambda draft: End(State.COMPLETED, result=draft.result))
        case "failure":
            await service.update(caller, id, end=_failed)
        case "pending":
            raise XenApiError("OPERATION_NOT_ALLOWED", (f"task {id} has ended; its status does not change",))
    return VOID


def _failed(draft: Draft) -> End:
    code, *params = draft.error or ("TASK_FAILED", "its producer gave no reason")
    error = Failure(code, ", ".join(params) or code, tuple(params))
    return End(State.FAILED, error=error, anyhow=code != "TASK_CANCELLED")


async def _set_progress(visit: Visit, id: str, value: float) -> JSON:
    if not 0.0 <= value <= 1.0:
        raise XenApiError("INVALID_VALUE", ("progress", str(value)))
    await visit.service.update(visit.caller, id, progress=Report(fraction=value))
    return VOID


async def _set_result(visit: Visit, id: str, value: str) -> JSON:
    said = as_value(value)
    await visit.service.update(visit.caller, id, draft=lambda draft: attrs.evolve(draft, result=said))
    return VOID


def as_value(text: str) -> str | None:
    """What a producer said as a result, as a ``<value>``; one that is none becomes one, or its readers choke."""
    if not text:
        return None
    try:
        good = fromstring(text, forbid_dtd=True).tag == "value"
    except (ParseError, DefusedXmlException, ValueError):
        good = False
    return text if good else encode(text)


async def _set_error_info(visit: Visit, id: str, value: tuple[str, ...]) -> JSON:
    def put(draft: Draft) -> Draft:
        return attrs.evolve(draft, error=value)

    await visit.service.update(visit.caller, id, draft=put)
    return VOID


async def _set_other_config(visit: Visit, id: str, value: dict[str, str]) -> JSON:
    # Whoever reads, changes and writes it back sends what we have told as well.
    new = {key: each for key, each in value.items() if not key.startswith(RESERVED)}

    def put(notes: Mapping[str, str]) -> Mapping[str, str]:
        return {key: each for key, each in notes.items() if key.startswith(OTHERS)} | new

    return await _annotate(visit, id, put)


async def _add_to_other_config(visit: Visit, id: str, key: str, value: str) -> JSON:
    task = await visit.service.get(visit.caller, id)
    if key.startswith(RESERVED) and key not in other_config(task):
        fault = f"keys that start with {' or '.join(RESERVED)} are taskd's own"
        raise XenApiError("INVALID_VALUE", ("other_config", fault))

    def add(notes: Mapping[str, str]) -> Mapping[str, str]:
        if key in notes or key.startswith(TOLD):
            raise XenApiError("MAP_DUPLICATE_KEY", ("task", "other_config", ref(id), key))
        return {**notes, key: value}

    return await _annotate(visit, id, add)


async def _remove_from_other_config(visit: Visit, id: str, key: str) -> JSON:
    if key not in (await visit.service.get(visit.caller, id)).annotations or key.startswith(OTHERS):
        return VOID
    return await _annotate(visit, id, lambda notes: {name: notes[name] for name in notes if name != key})


async def _annotate(visit: Visit, id: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> JSON:
    try:
        await visit.service.annotate(visit.caller, id, change)
    except BadParams as error:
        raise XenApiError("INVALID_VALUE", ("other_config", error.fault)) from None
    return VOID


_SELF: Final = ("self", id_of)
_CONFIG: Final = "other_config"

MESSAGES: Final = (
    Message("task.create", _create, (("label", text), ("description", text))),
    Message("task.destroy", _destroy, (_SELF,)),
    Message("task.cancel", _cancel, (("task", id_of),)),
    Message("task.set_status", _set_status, (_SELF, ("status", text))),
    Message("task.set_progress", _set_progress, (_SELF, ("progress", number))),
    Message("task.set_result", _set_result, (_SELF, ("result", text))),
    Message("task.set_error_info", _set_error_info, (_SELF, ("error_info", texts))),
    Message("task.set_other_config", _set_other_config, (_SELF, (_CONFIG, pairs))),
    Message("task.add_to_other_config", _add_to_other_config, (_SELF, ("key", text), ("value", text))),
    Message("task.remove_from_other_config", _remove_from_other_config, (_SELF, ("key", text))),
    Message("task.get_record", _get_record, (_SELF,)),
    Message("task.get_by_uuid", _get_by_uuid, (("uuid", text),)),
    Message("task.get_by_name_label", _get_by_name_label, (("label", text),)),
    Message("task.get_all", _get_all),
    Message("task.get_all_records", _get_all_records),
    Message("task.get_all_where", _get_all_where, (("expr", text),)),
    Message("task.get_all_records_where", _get_all_records_where, (("expr", text),)),
    *(Message(f"task.get_{field}", partial(_get_field, field=field), (_SELF,)) for field in FIELDS),
)
