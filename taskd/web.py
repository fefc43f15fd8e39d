"""What is where over HTTP: a table of paths, and for each the methods and who answers them.

A JSON-RPC error is an answer (200), as npm's xen-api wants it; so is an XML-RPC fault. Only what never got to an
envelope has a status of its own and a sentence: 404, 405 with ``Allow``, 415. A message of JSON-RPC that has no
reply, a notification, is answered with 204.

There is no ``Access-Control-Allow-Origin``, though xapi sends one: on a Unix socket are no browsers, and where
somebody forwards it to a port, no web page shall read the answers, or do anything. So a request with an
``Origin``, which browsers send with all that could, is refused where the kernel alone says who calls: any page
could send it, and by its DNS be of the same origin. A GET of a page to its own origin has none; it is told by its
``Host``, the page's. Where a token says who calls, a page that has one may.

Dialects with paths of their own (``dialects.Face``) stand beside the table; the last segment of a path may be an
id. Whoever must present a token and has none is answered with 401, in the dialect's own shape.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from time import perf_counter
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, unquote

import attrs
import orjson

from taskd import __version__, metrics, rpc
from taskd.dialects import Asked, Face, Reply, native
from taskd.errors import BadParams, InternalError, TaskdError, Unauthenticated, WireError, XenApiError
from taskd.model import JSON, Caller
from taskd.rpc import xml
from taskd.service import Service
from taskd.wire import Request, Response, sentence, sole

logger = logging.getLogger("taskd.web")

# Exactly this: npm's xen-api takes a reply with a charset for XML.
JSON_TYPE: Final = "application/json"
XML_TYPE: Final = "text/xml"

# What UCloud and KooDrive send.
FACE_TYPE: Final = "application/json; charset=UTF-8"

JSONRPC: Final = "/jsonrpc"

# What a WebSocket carries, by its path: JSON-RPC, or UCloud's calls.
RPC: Final = "rpc"
FRAMES: Final = "frames"
SOCKETS: Final[Mapping[str, str]] = {JSONRPC: RPC, "/api/tasks": FRAMES}

# Most fields of a query.
FIELDS: Final = 1000

# Bytes of XML that are read, or of JSON that are written as XML, between two looks at the other connections; the
# codec is slow.
AT_ONCE: Final = 16384

# Bytes of JSON-RPC that may be read a second time, where it turns out that they are no call for ``at_once``.
SHORT: Final = 4096

# The headers by which ``respond`` refuses, or knows the caller.
_LOOKED_AT: Final = frozenset({"authorization", "content-encoding", "origin"})


@attrs.frozen
class Site:
    """What the caller of one request is served, or why there is none.

    ``answer`` takes the caller and a JSON-RPC message, ``call`` the caller, a XenAPI method and its params; both,
    last, the ref in the header ``Subtask-of``, "" for none (sm, libs/sm/SR.py).
    """

    service: Service
    caller: Caller | Unauthenticated
    answer: Callable[[Caller, JSON, str], Awaitable[JSON | None]]
    call: Callable[[Caller, str, Sequence[JSON], str], Awaitable[JSON]]
    max_bytes: int
    max_depth: int

    @property
    def known(self) -> Caller:
        """The caller. Raises Unauthenticated."""
        if isinstance(self.caller, Unauthenticated):
            raise self.caller
        return self.caller


Answer: TypeAlias = Callable[[Request, Site], Awaitable[Response]]
Paths: TypeAlias = Mapping[str, Mapping[str, Answer]]

ID: Final = "{id}"


def paths(*faces: Face) -> Paths:
    """The table of all paths: those that are here, and those of the dialects."""
    table = dict(PATHS)
    for face in faces:
        for path, methods in face.routes.items():
            table[path] = {
                method: partial(_faced, face, f"{method} {path}", answer) for method, answer in methods.items()
            }
    return table


def _at(path: str, table: Paths) -> Mapping[str, Answer] | None:
    return table.get(path) or table.get(f"{path.rpartition('/')[0]}/{ID}")


def socket(request: Request, site: Site, table: Paths) -> tuple[str, Response | None]:
    """What a WebSocket at that path carries, and the response that refuses it, None where it is granted."""
    kind = SOCKETS.get(request.path)
    if kind is None:
        status = 400 if _at(request.path, table) else 404
        return "", sentence(status, f"there is no WebSocket at this path; there are {', '.join(SOCKETS)}")
    if isinstance(site.caller, Unauthenticated):
        # UCloud's bearers come with the calls.
        return kind, None if kind == FRAMES else _unauthenticated(site.caller)
    return kind, _of_a_page(request, site)


def _of_a_page(request: Request, site: Site) -> Response | None:
    """The refusal of what a web page sends, or may have sent, who has no token."""
    if not isinstance(site.caller, Caller) or site.caller.token is not None:
        return None
    if request.header("origin") is not None:
        return sentence(403, "a web page gets no answer without a token: the request has an Origin")
    # What is here and not a dialect's tells of no task. A WebSocket of a page has an Origin.
    asks = request.method in {"GET", "HEAD"} and not request.websocket and request.path not in PATHS
    if asks and _of_dns(request.header("host") or ""):
        return sentence(403, "a web page gets no answer without a token: its Host may be one's; localhost is not")
    return None


def _of_dns(host: str) -> bool:
    """A name that somebody may have in DNS and lead wherever they like, so also to a forwarder of our socket.

    Not so an address, ``localhost``, a word without a dot, and the path of a socket as clients write it: in
    percents, or as XenAPI's does (``wire.http``), where it ends in ``.sock``.
    """
    match = _DOTTED.fullmatch(host)
    return match is not None and not (match[1].isdecimal() or match[1].lower() in {"localhost", "sock"})


_DOTTED: Final = re.compile(r"(?:[\w-]+\.)+([\w-]+)\.?(?::\d*)?")


def _unauthenticated(error: Unauthenticated) -> Response:
    return sentence(401, str(error), ("WWW-Authenticate", "Bearer"))


async def respond(request: Request, site: Site, table: Paths) -> Response:
    """The response to any request. A cancel goes through, and nothing is answered."""
    if request.path == "*" and request.method == "OPTIONS":  # about the server as a whole
        return Response(204, headers=(("Allow", _allowed(*table.values())),))
    methods = _at(request.path, table)
    if methods is None:
        return _nothing_at(table)
    allow = ("Allow", _allowed(methods))
    if request.method == "OPTIONS":
        return Response(204, headers=(allow,))
    answer = methods.get("GET" if request.method == "HEAD" else request.method)
    if answer is None:
        if request.path not in table:  # its last segment was taken for an id
            return _nothing_at(table)
        other = (
            ""
            if request.path not in SOCKETS
            else (", and a WebSocket (Upgrade: websocket and Connection: upgrade; a proxy must pass both on)")
        )
        return sentence(405, f"this path takes {allow[1]}{other}", allow)
    if (refusal := _of_a_page(request, site)) is not None:
        return refusal
    if request.header("content-encoding") not in {None, "identity"}:
        return sentence(415, "a body must come as it is, not compressed", ("Accept-Encoding", "identity"))
    try:
        return await answer(request, site)
    except Unauthenticated as error:
        site.service.metrics.refused(error)
        return _unauthenticated(error)


def _nothing_at(table: Paths) -> Response:
    return sentence(404, f"there is nothing at this path; there are {', '.join(table)}")


def _allowed(*tables: Mapping[str, Answer]) -> str:
    methods = {method for table in tables for method in table} | {"OPTIONS"}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def at_once(
    request: Request, caller: Caller, answer: Callable[[JSON], JSON | None], max_bytes: int, max_depth: int
) -> Response | None:
    """What ``respond`` gives to a call that ``answer`` has the reply to (``rpc.at_once``); None: ask ``respond``.

    It is the short cut of clients that poll, and of calls that bring nothing to be looked at: no token, no page.
    """
    plain = request.method == "POST" and request.path == JSONRPC and len(request.body) <= SHORT
    if not plain or caller.proxy or any(name in _LOOKED_AT for name, _ in request.headers):
        return None
    reply = answer(sole(request.body, max_bytes, max_depth))
    return None if reply is None else _json(reply)


def _subtask_of(request: Request) -> str:
    return request.header("subtask-of") or ""


async def _faced(
    face: Face, name: str, answer: Callable[[Asked], Awaitable[Reply]], request: Request, site: Site
) -> Response:
    """The answer of a dialect with paths of its own, errors in its own shape; its calls are told apart by method
    and path.
    """
    began = perf_counter()
    language = request.header("language") or ""
    id = unquote(request.path.rpartition("/")[2], errors="replace")
    try:
        asked = Asked(site.service, site.known, _fields(request.query), request.body, id, language)
        site.service.allow(asked.caller, "")
        reply = await answer(asked)
    except TaskdError as error:
        site.service.metrics.refused(error)
        reply = face.refuse(error, language)
    except Exception:
        logger.exception("%s failed", name)
        reply = face.refuse(InternalError(), language)
    finally:
        site.service.metrics.request(face.name, name, perf_counter() - began)
    return Response(reply.status, orjson.dumps(reply.body, option=orjson.OPT_APPEND_NEWLINE), FACE_TYPE)


def _fields(query: str) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(parse_qsl(query, keep_blank_values=True, max_num_fields=FIELDS, errors="replace"))
    except ValueError:
        raise BadParams("query", f"has more than {FIELDS} fields") from None


async def _jsonrpc(request: Request, site: Site) -> Response:
    caller = site.known
    message = sole(request.body, site.max_bytes, site.max_depth)
    reply = await site.answer(caller, message, _subtask_of(request))
    return Response(204) if reply is None else _json(reply)


async def _xmlrpc(request: Request, site: Site) -> Response:
    caller = site.known
    read, turns = partial(xml.read, request.body, site.max_depth), site.service.turns
    try:
        call = read() if len(request.body) <= AT_ONCE else await turns.in_thread(caller, read)
    except WireError as error:
        site.service.metrics.refused(error)
        return Response(200, xml.fault(error), XML_TYPE)
    write = xml.bare if call.method.replace("_", ".").lower() == "system.listmethods" else xml.success
    try:
        value = await site.call(caller, call.method, call.args, _subtask_of(request))
        # Whole tables of records can be in it; what is short need not wait for somebody else's.
        size = len(orjson.dumps(value, default=repr))
        with site.service.unread.held(caller.user, size):
            body = await turns.in_thread(caller, partial(write, value)) if size > AT_ONCE else write(value)
    except XenApiError as error:
        site.service.metrics.refused(error)
        body = xml.failure(error)
    except TypeError:
        logger.exception("the result of %s cannot be said in XML", call.method)
        body = xml.failure(XenApiError("INTERNAL_ERROR", (str(InternalError()),)))
    return Response(200, body, XML_TYPE)


async def _health(request: Request, site: Site) -> Response:
    registry, health = site.service.registry, site.service.health
    fault = await health.fault()
    said = {
        "status": "ok" if fault is None else "degraded",
        "version": __version__,
        "revision": registry.revision,
        "unfinished_tasks": len(registry),
        "store_writable": fault is None,
        "loop_lag_s": round(health.loop_lag_s, 3),
        "recovering": health.recovering,
    }
    return attrs.evolve(_json(said), status=200 if fault is None else 503)


async def _metrics(request: Request, site: Site) -> Response:
    """For whoever may connect: there are numbers in it, and no names. Through a proxy a token is wanted."""
    _ = site.known
    return Response(200, await site.service.health.text(), metrics.TYPE)


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


PATHS: Final[Paths] = {
    "/": {"POST": _xmlrpc},
    "/RPC2": {"POST": _xmlrpc},
    JSONRPC: {"POST": _jsonrpc},
    "/healthz": {"GET": _health},
    "/metrics": {"GET": _metrics},
    "/openrpc.json": {"GET": _openrpc},
}
