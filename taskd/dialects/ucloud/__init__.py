"""UCloud's tasks: how services tell users what goes on, as the documentation of UCloud has it, and its successor.

``FACE`` is HTTP, below ``/api/tasks``. On a WebSocket there, ``FrameCall.parse`` reads a frame; ``call`` answers
one with a reply, and those named in ``STREAMS`` give messages. ``METHODS`` are the same calls as JSON-RPC.

A producer makes ``external`` tasks for users and posts what is new; the user who owns one lists, views and
listens. A task of any other operation, and of any other dialect, is there too: a copy of the user's own has a
title, a progress and an end as everything else, only that nobody can post to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from taskd.dialects import Channel, Method, Stream
from taskd.dialects.ucloud import models, tasks
from taskd.dialects.ucloud.calls import CALLS, STREAMS, Listen, call
from taskd.dialects.ucloud.face import FACE
from taskd.dialects.ucloud.follow import ListenRequest
from taskd.dialects.ucloud.frames import PING, FrameCall, message, response
from taskd.dialects.ucloud.listen import listen, updates
from taskd.dialects.ucloud.replies import NO_CALL, refuse_frame
from taskd.model import JSON, Caller
from taskd.service import Service

__all__ = [
    "CALLS", "FACE", "METHODS", "NO_CALL", "PING", "STREAMS", "FrameCall", "Listen", "call", "listen", "message",
    "refuse_frame", "response",
]  # fmt: skip


async def _listen(service: Service, caller: Caller, params: ListenRequest, channel: Channel) -> JSON:
    told = updates(service, caller, params)  # what is posted from here on is in them

    async def run(tell: Callable[[Sequence[Mapping[str, JSON]]], Awaitable[None]]) -> None:
        async with aclosing(told):
            async for update in told:
                await tell([{"update": update}])

    return {"subscription": channel.open(Stream("Tasks.update", run))}


METHODS: Final = (
    Method("Tasks.create", models.CreateRequest, tasks.create, "Make a user's task that the caller produces"),
    Method(
        "Tasks.list", models.ListRequest, tasks.list_, "A page of the caller's own incomplete tasks", page=True
    ),
    Method("Tasks.view", models.FindByStringId, tasks.view, "A task, for its owner and its producer"),
    Method("Tasks.postStatus", models.PostStatusRequest, tasks.post_status, "Say what is new of a task"),
    Method("Tasks.markAsComplete", models.FindByStringId, tasks.mark_as_complete, "Say that a task is done"),
    Method("Tasks.listen", ListenRequest, _listen, "Follow the caller's own tasks, by Tasks.update", channel=True),
)
