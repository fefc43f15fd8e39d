"""KooDrive's basic task operations over HTTP: list, detail, create (Huawei Cloud, api-koodrive, version 1 of
``/koodrive/ose/v1/task``).

The vendor's pages contradict themselves, and both sides are served. The list is called ``taskList`` in the table
and ``taskListDtos`` in the example: it is sent as both. ``code`` and ``nextCursor`` are strings in the table and
numbers in the example: the wire is ``table`` unless told otherwise, for a cursor may be larger than what a
double holds. ``msg`` is in the language of the header ``language``, Chinese for ``zh`` and English for all else.

``GET task/list``
    query ``taskType``, ``status``, ``pageSize``, ``pageCursor``; see ``walk``.
``GET task/{id}``
    by our decimal ``seq`` or by the UUID: the fields of a TaskInfo (see ``record``) beside ``code`` and ``msg``.
    ``list``, ``create`` and ``result`` are no ids, as they are paths of the vendor's own.
``POST task/create``
    an external task, which the caller owns and produces: it is new until the caller says otherwise with
    ``Task.update``, ``Task.complete`` or ``Task.fail``.

Every refusal is ``{code, msg}`` with a status of HTTP; see ``words``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import attrs

from taskd import codec
from taskd.dialects import Asked, Face, Reply
from taskd.dialects.koodrive import words
from taskd.dialects.koodrive.record import IMPORT, INIT_PARAMS, NAMES, TASK_TYPE, TRANSFER, info
from taskd.dialects.koodrive.walk import LARGEST, page, read
from taskd.errors import BadParams, DoesNotExist, InvalidRequest, ParseError, TaskdError
from taskd.model import JSON, Task
from taskd.operations.external import OPERATION as EXTERNAL

ROOT: Final = "/koodrive/ose/v1/task"

# The fields of create's body for each type, and whether they are mandatory (createTask.html).
FIELDS: Final[Mapping[int, Mapping[str, bool]]] = {
    TRANSFER: {"srcUserId": True, "dstUserId": True},
    IMPORT: {"resultId": False, "orgId": True, "orgUserId": True},
}


def face(wire: Literal["table", "example"] = "table") -> Face:
    """The dialect, with codes and cursors as strings (``table``) or numbers (``example``)."""
    koodrive = KooDrive(numbers=wire == "example")
    return Face(
        name="koodrive",
        routes={
            f"{ROOT}/list": {"GET": koodrive.list},
            f"{ROOT}/create": {"POST": koodrive.create},
            f"{ROOT}/{{id}}": {"GET": koodrive.detail},
        },
        refuse=koodrive.refuse,
    )


@attrs.frozen
class KooDrive:
    """What answers; every answer raises what the verb of the service does."""

    numbers: bool = False

    async def list(self, asked: Asked) -> Reply:
        """A page of tasks. Raises BadParams with the name of the parameter."""
        tasks, cursor = await page(asked.service, asked.caller, read(asked.query))
        found: dict[str, JSON] = {"taskList": tasks, "taskListDtos": tasks}
        if cursor is not None:
            found["nextCursor"] = self._number(str(cursor))
        return self._done(found, asked.language)

    async def detail(self, asked: Asked) -> Reply:
        """One task. Raises DoesNotExist, the same for what is not there and what is somebody else's."""
        return self._done(info(await _find(asked)), asked.language)

    async def create(self, asked: Asked) -> Reply:
        """A new external task, durable when this is answered.

        Raises:
            WireError: the body is no object of JSON; nothing was made.
            BadParams: with the name of the field; nothing was made.
            TooManyTasks, PermissionDenied, StoreUnavailable: nothing was made.
        """
        type, fields = _read(asked.body)
        notes = {TASK_TYPE: str(type), INIT_PARAMS: codec.dumps(fields).decode()}
        task = await asked.service.start(asked.caller, EXTERNAL.name, {}, label=NAMES[type], annotations=notes)
        return self._done({"taskId": str(task.seq)}, asked.language)

    def refuse(self, error: TaskdError, language: str) -> Reply:
        """What is answered instead, when ``error`` was raised."""
        code = words.code_of(error)
        return Reply(code.status, {"code": self._number(code.text), "msg": words.sentence(error, language)})

    def _done(self, fields: Mapping[str, JSON], language: str) -> Reply:
        code = words.SUCCESS
        return Reply(code.status, {**fields, "code": self._number(code.text), "msg": code.said(language)})

    def _number(self, text: str) -> JSON:
        # The gateway's codes are no numbers on either wire.
        return int(text) if self.numbers and text.isdecimal() else text


async def _find(asked: Asked) -> Task:
    if not (asked.id.isascii() and asked.id.isdecimal()):
        return await asked.service.get(asked.caller, asked.id)
    if len(asked.id) > len(str(LARGEST)):
        raise DoesNotExist("task", asked.id)
    return await asked.service.numbered(asked.caller, int(asked.id))


def _read(body: bytes) -> tuple[int, Mapping[str, str]]:
    """The type and the fields of a body of create; a field that is null is absent, unknown ones are passed over.

    Raises:
        WireError: it is no object of JSON.
        BadParams: the path is the name of the field.
    """
    if not body.strip():
        raise InvalidRequest(words.EMPTY)
    try:
        said = codec.loads(body)
    except ValueError as error:
        raise ParseError(str(error)) from None
    if not isinstance(said, dict):
        raise InvalidRequest(words.OBJECT)
    type = said.get("taskType")
    if type is None:
        type = TRANSFER
    # True and 1.0 equal 1, and are no integers.
    if not (isinstance(type, int) and not isinstance(type, bool) and type in FIELDS):
        raise BadParams("taskType", words.TYPE)
    fields = {name: said[name] for name in FIELDS[type] if said.get(name) is not None}
    for name, mandatory in FIELDS[type].items():
        if mandatory and name not in fields:
            raise BadParams(name, words.REQUIRED)
    for name, value in fields.items():
        if not (isinstance(value, str) and 1 <= len(value) <= 255):
            raise BadParams(name, words.TEXT)
    return type, fields
