"""What a method is called with: who calls, and what can be carried to them beside the reply."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from taskd import rpc
from taskd.dialects import Channel
from taskd.model import JSON, Caller
from taskd.service import Service


@attrs.frozen(eq=False)
class Context:
    """Who calls, and where a stream of notifications can be carried, the channel of the message."""

    caller: Caller
    channel: Channel | None = None

    def __repr__(self) -> str:
        return repr(self.caller)


@attrs.frozen
class ForCaller:
    """XenAPI's methods, called with a context (``rpc.Positional``)."""

    api: rpc.Positional
    service: Service

    def answers(self, method: str) -> bool:
        return self.api.answers(method)

    async def call(self, context: Context, method: str, args: Sequence[JSON], /, *, subtask_of: str = "") -> JSON:
        self.service.allow(context.caller, method)
        return await self.api.call(context.caller, method, args, subtask_of=subtask_of)
