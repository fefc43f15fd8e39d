"""What is fuzzed: a table of functions that take any bytes and raise where taskd did wrong.

They are the oracles: however bytes are cut, the messages are the same; nothing is kept beyond its bound; a reply
is what its framing says; nothing is raised but our own errors; nothing is logged as a fault. ``fuzz`` runs them.
"""

from __future__ import annotations

import logging
import re
import time
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, Final

import attrs
import h11
import orjson
import trio
import trio.testing

from taskd import config, dialects, errors, rpc, web, wire
from taskd.connection import Connection, Limits, Rest
from taskd.connection.context import Calls
from taskd.dialects import koodrive, ucloud
from taskd.dialects.xenapi import XenApi, where
from taskd.errors import ConfigError, WireError, XenApiError
from taskd.model import JSON, Failure, Task, Time
from taskd.operations import external
from taskd.rpc import xml
from taskd.service import Service
from taskd.states import State
from taskd.store.memory import MemoryStore
from taskd.wire import http
from tests.bench import running, user
from tests.proof import damage
from tests.wire.websocket import ASKING, granting, opened

Target = Callable[[bytes], None]

# Bytes that a framing may keep beyond the longest message: its longest head, and what a read may bring in one go.
BEYOND: Final = 2 * http.HEAD_BYTES

_KEPT: Final = ("_buffer", "_first", "_body", "_behind", "_text")


# Framings.


def _limits(data: bytes) -> tuple[int, int, int, bytes]:
    """Where to cut, the most bytes and brackets of a message, told by the first bytes; and the rest."""
    first, rest = data[:2].ljust(2, b"\0"), data[2:]
    return first[0], (16, 64, 300, 4096)[first[1] & 3], (2, 8, 50, 100)[first[1] >> 2 & 3], rest


def _pieces(how: int, data: bytes) -> list[bytes]:
    """Byte by byte what is short, or cut at some places; told by a byte."""
    if how % 4 == 0 and len(data) <= 64:
        return [data[at : at + 1] for at in range(len(data))]
    places = sorted({0, len(data), *(how * step * 37 % (len(data) or 1) for step in range(1, 2 + how % 5))})
    return [data[start:end] for start, end in pairwise(places)]


def _shown(messages: Sequence[object]) -> list[tuple[str, str]]:
    return [(type(each).__name__, str(each)) for each in messages]


def _bounded(framing: object, most: int) -> None:
    inner = getattr(framing, "_chosen", None) or framing
    kept = sum(len(getattr(inner, name, b"")) for name in _KEPT)
    assert kept <= most + BEYOND, f"{inner!r} keeps {kept} bytes"


def _read(framing: Any, pieces: Sequence[bytes], most: int) -> list[object]:
    found: list[object] = []
    for piece in [*pieces, b""]:
        for message in framing.receive(piece):
            found.append(message)
            if isinstance(message, wire.Response):
                framing.reply(message)
            elif isinstance(message, wire.Request):
                framing.reply(wire.Response(404))
        _bounded(framing, most)
    return found


def _framed(make: Callable[[int, int], Any], read: Callable[..., list[object]] = _read) -> Target:
    """However it is cut, it is the same, and as much as could be sent."""

    def target(data: bytes) -> None:
        how, most, depth, rest = _limits(data)
        whole, cut = make(most, depth), make(most, depth)
        messages = read(whole, [rest] if rest else [], most)
        assert _shown(messages) == _shown(read(cut, _pieces(how, rest), most)), "it depends on the cut"
        assert (whole.broken, whole.partial) == (cut.broken, cut.partial)
        assert len(messages) <= len(rest) + 1

    return target


def _granted(framing: wire.Opening, pieces: Sequence[bytes], most: int) -> list[object]:
    found = granting(framing, pieces)
    _bounded(framing, most)
    return found


# The envelopes.


class _Rows:
    """Methods whose params stand in a row, as XenAPI's."""

    def answers(self, method: str, args: Sequence[JSON]) -> bool:
        return method[:1].islower()

    async def call(self, context: Any, method: str, args: Sequence[JSON], /, *, subtask_of: str = "") -> JSON:
        if method == "row.echo":
            return [*args]
        raise XenApiError("MESSAGE_METHOD_UNKNOWN", (method,))


