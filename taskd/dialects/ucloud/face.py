"""The calls over HTTP, below ``/api/tasks``.

The two generations share paths; which one is meant is seen from the id: a UUID is the first's, a number the
second's. ``GET /api/tasks/{id}`` is what ``retrieve`` was called until 2021. The header Content-Type is not looked
at: the curl of the documentation sends one that is none.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from taskd import codec
from taskd.dialects import Asked, Face, Reply
from taskd.dialects.ucloud.calls import CALLS, answer
from taskd.dialects.ucloud.models import why
from taskd.dialects.ucloud.replies import NO_BODY, refuse
from taskd.errors import InvalidRequest
from taskd.model import JSON

# How the second generation writes an id; longer than any that there is, it is one of nothing.
NUMBER: Final = re.compile(r"[0-9]{1,40}")

_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")


def _value(asked: Asked, name: str) -> str | None:
    """The first of that name in the query."""
    return next((value for each, value in asked.query if each == name), None)


def _number(asked: Asked, name: str) -> int | None:
    said = _value(asked, name)
    if said is None:
        return None
    if not _INTEGER.fullmatch(said):
        raise InvalidRequest(f"{name} must be a number")
    return int(said)


async def _list(asked: Asked) -> Reply:
    asked.service.allow(asked.caller, "Tasks.list")
    payload = {name: _number(asked, name) for name in ("itemsPerPage", "page")}
    return await answer(asked.service, asked.caller, "task.list", payload)


async def _browse(asked: Asked) -> Reply:
    asked.service.allow(asked.caller, "Tasks.browse")
    payload = {"itemsPerPage": _number(asked, "itemsPerPage"), "next": _value(asked, "next")}
    return await answer(asked.service, asked.caller, "tasks.browse", payload)


async def _retrieve(asked: Asked) -> Reply:
    return await _found(asked, _value(asked, "id"))


async def _one(asked: Asked) -> Reply:
    return await _found(asked, asked.id)


async def _found(asked: Asked, id: str | None) -> Reply:
    if id is not None and NUMBER.fullmatch(id):
        return await answer(asked.service, asked.caller, "tasks.retrieve", {"id": int(id)})
    return await answer(asked.service, asked.caller, "task.view", {"id": id})


def _posted(name: Callable[[JSON], str]) -> Callable[[Asked], Awaitable[Reply]]:
    """What answers a request with a body, of which ``name`` tells whose call it is."""

    async def answered(asked: Asked) -> Reply:
        # The roles of a call are those of both generations; who may not call it is told nothing of the body.
        asked.service.allow(asked.caller, CALLS[name(None)].role)
        if not asked.body.strip():
            return Reply(400, why(NO_BODY))
        try:
            payload = codec.loads(asked.body)
        except ValueError:
            raise InvalidRequest("the body is no JSON") from None
        return await answer(asked.service, asked.caller, name(payload), payload)

    return answered


def _post_status(payload: JSON) -> str:
    match payload:
        case {"update": {"taskId": _}}:
            return "tasks.postStatus"
        case _:
            return "task.postStatus"


def _mark_as_complete(payload: JSON) -> str:
    match payload:
        case {"id": int()}:
            return "tasks.markAsComplete"
        case _:
            return "task.markAsComplete"


Route = Callable[[Asked], Awaitable[Reply]]

ROUTES: Final[Mapping[str, Mapping[str, Route]]] = {
    "/api/tasks": {
        "GET": _list,
        "PUT": _posted(lambda _: "task.create"),
        "POST": _posted(lambda _: "tasks.create"),
    },
    "/api/tasks/browse": {"GET": _browse},
    "/api/tasks/retrieve": {"GET": _retrieve},
    "/api/tasks/postStatus": {"POST": _posted(_post_status)},
    "/api/tasks/markAsComplete": {"POST": _posted(_mark_as_complete)},
    "/api/tasks/pauseOrCancel": {"POST": _posted(lambda _: "tasks.pauseOrCancel")},
    "/api/tasks/{id}": {"GET": _one},
}

FACE: Final = Face("ucloud", ROUTES, refuse)
