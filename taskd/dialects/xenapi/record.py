"""A task as XenAPI's record of it: the one place that maps our states, times, results and errors onto its fields.

Facts (xapi-project/xen-api, ocaml/idl/datamodel.ml and ocaml/xapi/xapi_task.ml, taskHelper.ml): progress is 1
once a task has ended, however; ``finished`` is the epoch while it has not; ``type`` and ``backtrace`` are never
set for a task like ours; ``result`` is "" or a ``<value>``, which npm's xen-api parses as XML; ``error_info`` is
a code and its parameters, and never empty on failure. There is no ``cancelling``: xapi's own text says not to use
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import escape

from taskd.dialects.xenapi.message import NULL, ref
from taskd.dialects.xenapi.pool import ref_of
from taskd.model import JSON, DateTime, Task
from taskd.states import State

FIELDS: Final = (
    "uuid", "name_label", "name_description", "allowed_operations", "current_operations", "created", "finished",
    "status", "resident_on", "progress", "type", "result", "error_info", "other_config", "subtask_of", "subtasks",
    "backtrace",
)  # fmt: skip

# Keys of other_config that are ours to say and nobody's to set.
TOLD: Final = "debug_info:"

# Of the notes on a task, those that are other dialects' and not of this map.
OTHERS: Final = ("ucloud.", "koodrive.")

_ENDED: Final = {State.COMPLETED: "success", State.FAILED: "failure", State.CANCELLED: "cancelled"}

# What XML 1.0 has no way to say.
_UNSAYABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def record(task: Task, subtasks: Iterable[str] = ()) -> dict[str, JSON]:
    """The record of a task; ``subtasks`` are ids."""
    return {
        "uuid": task.id,
        "name_label": task.label,
        "name_description": task.description,
        "allowed_operations": _allowed(task),
        "current_operations": _current(task),
        "created": date_time(task.created_at),
        "finished": date_time(task.finished_at or 0.0),
        "status": status(task),
        "resident_on": ref_of("host", task.resident_on),
        "progress": 1.0 if task.state.ended else float(task.progress.fraction),
        "type": "<none/>",
        "result": _result(task),
        "error_info": _error_info(task),
        "other_config": other_config(task),
        "subtask_of": NULL if task.parent is None else ref(task.parent),
        "subtasks": sorted(map(ref, subtasks)),
        "backtrace": "()",
    }


def date_time(moment: float) -> DateTime:
    """``20260101T12:00:00Z``: no hyphens, whole seconds (xen-api, ocaml/libs/clock/date.ml)."""
    return DateTime(datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H:%M:%SZ"))


def status(task: Task) -> str:
    return _ENDED.get(task.state, "pending")


def _allowed(task: Task) -> list[JSON]:
    if task.state.ended:
        return [] if task.journal else ["destroy"]  # what left residue is recovered first
    return ["cancel"] if task.cancellable else []


def _current(task: Task) -> dict[str, JSON]:
    """What is asked of the task and not yet so; of a cancel its producer learns here."""
    if task.state.ended:
        return {}
    # The keys are those of xapi: its destroy says "task"; its cancel the calling task, which is none in its store.
    asked: dict[str, JSON] = {"task": "destroy"} if task.destroy_on_finish else {}
    if task.cancel_requested:
        asked[f"DummyRef:|{task.id}|task.cancel"] = "cancel"
    return asked


def other_config(task: Task) -> dict[str, str]:
    """The caller's notes, and what else there is to know of the task."""
    told = {"operation": task.operation, "state": task.state.value, "owner": task.owner}
    if task.debug_info:
        told["dbg"] = task.debug_info
    if task.status:
        told["status"] = task.status
    noted = {key: value for key, value in task.annotations.items() if not key.startswith(OTHERS)}
    return noted | {TOLD + key: value for key, value in told.items()}


def _error_info(task: Task) -> list[JSON]:
    match task.state:
        case State.COMPLETED:
            return []
        case State.CANCELLED:
            return ["TASK_CANCELLED", ref(task.id)]
        case State.FAILED if task.error is not None:
            error = task.error
            sentence = [error.message] if error.message not in ("", error.code) else []
            return [error.code or "INTERNAL_ERROR", *(error.data or sentence)]
        case State.FAILED:
            return ["INTERNAL_ERROR", "unknown"]
        case _:
            return list(task.draft.error)


def _result(task: Task) -> str:
    draft = task.draft.result if isinstance(task.draft.result, str) else ""
    if not task.state.ended:
        return draft
    if task.state is not State.COMPLETED or task.result is None:
        return ""
    return draft if task.result == draft else encode(task.result)


def encode(value: JSON) -> str:
    """A JSON value as XML-RPC's ``<value>``, the way xapi writes one: an integer is an untagged numeral, because
    XML-RPC's own has 32 bits only."""
    match value:
        case None:
            inner = "<nil/>"
        case bool():
            inner = f"<boolean>{int(value)}</boolean>"
        case float():
            inner = f"<double>{value!r}</double>"
        case list() | tuple():
            inner = f"<array><data>{''.join(map(encode, value))}</data></array>"
        case Mapping():
            members = (f"<member><name>{sayable(str(k))}</name>{encode(v)}</member>" for k, v in value.items())
            inner = f"<struct>{''.join(members)}</struct>"
        case _:
            inner = sayable(str(value))
    return f"<value>{inner}</value>"


def sayable(text: str) -> str:
    """``text`` as XML can say it; what it cannot say is U+FFFD."""
    return escape(_UNSAYABLE.sub("\ufffd", text))
