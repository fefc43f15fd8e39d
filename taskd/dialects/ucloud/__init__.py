"""UCloud's tasks: how services tell users what goes on, as the documentation of UCloud has it, and its successor.

``FACE`` is HTTP, below ``/api/tasks``. On a WebSocket there, ``FrameCall.parse`` reads a frame; ``call`` answers
one with a reply, and those named in ``STREAMS`` give messages. ``METHODS`` are the same calls as JSON-RPC.

A producer makes ``external`` tasks for users and posts what is new; the user who owns one lists, views and
listens. A task of any other operation, and of any other dialect, is there too: a copy of the user's own has a
title, a progress and an end as everything else, only that nobody can post to it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

from taskd.dialects import Channel, Method, Stream
from taskd.dialects.ucloud import models, tasks
from taskd.dialects.ucloud.calls import CALLS, STREAMS, call
from taskd.dialects.ucloud.face import FACE
from taskd.dialects.ucloud.follow import ListenRequest
from taskd.dialects.ucloud.frames import PING, FrameCall, message, response
from taskd.dialects.ucloud.listen import listen, updates
from taskd.dialects.ucloud.replies import refuse_frame
from taskd.dialects.ucloud.roles import ROLES, allow
from taskd.model import JSON, Caller
from taskd.service import Service

__all__ = [
    "CALLS", "FACE", "METHODS", "PING", "ROLES", "STREAMS", "FrameCall", "call", "listen", "message",
    "refuse_frame", "response",
]  # fmt: skip


async def _create(service: Service, caller: Caller, params: models.CreateRequest) -> JSON:
    allow(caller, "Tasks.create")
    return await tasks.create(service, caller, params)


async def _list(service: Service, caller: Caller, params: models.ListRequest) -> JSON:
    allow(caller, "Tasks.list")
    return await tasks.list_(service, caller, params)


async def _view(service: Service, caller: Caller, params: models.FindByStringId) -> JSON:
    allow(caller, "Tasks.view")
    return await tasks.view(service, caller, params)


async def _post_status(service: Service, caller: Caller, params: models.PostStatusRequest) -> JSON:
    allow(caller, "Tasks.postStatus")
    return await tasks.post_status(service, caller, params)


async def _mark_as_complete(service: Service, caller: Caller, params: models.FindByStringId) -> JSON:
    allow(caller, "Tasks.markAsComplete")
    return await tasks.mark_as_complete(service, caller, params)


async def _listen(service: Service, caller: Caller, params: ListenRequest, channel: Channel) -> JSON:
    allow(caller, "Tasks.listen")
    told = _told(updates(service, caller, params))
    return {"subscription": channel.open(Stream("Tasks.update", told))}


async def _told(updates: AsyncGenerator[Mapping[str, JSON], None]) -> AsyncGenerator[Mapping[str, JSON], None]:
    async with aclosing(updates):
        async for update in updates:
            yield {"update": update}


METHODS: Final = (
    Method("Tasks.create", models.CreateRequest, _create, "Make a task of a user, whose producer is the caller"),
    Method("Tasks.list", models.ListRequest, _list, "A page of the caller's own tasks that are not complete"),
    Method("Tasks.view", models.FindByStringId, _view, "A task, for its owner and its producer"),
    Method("Tasks.postStatus", models.PostStatusRequest, _post_status, "Say what is new of a task"),
    Method("Tasks.markAsComplete", models.FindByStringId, _mark_as_complete, "Say that a task is done"),
    Method("Tasks.listen", ListenRequest, _listen, "Follow the caller's own tasks, by Tasks.update", channel=True),
)
