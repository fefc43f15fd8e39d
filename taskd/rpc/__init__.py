"""The JSON-RPC envelope: one message in, one reply value or nothing out; methods see neither.

The member ``jsonrpc`` alone tells two envelopes apart, also within one batch. With it, JSON-RPC 2.0 (V2): a
reply has ``result`` or ``error``, never both. Without it, that of ocaml-rpc (V1): a reply has ``result``,
``error`` and ``id``, always. What is no request is answered with its id where one can be read; a notification
is never answered, whatever becomes of it. ``"id": null`` is a notification in V1 and a request in V2.

Params are one object, or a list of exactly one object. ``Positional`` methods take them in a row instead: a
list of anything else, or of nothing at all where no other method has that name.

Of an error that taskd raises on purpose the peer learns all; of any other, that there was one. Below are the
parts of jsonrpcserver that can do without asyncio.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Protocol, TypeAlias

import attrs
import orjson
import trio
from jsonrpcserver.async_dispatcher import dispatch_request
from jsonrpcserver.dispatcher import create_request, not_notification, to_response
from jsonrpcserver.request import Request
from jsonrpcserver.response import ErrorResponse, serialize_error, to_serializable_one
from jsonrpcserver.result import Error, Result, Success
from jsonrpcserver.sentinels import NODATA, NOID
from oslash.either import Left

from taskd.errors import (
    BadParams,
    InternalError,
    InvalidRequest,
    ReplyTooLong,
    TaskdError,
    UnknownMethod,
    WireError,
    XenApiError,
)

JSON: TypeAlias = object

# ``await method(context, **params)`` gives the bare result or raises. A peer may name its params as it likes:
# the context is to be taken by position only.
Methods: TypeAlias = Mapping[str, Callable[..., Awaitable[JSON]]]

# ``call(context, params)`` gives the bare result without waiting, or None where ``answer`` must be asked.
AtOnce: TypeAlias = Callable[[Any, Mapping[str, JSON]], JSON | None]

# ``await call(context, *listed, **named)``, with the params as they came.
Call: TypeAlias = Callable[..., Awaitable[JSON]]


class Positional(Protocol):
    """Methods whose params stand in a row: XenAPI's."""

    def answers(self, method: str, args: Sequence[JSON]) -> bool:
        """Whether the call is one of theirs, known or not."""

    async def call(self, context: Any, method: str, args: Sequence[JSON], /, *, subtask_of: str = "") -> JSON:
        """The bare result; ``subtask_of`` is the task that the call is a part of, where its framing can say so.

        Raises:
            XenApiError: any that they raise on purpose.
        """


@attrs.frozen
class Part:
    """The same methods for a call that is a part of the task ``subtask_of``."""

    whole: Positional
    subtask_of: str

    def answers(self, method: str, args: Sequence[JSON]) -> bool:
        return self.whole.answers(method, args)

    async def call(self, context: Any, method: str, args: Sequence[JSON], /, *, subtask_of: str = "") -> JSON:
        return await self.whole.call(context, method, args, subtask_of=subtask_of or self.subtask_of)


# Told of every error that a message, or a member of a batch, is answered with.
Refused: TypeAlias = Callable[[TaskdError], None]


def unheard(error: TaskdError) -> None:
    """Nobody is to be told."""


# How many members of one batch run at the same time.
ABREAST = 64

# Bytes of a batch's replies that are counted at a time.
PIECE = 65536

logger = logging.getLogger("taskd.rpc")


async def answer(
    message: JSON,
    methods: Methods,
    context: object,
    *,
    max_batch: int,
    max_reply_bytes: int = 16 * 1024 * 1024,
    held: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext(),
    pages: Callable[[str], bool] = lambda _: False,
    positional: Positional | None = None,
    refused: Refused = unheard,
) -> JSON | None:
    """The reply to one message of the wire, None when there is none to send; ``refused`` hears of errors.

    The members of a batch, up to ``max_batch``, run concurrently and are answered in their order. When their
    replies have come to ``max_reply_bytes``, the rest is refused and not called; so that no more than one comes on
    top of that, those that call for ``pages``, by the names of their methods, run one after the other. Their bytes
    are ``held`` until all are there. A cancel goes through to the methods, and nothing is answered.
    """
    if isinstance(message, WireError):
        return refuse(message, refused)
    if not isinstance(message, list):
        return await _answer_one(message, methods, context, positional, refused)
    if not message:
        return refuse(InvalidRequest("a batch must not be empty"), refused)
    if len(message) > max_batch:
        return refuse(InvalidRequest(f"a batch of {len(message)} is over the limit of {max_batch}"), refused)
    replies: list[JSON | None] = [None] * len(message)
    members, size, counted, turn = iter(enumerate(message)), 0, 0, trio.Lock()

    async def work_off() -> None:
        nonlocal size, counted
        for place, member in members:
            async with turn if any(map(pages, methods_in(member))) else nullcontext():
                if size < max_reply_bytes:
                    reply = await _answer_one(member, methods, context, positional, refused)
                else:
                    reply = await _answer_one(member, _Full(max_reply_bytes), context, None, refused)
                replies[place], message[place] = reply, None  # what is answered need not be kept for the others
                size += len(orjson.dumps(reply))
                if size - counted > PIECE:
                    holding.enter_context(held(size - counted))
                    counted = size
            # A member that waited for nothing must not keep the rest of the daemon waiting.
            await trio.lowlevel.checkpoint()

    with ExitStack() as holding:
        async with trio.open_nursery() as nursery:
            for _ in range(min(ABREAST, len(message))):
                nursery.start_soon(work_off)
    return [reply for reply in replies if reply is not None] or None


