"""What a method is called with: who calls, what is carried to them beside the reply, and what it may cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter

import attrs

from taskd import rpc
from taskd.dialects import Channel, Method
from taskd.dialects.xenapi import XenApi
from taskd.metrics import UNKNOWN
from taskd.model import JSON, Caller
from taskd.service import Service


@attrs.frozen
class Limits:
    """What one connection may cost (law L10); the numbers are ``config.Config``'s."""

    max_message_bytes: int = 1024 * 1024
    max_depth: int = 100
    max_batch: int = 10_000
    max_reply_bytes: int = 16 * 1024 * 1024
    message_deadline_s: float = 30.0
    reader_deadline_s: float = 60.0
    requests_in_flight: int = 256
    subscriptions_per_connection: int = 64


@attrs.frozen(eq=False)
class Context:
    """Who calls, and where a stream of notifications can be carried, the channel of the message."""

    caller: Caller
    channel: Channel | None = None

    def __repr__(self) -> str:
        return repr(self.caller)


@attrs.frozen
class ForCaller:
    """XenAPI's methods, called with a context (``rpc.Positional``), and timed."""

    api: XenApi
    service: Service

    def answers(self, method: str) -> bool:
        return self.api.answers(method)

    async def call(self, context: Context, method: str, args: Sequence[JSON], /, *, subtask_of: str = "") -> JSON:
        began = perf_counter()
        try:
            self.service.allow(context.caller, method)
            return await self.api.call(context.caller, method, args, subtask_of=subtask_of)
        finally:
            name = self.api.spelled(method) or UNKNOWN
            self.service.metrics.request("xenapi", name, perf_counter() - began)


def callable_methods(methods: Mapping[str, Method], service: Service) -> rpc.Methods:
    """The methods as the envelope calls them."""

    def bound(method: Method) -> Callable[..., Awaitable[JSON]]:
        async def call(context: Context, /, **params: JSON) -> JSON:
            began = perf_counter()
            try:
                return await method(service, context.caller, params, context.channel)
            finally:
                service.metrics.request(method.dialect, method.name, perf_counter() - began)

        return call

    return {name: bound(method) for name, method in methods.items()}