async def _echo(context: object, /, **params: JSON) -> JSON:
    return params


async def _no(context: object, /, **params: JSON) -> JSON:
    raise errors.DoesNotExist("task", str(params.get("id")))


def envelope(data: bytes) -> None:
    """Any value is answered as the envelope that it is in says, or not at all."""
    message = wire.sole(data, 4096, 50)
    members = message if isinstance(message, list) else [message]
    asked = [member.get("id") for member in members if isinstance(member, dict)]
    answer = partial(
        rpc.answer,
        message,
        {"Echo": _echo, "No": _no},
        None,
        max_batch=50,
        max_reply_bytes=2000,
        positional=_Rows(),
    )
    quick = rpc.at_once(message, {"Echo": lambda _, params: params}, None)
    with _faultless():
        reply = trio.run(answer) if isinstance(message, list) else _driven(answer())
    assert quick in (None, reply), "the short cut answers otherwise"
    if reply is None:
        return
    orjson.dumps(reply)
    replies = reply if isinstance(reply, list) else [reply]
    assert len(replies) <= max(1, len(members))
    for each in replies:
        assert isinstance(each, dict)
        if each.get("jsonrpc") == "2.0":
            assert ("result" in each) != ("error" in each)
        else:
            assert {*each} == {"result", "error", "id"}
        assert each["id"] is None or each["id"] in asked


def _driven(coroutine: Any) -> Any:
    """What a coroutine gives that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def xml_call(data: bytes) -> None:
    """Any document is a call or a WireError; what it says can be said back, and reads the same."""
    try:
        call = xml.read(data, 20)
    except WireError as error:
        xmlrpc_fault(xml.fault(error))
        return
    reply = xml.success([*call.args])
    (said,), _ = xmlrpc.client.loads(reply.decode())
    assert isinstance(said, dict)
    assert len(said["Value"]) == len(call.args)
    again = xmlrpc.client.dumps((said,), methodresponse=True, allow_none=True)
    assert xmlrpc.client.loads(again)[0] == (said,)


def xmlrpc_fault(reply: bytes) -> None:
    try:
        xmlrpc.client.loads(reply.decode())
    except xmlrpc.client.Fault:
        return
    raise AssertionError("it is no fault")


# Texts.

_RECORD: Final[Mapping[str, JSON]] = {
    "uuid": "1-2",
    "name_label": "a 'quoted' \"label\"",
    "progress": 0.5,
    "is_it": True,
    "other_config": {"a": "b", "c": ""},
    "allowed_operations": ["cancel", "destroy"],
}


def get_all_where(data: bytes) -> None:
    """A text is an expression or INVALID_VALUE; in brackets it means the same, and denied the opposite."""
    text = data.decode(errors="surrogateescape")
    test = _expression(text)
    if isinstance(test, XenApiError):
        assert test.name == "INVALID_VALUE"
        return
    holds = test(_RECORD)
    assert holds in (True, False)
    assert holds is test(where.Texts(_RECORD))
    for around, same in (("({})", True), ("not({})", False)):
        other = _expression(around.replace("{}", text))
        if isinstance(other, XenApiError):
            assert re.search("deeper|longer", str(other.data))
        else:
            assert (other(_RECORD) is holds) is same


def _expression(text: str) -> where.Test | XenApiError:
    try:
        return where.parse(text, _RECORD)
    except XenApiError as error:
        return error


def settings(data: bytes) -> None:
    """Any file, and behind a NUL any environment, is settings that stand, or a ConfigError that names where."""
    text, _, rest = data.partition(b"\0")
    path = damage.scratch() / "taskd.toml"
    path.write_bytes(text)
    lines = rest.decode(errors="surrogateescape").replace("\0", "").split("\n")
    environment = {f"TASKD_{name.upper()}": value for name, _, value in (line.partition("=") for line in lines)}
    environment.pop("TASKD_CONFIG", None)
    try:
        found = config.load(str(path), environment)
    except ConfigError:
        return
    assert all(number > 0 for number in found.operation_limits.values())
    for name, field in attrs.fields_dict(config.Config).items():
        least, most, value = field.metadata["least"], field.metadata["most"], getattr(found, name)
        assert least is None or value >= least
        assert most is None or value <= most
    int(found.socket_mode, 8)


# Whole conversations, with a real service.

_ID: Final = "00000000-0000-4000-8000-00000000000{}"
_STATES: Final = (State.RUNNING, State.COMPLETED, State.FAILED, State.CANCELLED)


def _task(number: int, state: State) -> Task:
    return Task(
        id=_ID.format(number),
        operation="external",
        params={"heartbeat_s": None},
        owner="ann",
        processor="ann",
        resident_on="host",
        created_at=Time(1_700_000_000.0),
        label=f"number {number}",
        state=state,
        attempt=1,
        started_at=Time(1_700_000_001.0),
        finished_at=Time(1_700_000_002.0) if state.ended else None,
        error=Failure("ENOSPC", "no space", ("/srv",)) if state is State.FAILED else None,
    )


class _Faults(logging.Handler):
    """Keeps what is logged as a fault of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@contextmanager