def at_once(message: JSON, methods: Mapping[str, AtOnce], context: object) -> JSON | None:
    """The reply to a plain call that one of ``methods`` can give now; None: ``answer`` gives it.

    The short cut of polling clients: what ``answer`` costs for its generality is several times the call itself.
    Whatever is not quite plain, errors among it, is ``answer``'s, so that there is one place for it.
    """
    if type(message) is not dict:
        return None
    name, id, params = message.get("method"), message.get("id"), message.get("params")
    version = message.get("jsonrpc", _V1)
    if type(params) is list and len(params) == 1:
        params = params[0]
    if type(name) is not str or type(id) not in (int, str) or type(params) is not dict:
        return None
    call = methods.get(name)
    if call is None or (version is not _V1 and version != "2.0"):
        return None
    result = call(context, params)
    if result is None:
        return None
    if version is _V1:
        return {"result": result, "error": None, "id": id}
    return {"jsonrpc": "2.0", "result": result, "id": id}


# What no message can have as its version.
_V1 = object()


class _Full(dict[str, Call]):
    """Every method, when there is no room for its reply: a refusal."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def get(self, name: str, default: object = None) -> Call:
        async def refused(context: object, /, **params: JSON) -> JSON:
            raise ReplyTooLong(self._limit)

        return refused


def refuse(error: TaskdError, refused: Refused = unheard) -> JSON:
    """The reply to what is no request at all, so that neither its version nor its id is known."""
    refused(error)
    return _failure(error, None, v1=False)


def reduced(message: JSON) -> JSON:
    """``message`` without members that no envelope has: for whoever keeps it, for they may be large."""
    if isinstance(message, list):
        return [reduced(member) if isinstance(member, dict) else member for member in message]
    if not isinstance(message, dict):
        return message
    return {name: message[name] for name in ("jsonrpc", "method", "params", "id") if name in message}


def is_batch_of_calls(message: JSON) -> bool:
    """To some member an answer is wanted: a batch of notifications alone is none."""
    return isinstance(message, list) and any(isinstance(each, dict) and _is_call(each) for each in message)


def _is_call(member: Mapping[str, JSON]) -> bool:
    return "id" in member if "jsonrpc" in member else member.get("id") is not None


def methods_in(message: JSON) -> frozenset[str]:
    """The names of the methods that a message calls, or would call if it were valid."""
    members = message if isinstance(message, list) else [message]
    names = (member.get("method") for member in members if isinstance(member, dict))
    return frozenset(name for name in names if isinstance(name, str))


async def call_positional(positional: Positional, context: object, method: str, args: Sequence[JSON]) -> JSON:
    """The result of one of the ``positional`` methods, whose errors are all of one kind.

    Raises:
        XenApiError: its own, or INTERNAL_ERROR with the sentence of another of ours. What was not raised on
            purpose is logged, and not told.
    """
    try:
        return await positional.call(context, method, args)
    except XenApiError:
        raise
    except TaskdError as error:
        raise XenApiError("INTERNAL_ERROR", (str(error),)) from None
    except Exception:
        logger.exception("%s failed for %r", method, context)
        raise XenApiError("INTERNAL_ERROR", (str(InternalError()),)) from None


async def _answer_one(
    message: JSON, methods: Methods, context: object, positional: Positional | None, refused: Refused
) -> JSON | None:
    if not isinstance(message, dict):
        return refuse(InvalidRequest("a request must be an object"), refused)
    v1 = "jsonrpc" not in message
    if fault := _fault(message):
        id = message.get("id")
        error = InvalidRequest(fault)
        refused(error)
        return _failure(error, id if _is_id(id) else None, v1)
    request = create_request(message)
    if v1 and request.id is None:
        request = request._replace(id=NOID)
    name = request.method
    call = _find(name, message.get("params"), methods, positional)
    known = {name: _guarded(name, call)} if call is not None else {}
    outcome = await dispatch_request(known, context, request)
    failure = _error(*outcome)
    if failure is not None:
        refused(failure)
    return _reply(*outcome, failure, v1) if not_notification(outcome) else None


def _is_id(id: JSON) -> bool:
    # A number beyond 64 bits is a float once it is parsed, and could not be echoed as it came.
    return id is None or (isinstance(id, str | int) and not isinstance(id, bool))


def _fault(request: Mapping[str, JSON]) -> str | None:
    if request.get("jsonrpc", "2.0") != "2.0":
        return 'jsonrpc must be "2.0" where it is given'
    if not _is_id(request.get("id")):
        return "id must be a string, an integer of 64 bits or null"
    if not isinstance(request.get("method"), str):
        return "method must be a string"
    if not isinstance(request.get("params"), dict | list | None):
        return "params must be an object or a list"
    return None


def _find(name: str, params: JSON, methods: Methods, positional: Positional | None) -> Call | None:
    method = methods.get(name)
    row = _in_a_row(name, params, method is not None)
    if positional is not None and row is not None and positional.answers(name, row):
        theirs = positional

        async def call(context: object, /, *listed: JSON) -> JSON:
            return await call_positional(theirs, context, name, listed)

        return call
    if method is None:
        return None
    ours = method

    async def call_by_name(context: object, /, *listed: JSON, **named: JSON) -> JSON:
        return await ours(context, **(_sole(listed) if listed else named))

    return call_by_name


def _in_a_row(name: str, params: JSON, known: bool) -> Sequence[JSON] | None:
    """The params as they stand in a row; None where they do not."""
    match params:
        case [dict()]:
            return None
        case [_, *_] as row:
            return row
        case None | [] if not known and name[:1].islower():
            # XenAPI writes its classes in lower case, where all others begin with a capital.
            return ()
        case _:
            return None


def _guarded(name: str, call: Call) -> Callable[..., Awaitable[Result]]:
    """``call`` as jsonrpcserver calls it: a Result in any case but a cancel."""

    async def guarded(context: object, /, *listed: JSON, **named: JSON) -> Result:
        try:
            return Success(await call(context, *listed, **named))
        except TaskdError as error:
            return Error(error.number, str(error), error)
        except Exception:
            logger.exception("%s failed for %r", name, context)
            return Error(InternalError.number, "", InternalError())

    # For jsonrpcserver, which asks each time.
    guarded.__signature__ = _SIGNATURE  # type: ignore[attr-defined]  # any function may have one (PEP 362)
    return guarded


async def _any(context: object, /, *listed: JSON, **named: JSON) -> None:
    """As every method is called."""


# Looked up once: to look anew at each call takes longer than to parse the call.
_SIGNATURE = inspect.signature(_any)


def _sole(listed: tuple[JSON, ...]) -> dict[str, JSON]:
    match listed:
        case (dict() as named,):
            return named
    raise BadParams("params", "expected an object, or a list of exactly one object")


def _error(request: Request, result: Result) -> TaskdError | None:
    if not isinstance(result, Left):
        return None
    # jsonrpcserver itself can find but one thing wrong, that there is no such method; the rest was raised.
    raised = result._error.data
    return raised if isinstance(raised, TaskdError) else UnknownMethod(request.method)


def _reply(request: Request, result: Result, failure: TaskdError | None, v1: bool) -> JSON:
    if failure is not None:
        return _failure(failure, request.id, v1)
    if v1:
        return {"result": result._value.result, "error": None, "id": request.id}
    return to_serializable_one(to_response(request, result))


def _failure(error: TaskdError, id: JSON, v1: bool) -> JSON:
    data = list(error.data)
    if v1:
        return {"result": None, "error": [error.name, *data], "id": id}
    match error:
        case WireError():
            return serialize_error(ErrorResponse(error.number, str(error), NODATA, id))
        case UnknownMethod():
            return serialize_error(ErrorResponse(error.number, "Method not found", data, id))
        case _:
            # As XenAPI does it: all errors that are not JSON-RPC's own have one number, and are told by name.
            message = error.name if error.number == 1 else str(error)
            return serialize_error(ErrorResponse(error.number, message, data, id))
