"""Framings cut the bytes of a stream into messages, and make bytes of replies. Sans-IO: no stream, no clock.

``receive`` gives the same messages however the bytes are cut, and never raises. A message of a JSON framing is a
parsed value or, in the place of one, the ``WireError`` that says what was wrong with it; one of HTTP is a
``Request``, or a ``Response`` that is to be sent as it is; one of a WebSocket is a value, a ``WireError`` or a
``Control`` that is to be sent as it is. What becomes of a message, and how long a peer may
take, is the connection's affair.

Which framing a peer speaks, its first bytes tell (``Opening``): the word of an HTTP method and a space,
``Content-Length:``, sixteen digits; whatever else is text is a JSON stream. What no framing can start with, a TLS
hello or a NUL, is not answered at all. A WebSocket starts as HTTP, and is one once its request is granted
(``Opening.upgrade``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import attrs

from taskd.wire.headers import headers
from taskd.wire.http import METHODS, Http, Request, Response, sentence
from taskd.wire.json_stream import MAX_BYTES, MAX_DEPTH, JsonStream, Message, sole
from taskd.wire.prefixed import DIGITS, prefixed
from taskd.wire.websocket import Control, WebSocket

__all__ = [
    "MAX_BYTES", "MAX_DEPTH", "Control", "Framing", "Http", "JsonStream", "Message", "Opening", "Request",
    "Response", "WebSocket", "choose", "headers", "prefixed", "sentence", "sole",
]  # fmt: skip


class Framing(Protocol):
    """One peer's stream.

    ``broken``: nothing can be read after this; answer what has come, then close. ``partial``: a message has
    begun and waits for its end.
    """

    @property
    def broken(self) -> bool: ...

    @property
    def partial(self) -> bool: ...

    def receive(self, data: bytes | bytearray) -> list[Message]:
        """The messages that ``data`` completes; ``b""`` says that the peer sends no more. Never raises."""

    def reply(self, value: object) -> bytes:
        """``value`` as the peer reads it.

        Raises:
            TypeError: it is nothing that this framing can say.
        """

    def timed_out(self, reason: str) -> Message:
        """The message that says so when the rest of one did not come in time; the framing is broken after it."""


# What no text starts with, and no framing: the control characters but tab and line breaks.
_FOREIGN: Final = frozenset(range(0x20)) - frozenset(b"\t\r\n") | {0x7F}

_WORDS: Final = tuple(method + b" " for method in METHODS)
_NAMES: Final = (b"content-length:", b"content-type:")
_DIGITS: Final = re.compile(rb"[0-9]+")


def choose(first: bytes, *, more: bool) -> Callable[[int, int], Framing] | None:
    """What makes the framing that the ``first`` bytes ask for, given the most bytes and brackets of a message.

    None while they can still become one of several; not so when there is no ``more`` to come.
    """
    digits = _DIGITS.match(first)
    if first.startswith(_WORDS):
        return lambda max_bytes, _max_depth: Http(max_bytes)
    if first.lower().startswith(_NAMES):
        return headers
    if digits and digits.end() >= DIGITS:
        return prefixed
    if more and (_may_become(first, _WORDS) or _may_become(first.lower(), _NAMES)):
        return None
    if more and (not first or (digits and digits.end() == len(first))):
        return None
    return JsonStream


def _may_become(first: bytes, starts: Iterable[bytes]) -> bool:
    return any(start.startswith(first) for start in starts)


@attrs.define(eq=False, repr=False)
class Opening:
    """A stream whose framing is told by its first bytes, and which is that framing from then on.

    Until then it is a JSON stream in what it says. A stream that nobody here can read is ``broken`` and has no
    messages.
    """

    max_bytes: int = MAX_BYTES
    max_depth: int = MAX_DEPTH
    _first: bytearray = attrs.field(factory=bytearray, init=False)
    _foreign: bool = attrs.field(default=False, init=False)
    _chosen: Framing | None = attrs.field(default=None, init=False)

    def __repr__(self) -> str:
        return f"<Opening {self._chosen!r}>" if self._chosen else f"<Opening {len(self._first)} bytes waiting>"

    @property
    def broken(self) -> bool:
        return self._foreign or (self._chosen is not None and self._chosen.broken)

    @property
    def partial(self) -> bool:
        return self._chosen.partial if self._chosen is not None else bool(self._first)

    def receive(self, data: bytes | bytearray) -> list[Message]:
        """The messages that ``data`` completes; ``b""`` says that the peer sends no more. Never raises."""
        if self._chosen is not None:
            return self._chosen.receive(data)
        if self._foreign:
            return []
        self._first += data
        if self._first and self._first[0] in _FOREIGN:
            self._foreign = True
            self._first.clear()
            return []
        make = choose(bytes(self._first), more=bool(data))
        if make is None:
            return []
        self._chosen = make(self.max_bytes, self.max_depth)
        first, self._first = self._first, bytearray()
        found = self._chosen.receive(first) if first else []
        return found if data else found + self._chosen.receive(b"")

    def reply(self, value: object) -> bytes:
        """``value`` as the peer reads it; see ``Framing.reply``."""
        return (self._chosen or JsonStream()).reply(value)

    def timed_out(self, reason: str) -> Message:
        """What is to be said when the rest of a message did not come in time; see ``Framing.timed_out``."""
        self._chosen = self._chosen or JsonStream(self.max_bytes, self.max_depth)
        return self._chosen.timed_out(reason)

    def upgrade(self) -> tuple[bytes, list[Message]]:
        """Grant the request for a WebSocket; from here on the stream is that.

        Gives the response to it (101), and the messages that had come behind it. Where more had come than is
        kept, or the end of the stream, nothing is read any more.

        Raises:
            ValueError: there is no such request, or it is answered, or one before it is not.
        """
        http = self._chosen
        if not isinstance(http, Http) or (asked := http.asked()) is None:
            raise ValueError("no request for a WebSocket is waiting for its answer, or not the first that is")
        request, behind = asked
        self._chosen = socket = WebSocket(request, self.max_bytes, self.max_depth)
        found = socket.receive(behind) if behind else []
        if http.overrun and not socket.broken:
            found.append(socket.closing(1008, f"more than {len(behind)} bytes were sent before the answer"))
        elif http.broken:
            socket.receive(b"")
        return socket.accepted, found

    @property
    def websocket(self) -> bool:
        """It is a WebSocket by now."""
        return isinstance(self._chosen, WebSocket)

    def closing(self, code: int, reason: str = "") -> Control | None:
        """The close of a WebSocket (``WebSocket.closing``); None where the framing is another."""
        return self._chosen.closing(code, reason) if isinstance(self._chosen, WebSocket) else None