def _faultless() -> Iterator[None]:
    """In here nothing is logged as a fault."""
    faults, logger = _Faults(), logging.getLogger("taskd")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(faults)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(faults)
        logger.setLevel(level)
        logger.propagate = propagate
    assert not faults.found, faults.found[0]


ANN: Final = user("ann", 1000)


async def _until_quiet(scope: trio.CancelScope, service: Service) -> None:
    """Cancel the scope when everybody waits for something that does not come: who asked may go away."""
    threads = (trio.to_thread.current_default_thread_limiter(), service.health._telling)
    own = trio.CapacityLimiter(1)
    while True:
        await trio.testing.wait_all_tasks_blocked()
        if not any(each.borrowed_tokens for each in threads):
            return scope.cancel()
        await trio.to_thread.run_sync(time.sleep, 0.0002, limiter=own)


async def _asked(data: bytes) -> bytes:
    """All that a daemon with some tasks says to who sends this, and goes away when nothing comes any more."""
    store = MemoryStore()
    for number, state in enumerate(_STATES, 1):
        await store.create(_task(number, state))
    said = bytearray()
    ours, theirs = trio.socket.socketpair()
    async with running(store, {"external": external.OPERATION}, str(damage.scratch() / "workspace")) as service:
        connection = Connection(
            trio.SocketStream(theirs),
            ANN,
            service,
            Calls(dialects.table(), service),
            XenApi(service),
            web.paths(ucloud.FACE, koodrive.face("table")),
            Rest(),
            Limits(max_message_bytes=4096, max_depth=50, max_batch=20, max_reply_bytes=65536),
        )
        async with trio.open_nursery() as nursery, trio.SocketStream(ours) as stream:
            nursery.start_soon(connection.serve)
            nursery.start_soon(_sent, stream, data)
            with trio.CancelScope() as staying:
                nursery.start_soon(_until_quiet, staying, service)
                while piece := await stream.receive_some():
                    said += piece
            connection.stop()
            await stream.aclose()
    return bytes(said)


async def _sent(stream: trio.SocketStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
        await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it was refused before all was sent


def _conversed(data: bytes) -> bytes:
    with _faultless():
        return trio.run(_asked, data, clock=trio.testing.MockClock())


def conversation(data: bytes) -> None:
    """Any bytes on a connection: what comes back is the framing's, and nothing is our fault."""
    said = _conversed(data)
    if not said:
        return
    if said.startswith(b"HTTP/"):
        _is_http(said, data)
    elif said.lower().startswith(b"content-length"):
        _is_framed(said, wire.headers(1 << 20))
    elif said[:16].isdigit():
        _is_framed(said, wire.prefixed(1 << 20))
    else:
        _is_framed(said, wire.JsonStream(1 << 20))


def _is_framed(said: bytes, framing: Any) -> None:
    replies = framing.receive(said)
    assert replies
    for reply in replies:
        assert isinstance(reply, dict | list), reply


def _is_http(said: bytes, asked: bytes) -> None:
    """Responses that a foreign client reads to the end; their bodies are what their types say."""
    if b" 101 " in said or b"HEAD" in asked or b"CONNECT" in asked:
        return
    while said:
        client, body, kind = h11.Connection(h11.CLIENT), bytearray(), b""
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "taskd")]))
        client.send(h11.EndOfMessage())
        client.receive_data(said)
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, "a response has no end"
            if isinstance(event, h11.Response):
                kind = dict(event.headers).get(b"content-type", b"")
            elif isinstance(event, h11.Data):
                body += event.data
        if kind.startswith(b"application/json"):
            orjson.loads(body)
        elif kind == b"text/xml":
            _is_xml(bytes(body))
        said = client.trailing_data[0]


