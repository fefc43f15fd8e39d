"""The calls by their names in the sub-protocol: ``task.`` of the first generation, ``tasks.`` of the second."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs

from taskd.dialects import Reply
from taskd.dialects.ucloud import background, models, tasks
from taskd.dialects.ucloud.listen import listen
from taskd.dialects.ucloud.replies import refuse_frame
from taskd.errors import InternalError, TaskdError
from taskd.model import JSON, Caller
from taskd.service import Service

logger = logging.getLogger("taskd.dialects.ucloud")


@attrs.frozen
class Call:
    """``role`` is its row of ``access.CALLS``; ``verb`` takes what was ``said`` and gives the body, or a Reply."""

    role: str
    said: type[Any]
    verb: Callable[[Service, Caller, Any], Awaitable[JSON]]


CALLS: Final[Mapping[str, Call]] = {
    "task.list": Call("Tasks.list", models.ListRequest, tasks.list_),
    "task.view": Call("Tasks.view", models.FindByStringId, tasks.view),
    "task.create": Call("Tasks.create", models.CreateRequest, tasks.create),
    "task.postStatus": Call("Tasks.postStatus", models.PostStatusRequest, tasks.post_status),
    "task.markAsComplete": Call("Tasks.markAsComplete", models.FindByStringId, tasks.mark_as_complete),
    "tasks.browse": Call("Tasks.browse", background.BrowseRequest, background.browse),
    "tasks.retrieve": Call("Tasks.retrieve", background.FindByLongId, background.retrieve),
    "tasks.create": Call("Tasks.create", background.CreateRequest, background.create),
    "tasks.postStatus": Call("Tasks.postStatus", background.PostStatusRequest, background.post_status),
    "tasks.markAsComplete": Call("Tasks.markAsComplete", background.FindByLongId, background.mark_as_complete),
    "tasks.pauseOrCancel": Call(
        "Tasks.pauseOrCancel", background.PauseOrCancelRequest, background.pause_or_cancel
    ),
}

Listen: TypeAlias = Callable[[Service, Caller, JSON], AsyncGenerator[Mapping[str, JSON], None]]

# The calls that have messages and no response.
STREAMS: Final[Mapping[str, Listen]] = {"task.listen": listen, "tasks.listen": background.listen}


async def answer(service: Service, caller: Caller, name: str, payload: JSON) -> Reply:
    """The answer to the call of that name.

    Raises:
        TaskdError: it is refused.
    """
    found = CALLS.get(name)
    if found is None:
        return Reply(404, {})
    service.allow(caller, found.role)
    body = await found.verb(service, caller, models.read(payload, found.said))
    return body if isinstance(body, Reply) else Reply(200, body)


async def call(service: Service, caller: Caller, name: str, payload: JSON) -> Reply:
    """``answer``, in a frame: a refusal, and a fault of ours, is an answer too. A cancel goes through; what the
    call has done by then stays done.
    """
    try:
        return await answer(service, caller, name, payload)
    except TaskdError as error:
        service.metrics.refused(error)
        return refuse_frame(error)
    except Exception:
        logger.exception("%s failed unforeseen", name)
        return refuse_frame(InternalError())
