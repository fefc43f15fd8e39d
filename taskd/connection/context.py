"""What a method is called with: who calls, and what can be carried to them beside the reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs

from taskd import rpc
from taskd.dialects import Channel, Method
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


def callable_methods(methods: Mapping[str, Method], service: Service) -> rpc.Methods:
    """The methods as the envelope calls them."""

    def bound(method: Method) -> Callable[..., Awaitable[JSON]]:
        async def call(context: Context, /, **params: JSON) -> JSON:
            return await method(service, context.caller, params, context.channel)

        return call

    return {name: bound(method) for name, method in methods.items()}
