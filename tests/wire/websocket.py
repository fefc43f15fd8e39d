"""The peer of a WebSocket: its handshake and its frames byte by byte, right and wrong, and wsproto's client."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import attrs
from wsproto import ConnectionType, WSConnection, events

from taskd.wire import MAX_BYTES, MAX_DEPTH, Control, Message, Opening, Request, Response

# The example of RFC 6455, 1.3.
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

UPGRADE, CONNECTION = b"Upgrade: websocket", b"Connection: Upgrade"
VERSION = b"Sec-WebSocket-Version: 13"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def asking(
    *headers: bytes, line: bytes = b"GET /jsonrpc HTTP/1.1", change: Sequence[bytes] = (UPGRADE, CONNECTION)
) -> bytes:
    return b"\r\n".join([line, b"Host: _run_taskd_taskd.sock", *change, *headers, b"", b""])


ASKING = asking(KEY, VERSION)


def frame(
    kind: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
) -> bytes:
    """One frame, of a client unless it is not ``masked``; ``length`` is what its head says."""
    size = len(payload) if length is None else length
    head = bytes([fin << 7 | reserved << 4 | kind])
    if size < 126:
        head += bytes([masked << 7 | size])
    elif size < 1 << 16:
        head += bytes([masked << 7 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked << 7 | 127]) + struct.pack("!Q", size)
    if masked:
        mask = b"\x12\x34\x56\x78"
        head += mask
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + payload


def closing(code: int, reason: str = "", *, masked: bool = True) -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode(), masked=masked)


def said(code: int, reason: str = "") -> Control:
    """The close that the daemon sends."""
    return Control(closing(code, reason, masked=False))


def granting(framing: Opening, pieces: Sequence[bytes]) -> list[Message]:
    """The messages of a stream to its end; a request for a WebSocket is granted, with the response among them."""
    found: list[Message] = []
    for piece in [*pieces, b""]:
        for message in framing.receive(piece):
            found.append(message)
            match message:
                case Request(websocket=True):
                    response, behind = framing.upgrade()
                    found += [response, *behind]
                case Request():
                    framing.reply(Response(404))
                case Response():
                    framing.reply(message)
    return found


def opened(max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Opening:
    framing = Opening(max_bytes, max_depth)
    framing.receive(ASKING)
    framing.upgrade()
    return framing


@attrs.define
class Client:
    """wsproto's client on the other end of ``framing``, whose messages ``heard`` has."""

    framing: Opening = attrs.field(factory=Opening)
    core: WSConnection = attrs.field(factory=lambda: WSConnection(ConnectionType.CLIENT))
    heard: list[Message] = attrs.field(factory=list)

    def say(self, *said: events.Event) -> None:
        """Send it all in one piece."""
        for message in self.framing.receive(b"".join(map(self.core.send, said))):
            if isinstance(message, Request):
                response, behind = self.framing.upgrade()
                self.core.receive_data(response)
                self.heard += behind
            else:
                self.heard.append(message)

    def hear(self, reply: object) -> list[events.Event]:
        self.core.receive_data(self.framing.reply(reply))
        return list(self.core.events())
