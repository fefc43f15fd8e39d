"""What a method is called with: who calls, what is carried to them beside the reply, and what it may cost."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Final

import attrs

from taskd import rpc, web, wire
from taskd.dialects import Channel, Method
from taskd.dialects.xenapi import XenApi
from taskd.metrics import UNKNOWN
from taskd.model import JSON, Caller
from taskd.service import Service

# The calls of XenAPI that wait for something to happen (xen-api, ocaml/xapi/xapi_event.ml).
WAITING: Final = re.compile(r"event[._](?:from|next)", re.IGNORECASE)


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

    def answers(self, method: str, args: Sequence[JSON]) -> bool:
        return self.api.answers(method, args)

    async def call(self, context: Context, method: str, args: Sequence[JSON], /, *, subtask_of: str = "") -> JSON:
        began = perf_counter()
        try:
            self.service.allow(context.caller, method)
            return await self.api.call(context.caller, method, args, subtask_of=subtask_of)
        finally:
            name = self.api.spelled(method) or UNKNOWN
            self.service.metrics.request("xenapi", name, perf_counter() - began)


@attrs.frozen(eq=False)
class Calls:
    """The ``methods`` as a connection makes them, bound once for all connections: ``awaited`` for ``rpc.answer``,
    ``at_once`` for ``rpc.at_once``, which gives the caller as context.
    """

    methods: Mapping[str, Method]
    service: Service
    awaited: rpc.Methods = attrs.field(init=False)
    at_once: Mapping[str, rpc.AtOnce] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        by_name = self.methods.items()
        object.__setattr__(self, "awaited", {name: self._awaited(method) for name, method in by_name})
        quick = {name: self._at_once(method) for name, method in by_name if method.at_once is not None}
        object.__setattr__(self, "at_once", quick)

    def waits(self, name: str) -> bool:
        """A call of that name may wait for something to happen."""
        method = self.methods.get(name)
        return method.long if method is not None else bool(WAITING.fullmatch(name))

    def any_waits(self, message: JSON) -> bool:
        """One of the calls of a message does."""
        return any(map(self.waits, rpc.methods_in(message)))

    def pages(self, name: str) -> bool:
        """The reply to a call of that name may be long: any of XenAPI's that does not wait counts as such."""
        method = self.methods.get(name)
        return method.page if method is not None else not self.waits(name)

    def reply_at_once(self, message: wire.Message, caller: Caller, limits: Limits) -> JSON | wire.Response | None:
        """The reply to a plain call that can be given from memory, without waiting; None: ``answer`` has it."""
        if not isinstance(message, wire.Request):
            return rpc.at_once(message, self.at_once, caller)
        answer = partial(rpc.at_once, methods=self.at_once, context=caller)
        return web.at_once(message, caller, answer, limits.max_message_bytes, limits.max_depth)

    def _awaited(self, method: Method) -> Callable[..., Awaitable[JSON]]:
        service = self.service

        async def call(context: Context, /, **params: JSON) -> JSON:
            began = perf_counter()
            try:
                return await method(service, context.caller, params, context.channel)
            finally:
                service.metrics.request(method.dialect, method.name, perf_counter() - began)

        return call

    def _at_once(self, method: Method) -> rpc.AtOnce:
        service = self.service

        def call(caller: Caller, params: Mapping[str, JSON]) -> JSON | None:
            began = perf_counter()
            result = method.now(service, caller, params)
            if result is not None:
                service.metrics.request(method.dialect, method.name, perf_counter() - began)
            return result

        return call
