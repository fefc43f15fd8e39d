"""What is where over HTTP: a table of paths, and for each the methods and who answers them.

A JSON-RPC error is an answer (200), as npm's xen-api wants it; so is an XML-RPC fault. Only what never got to an
envelope has a status of its own and a sentence: 404, 405 with ``Allow``, 415. A message of JSON-RPC that has no
reply, a notification, is answered with 204.

There is no ``Access-Control-Allow-Origin``, though xapi sends one: on a Unix socket are no browsers, and where
somebody forwards it to a port, no web page shall read the answers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from typing import Final, TypeAlias

import attrs
import orjson
import trio

from taskd import __version__, rpc
from taskd.dialects import native
from taskd.errors import InternalError, WireError, XenApiError
from taskd.model import JSON
from taskd.rpc import xml
from taskd.service import Service
from taskd.wire import Request, Response, sentence, sole

logger = logging.getLogger("taskd.web")

# Exactly this: npm's xen-api takes a reply with a charset for XML.
JSON_TYPE: Final = "application/json"
XML_TYPE: Final = "text/xml"

# Bytes of XML that are read between two looks at the other connections; the codec is slow.
AT_ONCE: Final = 16384


@attrs.frozen
class Site:
    """What one caller is served: ``answer`` takes a JSON-RPC message, ``call`` a XenAPI method and its params.

    Both take, last, the ref in the header ``Subtask-of``, "" for none (sm, libs/sm/SR.py).
    """

    service: Service
    answer: Callable[[JSON, str], Awaitable[JSON | None]]
    call: Callable[[str, Sequence[JSON], str], Awaitable[JSON]]
    max_bytes: int
    max_depth: int


Answer: TypeAlias = Callable[[Request, Site], Awaitable[Response]]


async def respond(request: Request, site: Site) -> Response:
    """The response to any request. A cancel goes through, and nothing is answered."""
    if request.path == "*" and request.method == "OPTIONS":  # about the server as a whole
        return Response(204, headers=(("Allow", _allowed(*PATHS.values())),))
    methods = PATHS.get(request.path)
    if methods is None:
        return sentence(404, f"there is nothing at this path; there are {', '.join(PATHS)}")
    allow = ("Allow", _allowed(methods))
    if request.method == "OPTIONS":
        return Response(204, headers=(allow,))
    answer = methods.get("GET" if request.method == "HEAD" else request.method)
    if answer is None:
        return sentence(405, f"this path takes {allow[1]}", allow)
    if request.header("content-encoding") not in {None, "identity"}:
        return sentence(415, "a body must come as it is, not compressed", ("Accept-Encoding", "identity"))
    return await answer(request, site)


def _allowed(*tables: Mapping[str, Answer]) -> str:
    methods = {method for table in tables for method in table} | {"OPTIONS"}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _subtask_of(request: Request) -> str:
    return request.header("subtask-of") or ""


async def _jsonrpc(request: Request, site: Site) -> Response:
    message = sole(request.body, site.max_bytes, site.max_depth)
    reply = await site.answer(message, _subtask_of(request))
    return Response(204) if reply is None else _json(reply)


async def _xmlrpc(request: Request, site: Site) -> Response:
    read = partial(xml.read, request.body, site.max_depth)
    try:
        call = read() if len(request.body) <= AT_ONCE else await trio.to_thread.run_sync(read)
    except WireError as error:
        return Response(200, xml.fault(error), XML_TYPE)
    write = xml.bare if call.method.replace("_", ".").lower() == "system.listmethods" else xml.success
    try:
        value = await site.call(call.method, call.args, _subtask_of(request))
        # Whole tables of records can be in it.
        large = isinstance(value, dict | list)
        body = await trio.to_thread.run_sync(write, value) if large else write(value)
    except XenApiError as error:
        body = xml.failure(error)
    except TypeError:
        logger.exception("the result of %s cannot be said in XML", call.method)
        body = xml.failure(XenApiError("INTERNAL_ERROR", (str(InternalError()),)))
    return Response(200, body, XML_TYPE)


async def _health(request: Request, site: Site) -> Response:
    registry = site.service.registry
    return _json(
        {
            "status": "ok",
            "version": __version__,
            "revision": registry.revision,
            "unfinished_tasks": len(registry),
        }
    )


@cache
def _description() -> Response:
    return _json(native.openrpc())


async def _openrpc(request: Request, site: Site) -> Response:
    return _description()


def _json(value: JSON) -> Response:
    try:
        body = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an operation's result is no JSON after all
        logger.exception("a reply cannot be said in JSON")
        body = orjson.dumps(rpc.refuse(InternalError()))
    return Response(200, body, JSON_TYPE)


PATHS: Final[Mapping[str, Mapping[str, Answer]]] = {
    "/": {"POST": _xmlrpc},
    "/RPC2": {"POST": _xmlrpc},
    "/jsonrpc": {"POST": _jsonrpc},
    "/healthz": {"GET": _health},
    "/openrpc.json": {"GET": _openrpc},
}