def _is_xml(body: bytes) -> None:
    try:
        xmlrpc.client.loads(body.decode())
    except xmlrpc.client.Fault:
        pass


_NO_TARGET: Final = re.compile(rb"[^\x21-\x7e]")

# What may wait for ever.
_WAITING: Final = re.compile(rb"wait|event|recover|\\u", re.IGNORECASE)


def routes(data: bytes) -> None:
    """A request whose envelope is right: a line with method, path and query, then the body."""
    line, _, body = data.partition(b"\n")
    method, _, target = line.partition(b" ")
    method = method if method in http.METHODS and method != b"CONNECT" else b"POST"
    target = b"/" + _NO_TARGET.sub(b"", target).lstrip(b"/")
    head = b"%b %b HTTP/1.1\r\nHost: taskd\r\nlanguage: zh\r\nContent-Length: %d\r\n\r\n"
    request = head % (method, target[:2000], len(body)) + body
    said = _conversed(request)
    assert said.startswith(b"HTTP/1.1 ") or _WAITING.search(body), said
    _is_http(said, method)


@attrs.frozen
class Fuzzed:
    """A row: ``part`` of all executions are its. ``seeds`` are where it begins when no corpus is kept."""

    run: Target
    part: int
    seeds: Sequence[bytes] = ()
    longest: int = 400


def _json(method: str, params: JSON, id: JSON = 1) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": id}) + b"\n"


def _calls() -> Iterator[bytes]:
    """A call of each method, with each of its fields."""
    for method in dialects.table().values():
        fields = {
            field.metadata.get("json", field.name): _ID.format(1) if field.name == "id" else 1
            for field in attrs.fields(method.params)
        }
        yield _json(method.name, fields)
        yield _json(method.name, {name: value for name, value in fields.items() if name == "id"})


_XML: Final = (
    b"<?xml version='1.0'?><methodCall><methodName>task.get_all_records_where</methodName><params>"
    b"<param><value><string>OpaqueRef:1</string></value></param><param><value><array><data><value><i4>3</i4></value>"
    b"<value><double>0.5</double></value><value><boolean>1</boolean></value></data></array></value></param>"
    b"<param><value><struct><member><name>a</name><value><dateTime.iso8601>20260101T00:00:00Z</dateTime.iso8601>"
    b"</value></member></struct></value></param></params></methodCall>"
)
_LOGIN: Final = xmlrpc.client.dumps(("root", "x"), "session.login_with_password").encode()


def _requests() -> Iterator[bytes]:
    for path, methods in web.paths(ucloud.FACE, koodrive.face("table")).items():
        for method in methods:
            body = b"\n" + (_LOGIN if path in ("/", "/RPC2") else b"{}")
            yield f"{method} {path.replace('{id}', _ID.format(1))}?id=1&page=0&pageSize=2".encode() + body
    for call in _calls():
        yield b"POST /jsonrpc\n" + call
    yield b'PUT /api/tasks\n{"title":"a","owner":"ann","initialStatus":"b"}'
    yield b'POST /koodrive/ose/v1/task/create\n{"taskType":1,"srcUserId":"a","dstUserId":"b"}'


