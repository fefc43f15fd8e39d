"""HTTP/1.1 on h11: bytes in, requests out; a response for each, in their order.

A message is a ``Request``, whole, or a ``Response`` that the framing gives of itself and that is to be sent in
its turn: ``100 Continue``, and the refusal of what is no request (400), too long (413, 431) or too late (408),
after which nothing more is read. h11 reads no request before the last one is answered; here each request has an
h11 connection of its own, so that pipelined requests come out however the bytes are cut and whether or not
anything has been answered.

h11 takes several times as long for a call as all else that is done to answer it. So a request that needs none of
the corners of the grammar, as nearly every call is, is cut by one pattern (``_plain``), and a 200 to it is written
here, as h11 would; whatever is not quite so, and every refusal, is h11's.

After a request for a WebSocket (``Request.websocket``) nothing is read as HTTP. What comes behind it is kept, as
much as a WebSocket could hold unread, until it is granted (``asked``) or answered; an answer closes the
connection, since the peer may have spoken on as if it were granted. A handshake that is wrong is refused here
(400, 426).

``Host`` must be there and may be anything: XenAPI's Python client sends its socket's path with ``_`` for ``/``
(xen-api, python3/examples/XenAPI/XenAPI.py). HTTP/1.0 is served, one request a connection.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import attrs
import h11

from taskd.wire import handshake
from taskd.wire.json_stream import MAX_BYTES, Message

# Bytes that the request line and the headers, or the head of a chunk, may have.
HEAD_BYTES: Final = 16384

# The words of RFC 9110 and 5789 that a request can start with.
METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH")

TEXT: Final = "text/plain; charset=utf-8"

# h11 quotes what it did not understand; what was sent is nobody's to repeat.
_QUOTE = re.compile(r""":? (?:bytearray\()?b['"].*""", re.DOTALL)


@attrs.frozen
class Request:
    """A request with its whole body. ``path`` and ``query`` are as sent; names of headers are in lower case.

    ``websocket``: it asks for a WebSocket, in a handshake that is right (RFC 6455, section 4).
    """

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    websocket: bool = False

    def header(self, name: str) -> str | None:
        """The value of the first header of that name (lower case)."""
        return next((value for key, value in self.headers if key == name), None)


@attrs.frozen
class Response:
    """The answer to a request; ``headers`` beside Content-Type and Content-Length, which are made."""

    status: int
    body: bytes = b""
    type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


def sentence(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """A response that is a line for a person to read."""
    return Response(status, f"{text}\n".encode(), TEXT, headers)


def _cycle() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)


def _closes(head: h11.Request) -> bool:
    """The connection ends with the answer to it, as h11 has it; which does not say so of one that asks for an
    upgrade, be it to nothing that we know.
    """
    said = b",".join(value for name, value in head.headers if name == b"connection").lower()
    return head.http_version < b"1.1" or b"close" in {each.strip() for each in said.split(b",")}


# Bytes that the head of a plain request may have.
_PLAIN_BYTES: Final = 4096

# No target but a path; no value that is empty, padded or folded; ASCII, and CR LF.
_PLAIN: Final = re.compile(
    rb"POST (/[!->@-~]*+)(?:\?([!-~]*+))? HTTP/1\.1\r\n((?:[0-9A-Za-z-]++: [!-~][ -~]*+(?<! )\r\n)++)\r\n"
)

# The headers that say how a stream is cut, and what becomes of it; this one says what is so without it.
_MEANT: Final = frozenset({"connection", "content-length", "expect", "host", "transfer-encoding", "upgrade"})
_KEPT: Final = ("connection", "keep-alive")


def _plain(data: bytes, max_bytes: int) -> tuple[Request, int] | None:
    """The plain request in front of ``data``, and where it ends; None: h11 must look.

    It is a POST of HTTP/1.1 that is here as a whole. Of what is ``_MEANT`` for the stream it says its host and its
    length, once each, and no more.
    """
    match = _PLAIN.match(data, 0, _PLAIN_BYTES)
    if match is None:
        return None
    path, query, lines = (part.decode("ascii") for part in match.groups(b""))
    pairs = (line.partition(": ") for line in lines.splitlines())
    headers = tuple((name.lower(), value) for name, _, value in pairs)
    meant = sorted(each for each in headers if each[0] in _MEANT and each != _KEPT)
    if [name for name, _ in meant] != ["content-length", "host"]:
        return None
    length = meant[0][1]
    if not length.isdecimal() or len(length) > 18 or int(length) > max_bytes:
        return None
    start, end = match.end(), match.end() + int(length)
    return (Request("POST", path, query, headers, data[start:end]), end) if end <= len(data) else None


def _plain_cycle() -> h11.Connection:
    """h11 that has read a plain request, for an answer that is not plain: to it they are all alike."""
    cycle = _cycle()
    cycle.receive_data(b"POST / HTTP/1.1\r\nHost: plain\r\n\r\n")
    while cycle.next_event() is not h11.NEED_DATA:
        pass
    return cycle


@attrs.define(eq=False, repr=False)
class Http:
    """One peer's bytes in, requests out; a body may be ``max_bytes`` long.

    ``broken`` says that nothing can be read after this: answer what has come, then close.
    """

    max_bytes: int = MAX_BYTES
    broken: bool = attrs.field(default=False, init=False)
    # More came behind the request for a WebSocket than is kept; so it is broken, and the rest is lost.
    overrun: bool = attrs.field(default=False, init=False)
    _cycle: h11.Connection = attrs.field(factory=_cycle, init=False)
    # What is being read: its head, when that has come, and as much of its body as there is.
    _head: h11.Request | None = attrs.field(default=None, init=False)
    _body: bytearray = attrs.field(factory=bytearray, init=False)
    # For each its h11 connection, None where it is plain, and its method.
    _unanswered: deque[tuple[h11.Connection | None, bytes]] = attrs.field(factory=deque, init=False)
    _found: list[Message] = attrs.field(factory=list, init=False)
    # The request for a WebSocket, and what has come behind it.
    _asked: Request | None = attrs.field(default=None, init=False)
    _behind: bytearray = attrs.field(factory=bytearray, init=False)

    def __repr__(self) -> str:
        return f"<Http {'broken' if self.broken else f'{len(self._unanswered)} unanswered'}>"

    @property
    def partial(self) -> bool:
        """Whether a request has begun and waits for its end."""
        return not self.broken and (self._head is not None or bool(self._cycle.trailing_data[0]))

    def receive(self, data: bytes | bytearray) -> list[Message]:
        """The requests that ``data`` completes; ``b""`` says that the peer sends no more. Never raises."""
        if not self.broken:
            try:
                if self._asked is None:
                    self._read(bytes(data))
                else:
                    self._keep(bytes(data))
            except h11.RemoteProtocolError as error:
                if data:
                    self._refuse(error.error_status_hint, _QUOTE.sub("", str(error)))
                else:
                    self._refuse(400, "the stream ended in the middle of a request")
        found, self._found = self._found, []
        return found

    def reply(self, value: object) -> bytes:
        """A ``Response`` as the peer reads it: to the first request that has none yet.

        Raises:
            TypeError: it is something else.
        """
        if not isinstance(value, Response):
            raise TypeError(f"{type(value).__name__} is no Response")
        cycle, method = self._unanswered[0]
        if cycle is None:
            if value.status == 200 and not value.headers:
                self._unanswered.popleft()
                head = f"Content-Type: {value.type}\r\nContent-Length: {len(value.body)}\r\n\r\n"
                return b"HTTP/1.1 200 OK\r\n" + head.encode("ascii") + value.body
            cycle = _plain_cycle()
            self._unanswered[0] = cycle, method
        reason = HTTPStatus(value.status).phrase
        headers = list(value.headers)
        if value.status < 200:
            return cycle.send(h11.InformationalResponse(status_code=value.status, headers=headers, reason=reason))
        self._unanswered.popleft()
        if self._asked is not None and not self._unanswered:
            headers.append(("Connection", "close"))
        if value.status != 204:
            headers += [("Content-Type", value.type), ("Content-Length", str(len(value.body)))]
        data = cycle.send(h11.Response(status_code=value.status, headers=headers, reason=reason))
        if value.body and method != b"HEAD":
            data += cycle.send(h11.Data(data=value.body))
        data += cycle.send(h11.EndOfMessage())
        if cycle.our_state is not h11.DONE:  # it said, or was told, that the connection closes
            self.broken = True
        return data

    def timed_out(self, reason: str) -> Message:
        """What is to be said when the rest of a request did not come in time; nothing is read after it."""
        self._refuse(408, reason)
        return self._found.pop()

    def asked(self) -> tuple[Request, bytes] | None:
        """The request for a WebSocket and what has come behind it, if the next answer is the one to it."""
        if self._asked is None or len(self._unanswered) != 1:
            return None
        return self._asked, bytes(self._behind)

    def _read(self, rest: bytes) -> None:
        if not rest:
            self._cycle.receive_data(b"")
        while not self.broken and self._asked is None:
            if rest and not self.partial and (plain := _plain(rest, self.max_bytes)) is not None:
                request, end = plain
                self._found.append(request)
                self._unanswered.append((None, b"POST"))
                rest = rest[end:]
                continue
            event = self._cycle.next_event()
            if event is not h11.NEED_DATA:
                rest = self._take(event, rest)
            elif not rest:
                break
            else:
                rest = self._feed(rest)
        if rest and self._asked is not None:
            self._keep(rest)

    def _keep(self, data: bytes) -> None:
        room = self.max_bytes + handshake.FRAME_HEAD - len(self._behind)
        self._behind += data[:room]
        self.overrun = len(data) > room
        self.broken = self.overrun or not data

    def _feed(self, rest: bytes) -> bytes:
        """Give h11 as much as it may hold without an end of what it reads: so its limit is the same in any cut."""
        if not self.partial:
            rest = rest.lstrip(b"\r\n")  # RFC 9112, 2.2: some send a line break after a body
        room = HEAD_BYTES + 1 - len(self._cycle.trailing_data[0])
        if rest:
            self._cycle.receive_data(rest[:room])
        return rest[room:]

    def _take(self, event: object, rest: bytes) -> bytes:
        match event:
            case h11.Request():
                self._begin(event)
            case h11.Data():
                self._body += event.data
                if len(self._body) > self.max_bytes:
                    self._too_long()
            case h11.EndOfMessage():
                rest = self._cycle.trailing_data[0] + rest
                self._end()
            case _:  # ConnectionClosed; after the end of a request there is a new cycle, so that h11 never pauses
                self.broken = True
        return rest

    def _begin(self, head: h11.Request) -> None:
        self._head = head
        self._unanswered.append((self._cycle, head.method))
        length = next((int(value) for name, value in head.headers if name == b"content-length"), 0)
        if not head.http_version.startswith(b"1."):
            self._refuse(505, "the version must be HTTP/1.1 or HTTP/1.0")
        elif {b"content-length", b"transfer-encoding"} <= {name for name, _ in head.headers}:
            # Whoever stands before us may cut the stream by the other one (RFC 9112, 6.3).
            self._refuse(400, "Content-Length and Transfer-Encoding exclude each other")
        elif length > self.max_bytes:
            self._too_long()
        elif handshake.asks(head) and (fault := handshake.fault(head)) is not None:
            self._refuse(*fault)
        elif self._cycle.they_are_waiting_for_100_continue:
            self._found.append(Response(100))

    def _end(self) -> None:
        assert self._head is not None
        target = self._head.target.decode("ascii")
        if not target.startswith("/") and "://" in target:  # the absolute form, RFC 9112, 3.2.2
            target = "/" + target.partition("://")[2].partition("/")[2]
        path, _, query = target.partition("?")
        headers = tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in self._head.headers)
        websocket = handshake.asks(self._head)
        request = Request(self._head.method.decode("ascii"), path, query, headers, bytes(self._body), websocket)
        self._found.append(request)
        self._asked = request if websocket else None
        self.broken = not websocket and _closes(self._head)
        self._cycle, self._head, self._body = _cycle(), None, bytearray()

    def _too_long(self) -> None:
        self._refuse(413, f"a body is longer than {self.max_bytes} bytes")

    def _refuse(self, status: int, reason: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        if self._head is None:
            self._unanswered.append((self._cycle, b""))
        self._found.append(sentence(status, reason, ("Connection", "close"), *headers))
        self.broken = True
