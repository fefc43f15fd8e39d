"""The frames of UCloud's sub-protocol on a WebSocket, without the WebSocket.

One text frame is one call; each call has a stream of its own, which the client names: any number of messages, then
at most one response, after which nothing comes on that stream (SDU-eScience/UCloud: backend/service-lib,
calls/WebSocket.kt; frontend-web, Authentication/ws.ts). What is no call is dropped, without a word. A stream's id
has at most STREAM_ID characters: it is in each of its messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from taskd.dialects import Reply
from taskd.model import JSON

# What the server says now and then, so that nobody in between takes the connection for dead; clients ignore it.
PING: Final[Mapping[str, JSON]] = {"ping": "pong"}

# Characters of a stream's id; the clients of the original number theirs.
STREAM_ID: Final = 256


@attrs.frozen
class FrameCall:
    """A call: ``bearer`` is its token where it brings one."""

    call: str
    stream_id: str
    payload: Mapping[str, JSON]
    bearer: str | None = attrs.field(default=None, repr=False)

    @classmethod
    def parse(cls, value: JSON) -> FrameCall | None:
        """The call that a frame's JSON is; None where it is none, and is to be dropped."""
        if not isinstance(value, dict):
            return None
        match value, value.get("bearer"):
            case {"call": str(call), "streamId": str(stream_id), "payload": dict(payload)}, str() | None as bearer:
                if len(stream_id) > STREAM_ID:
                    return None
                return cls(call, stream_id, payload, bearer)
            case _:
                return None


def message(stream_id: str, payload: Mapping[str, JSON]) -> dict[str, JSON]:
    """One of a stream's messages."""
    return {"type": "message", "streamId": stream_id, "payload": payload}


def response(stream_id: str, reply: Reply) -> dict[str, JSON]:
    """The end of a stream; an id that is too long is none, and is not said again."""
    name = stream_id if len(stream_id) <= STREAM_ID else ""
    return {"type": "response", "streamId": name, "payload": reply.body, "status": reply.status}