_STREAM: Final = (
    b'\x05\x0e{"a": [1, 2.5, "b\\"}", null]} [true]\n"x"\n!\n',
    b"\x01\x0f[[[[]]]]{",
    b"\0\0" + b"[" * 20,
)
_WHERE: Final = (
    b'field "name__label" = "a" and (not field "progress" = "0.5" or true)',
    b"'a' = \"b\" or not false and true",
    b"field \"other_config\" = \"(('a' 'b'))\"",
)
_HTTP: Final = (
    b"\x05\x0fPOST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x05\x0fPOST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"\x05\x0f" + ASKING,
)
_FRAMES: Final = (
    b"\x05\x0f\x81\x82\x12\x34\x56\x78\x69\x49",
    b"\x05\x0f\x01\x81\x12\x34\x56\x78\x69\x89\x80\x12\x34\x56\x78\x80\x81\x12\x34\x56\x78\x6f",
    b"\x05\x0f\x88\x82\x12\x34\x56\x78\x11\xdc",
)
_TOML: Final = (
    b'admins = ["root", "%storage"]\nrunning_per_operation = ["copy=4"]\nmax_depth = 100\nlog_level = "debug"\n',
    b'socket = "/run/s"\nstate = "/s"\nsocket_mode = "0660"\n\0stop_grace_s=1.5\nroots=/srv,/a\nmax_batch=5',
)

_SIZED: Final = b'Content-Length: 8\r\n\r\n{"a": 1}Content-Length: 2\r\nX: y\r\n\r\n[]'
_PREFIXED: Final = b'0000000000000008{"a": 1}0000000000000002[]'

TARGETS: Final[Mapping[str, Fuzzed]] = {
    "json stream": Fuzzed(_framed(wire.JsonStream), 180, _STREAM),
    "headers": Fuzzed(_framed(wire.headers), 140, (b"\x05\x0f" + _SIZED,)),
    "16 digits": Fuzzed(_framed(wire.prefixed), 140, (b"\x05\x0f" + _PREFIXED,)),
    "http": Fuzzed(_framed(lambda most, _: wire.Http(most)), 6, _HTTP),
    "websocket": Fuzzed(_framed(opened), 3, _FRAMES),
    "first bytes": Fuzzed(
        _framed(wire.Opening, _granted), 30, (*_STREAM, *_HTTP, b"\x05\x0f" + _SIZED, b"\x05\x0f" + _PREFIXED)
    ),
    "json-rpc": Fuzzed(
        envelope,
        100,
        (
            _json("Echo", {"a": 1}),
            b'{"method": "row.echo", "params": ["a", {}], "id": "x"}',
            b'[{"method": "No", "params": [{"id": "a"}], "id": null}, 1, {"jsonrpc": "2.0", "method": "Echo"}]',
        ),
    ),
    "xml-rpc": Fuzzed(xml_call, 80, (_XML, _LOGIN)),
    "get_all_where": Fuzzed(get_all_where, 300, _WHERE),
    "settings": Fuzzed(settings, 20, _TOML),
    "routes": Fuzzed(routes, 1, tuple(_requests())),
    "conversation": Fuzzed(
        conversation,
        1,
        (
            *_calls(),
            _SIZED,
            _PREFIXED,
            *(each[2:] for each in (*_STREAM, *_HTTP)),
            ASKING + b"\x81\x82\x12\x34\x56\x78\x69\x49",
        ),
    ),
    "database": Fuzzed(damage.database, 1, damage.SEEDS, longest=64),
}


def words() -> Sequence[str]:
    """What a fuzzer does not guess: names of methods, of fields and of paths, and the like."""
    found = {
        *dialects.table(),
        *web.paths(ucloud.FACE, koodrive.face("table")),
        _ID.format(1),
        *attrs.fields_dict(config.Config),
    }
    for method in dialects.table().values():
        found |= {field.metadata.get("json", field.name) for field in attrs.fields(method.params)}
    found |= {"true", "false", "field", "and", "or", "not", "null", "jsonrpc", "2.0", "method", "params", "id"}
    found |= {"Content-Length: ", "Transfer-Encoding: chunked", "Expect: 100-continue", "methodCall", "OpaqueRef:"}
    return sorted(found)
