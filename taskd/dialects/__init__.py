"""The table of methods: foreign and native names, each a thin translation to one verb of the service.

A method is its name, the frozen attrs class of its params, and the function that calls the service and gives
back the bare result. ``long`` ones may wait; the connection answers them when they are ready and does not let
them hold up the others. Of those that give a ``page``, a long reply, a batch makes one at a time. Those with a
``channel`` also open or close a stream of notifications, where the
connection can carry one. A new dialect is one file with a ``METHODS`` and a row here.

A dialect that is served over HTTP by paths of its own is a ``Face``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import trio

from taskd import codec
from taskd.errors import NeedsStream, TaskdError
from taskd.model import JSON, Caller, Task
from taskd.service import Service
from taskd.service.gate import at_hand


@attrs.frozen(eq=False)
class Stream:
    """What is sent after the reply to the call that opened it: notifications called ``method``, until it ends.

    ``run`` gives the params of some at a time to what it is called with, but for the name of the subscription,
    which the channel adds; that returns when they are on their way. It is cancelled when the subscription ends. A
    TaskdError that it raises ends the subscription, and the channel tells it.
    """

    method: str
    run: Callable[[Callable[[Sequence[Mapping[str, JSON]]], Awaitable[None]]], Awaitable[None]]


class Channel(Protocol):
    """A connection as a method with a stream sees it.

    Of its streams one at a time takes ``turn``, gathers what is to be told and tells it: while the peer does not
    read, one of them holds something, and not each.
    """

    @property
    def turn(self) -> trio.Lock: ...

    def open(self, stream: Stream) -> str:
        """The name of a new subscription; its notifications begin after the reply.

        Raises:
            TooManySubscriptions: the connection has as many as it may.
        """

    def close(self, subscription: str) -> None:
        """End a subscription of this connection; none of its notifications follows the reply.

        Raises:
            DoesNotExist: there is none of that name.
        """


@attrs.frozen
class Method:
    """One row of the table; ``params`` names and types what the wire may say, strictly.

    ``dialect`` is filled in by ``table``. ``at_once`` gives what ``call`` would, from memory and without waiting,
    or None where only ``call`` can tell.
    """

    name: str
    params: type[Any]
    call: Callable[..., Awaitable[JSON]]
    summary: str
    long: bool = False
    page: bool = False
    channel: bool = False
    dialect: str = ""
    at_once: Callable[[Service, Caller, Any], JSON | None] | None = None

    async def __call__(
        self, service: Service, caller: Caller, params: JSON, channel: Channel | None = None
    ) -> JSON:
        """``call(service, caller, params)``, with the channel last where it takes one.

        Raises:
            Unauthenticated, PermissionDenied: the caller may not call it at all.
            BadParams: the params do not fit. And what the verb raises.
            NeedsStream: it takes a channel, and what carries the call has none.
        """
        service.allow(caller, self.name)
        structured = codec.structure(params, self.params)
        if not self.channel:
            return await self.call(service, caller, structured)
        if channel is None:
            raise NeedsStream(self.name)
        return await self.call(service, caller, structured, channel)

    def now(self, service: Service, caller: Caller, params: JSON) -> JSON | None:
        """What the call would give back, without waiting; None where it must be made. It refuses nothing: a
        refusal is the call's to say.
        """
        assert self.at_once is not None
        try:
            service.allow(caller, self.name)
            return self.at_once(service, caller, codec.structure(params, self.params))
        except TaskdError:
            return None


def look(name: str, params: type[Any], shape: Callable[[Task], JSON], summary: str) -> Method:
    """A method that shows the task ``params.id`` as ``shape`` has it; at once where it is alive in this process.

    What ``shape`` raises on purpose is the method's refusal.
    """

    async def call(service: Service, caller: Caller, params: Any) -> JSON:
        return shape(await service.get(caller, params.id))

    def at_once(service: Service, caller: Caller, params: Any) -> JSON | None:
        task = at_hand(service, caller, params.id)
        return None if task is None else shape(task)

    return Method(name, params, call, summary, at_once=at_once)


def table() -> dict[str, Method]:
    """All methods by name."""
    from taskd.dialects import native, smapi, tokens, ucloud, watch

    native_ones = (*native.METHODS, *watch.METHODS, *tokens.METHODS)
    dialects = {"smapi": smapi.METHODS, "native": native_ones, "ucloud": ucloud.METHODS}
    return {
        method.name: attrs.evolve(method, dialect=dialect)
        for dialect, methods in dialects.items()
        for method in methods
    }


# Dialects with paths of their own.


@attrs.frozen
class Asked:
    """A request over HTTP whose path is one of the dialect's.

    ``query`` is decoded and in the order of the URL, names without a value have ``""``; ``id`` is what stands
    for ``{id}`` in the path, decoded; ``language`` is the header of that name, ``""`` without it.
    """

    service: Service
    caller: Caller
    query: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    id: str = ""
    language: str = ""


@attrs.frozen
class Reply:
    """The answer: a status of HTTP and a body of JSON."""

    status: int
    body: JSON


@attrs.frozen
class Face:
    """``routes``: path (a last segment may be ``{id}``) to method of HTTP to what answers; it raises TaskdError,
    of which ``refuse``, given the language too, makes the answer. ``name`` is the dialect's.
    """

    name: str
    routes: Mapping[str, Mapping[str, Callable[[Asked], Awaitable[Reply]]]]
    refuse: Callable[[TaskdError, str], Reply]
