"""WebSocket on wsproto (RFC 6455): frames in, messages out; one text is one JSON value.

A message is the value, or the ``WireError`` that says what was wrong with it, or a ``Control``: bytes that are
to be sent in their turn, a pong or a close, which ``reply`` gives back as they are. Messages and controls come in
the order of the wire, and are the same however the bytes are cut. After a close, whoever sent it, nothing is read;
what came before it may still be answered until ours is said, and nothing is said after that.

Of a message the text alone is kept, never its fragments; one that is too long is known by the heads of its
frames. No extension is spoken: with permessage-deflate a few bytes would unpack to many. No subprotocol either.
"""

from __future__ import annotations

import attrs
import orjson
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

from taskd.errors import InvalidRequest
from taskd.wire.handshake import VERSION
from taskd.wire.http import Request
from taskd.wire.json_stream import MAX_BYTES, MAX_DEPTH, Message, sole


@attrs.frozen
class Control:
    """What the framing itself says to the peer, in its turn: ``data`` as it goes on the wire, maybe nothing."""

    data: bytes


@attrs.define(eq=False)
class _Frames(Extension):
    """An extension that extends nothing and is never offered: wsproto tells it of each frame, and it measures.

    The head of a frame may be told more than once, until all of it has come; the end of one is told once.
    """

    name = "frames"
    max_bytes: int
    # Bytes on the wire of all frames that have ended.
    ended: int = attrs.field(default=0, init=False)
    # A message has begun, in a frame that has ended, and goes on in another; its bytes so far.
    fragmented: bool = attrs.field(default=False, init=False)
    _message: int = attrs.field(default=0, init=False)
    _length: int = attrs.field(default=0, init=False)
    _control: bool = attrs.field(default=False, init=False)

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(
        self, proto: object, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        self._length, self._control = payload_length, opcode.iscontrol()
        if not self._control and self._message + payload_length > self.max_bytes:
            return CloseReason.MESSAGE_TOO_BIG
        return RsvBits(False, False, False)  # none of the reserved bits is ours

    def frame_inbound_complete(self, proto: object, fin: bool) -> None:
        length = self._length
        self.ended += 6 + (0 if length < 126 else 2 if length < 65536 else 8) + length
        if not self._control:
            self.fragmented = not fin
            self._message = 0 if fin else self._message + length


@attrs.define(eq=False, repr=False)
class WebSocket:
    """One peer's bytes in, messages out; a message may be ``max_bytes`` long, over all its frames.

    Made from the request that is granted, whose handshake must be right (``Request.websocket``); ``accepted`` is
    the response that grants it. ``broken`` says that nothing can be read after this: send what is to be sent, then
    close.
    """

    request: Request
    max_bytes: int = MAX_BYTES
    max_depth: int = MAX_DEPTH
    broken: bool = attrs.field(default=False, init=False)
    accepted: bytes = attrs.field(init=False)
    _frames: _Frames = attrs.field(init=False)
    # wsproto sends no message once it has read a close. Here the replies to what came before a close are sent
    # before the answer to it, and are made then: so there is one for what is read and one for what is replied.
    _reading: WSConnection = attrs.field(init=False)
    _replying: WSConnection = attrs.field(init=False)
    _received: int = attrs.field(default=0, init=False)
    _text: bytearray = attrs.field(factory=bytearray, init=False)
    _close: Control | None = attrs.field(default=None, init=False)
    _said: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._frames = _Frames(self.max_bytes)
        self._reading, self.accepted = _granted(self.request, self._frames)
        self._replying, _ = _granted(self.request)

    def __repr__(self) -> str:
        return f"<WebSocket {'closed' if self.broken else 'open'}>"

    @property
    def partial(self) -> bool:
        """Whether a message, or a frame of any kind, has begun and waits for its end."""
        return not self.broken and (self._frames.fragmented or self._received > self._frames.ended)

    def receive(self, data: bytes | bytearray) -> list[Message]:
        """The messages and controls that ``data`` completes. Never raises.

        ``b""`` says that the peer sends no more: without a close it is gone, and there is nothing to say to it.
        """
        found: list[Message] = []
        if not data:
            self.broken = True
        if not self.broken:
            self._received += len(data)
            self._reading.receive_data(bytes(data))
            for event in self._reading.events():
                self._take(event, found)
        return found

    def reply(self, value: object) -> bytes:
        """``value`` as one text, or a ``Control`` as its bytes; ``b""`` for either once a close is said.

        Raises:
            TypeError: it is nothing that JSON can say.
        """
        if not isinstance(value, Control):
            text = orjson.dumps(value).decode()
            return b"" if self._said else self._replying.send(TextMessage(text))
        if self._said:  # nothing follows a close (RFC 6455, 5.5.1)
            return b""
        self._said = value == self._close
        return value.data

    def timed_out(self, reason: str) -> Control:
        """The close that says so when the rest of a message did not come in time; nothing is read after it."""
        return self.closing(CloseReason.POLICY_VIOLATION, reason)

    def closing(self, code: int, reason: str = "") -> Control:
        """Our own close (RFC 6455, 7.4.1); the peer gets as much of ``reason`` as 123 bytes hold.

        Nothing is read after it. It is empty where a close is under way already, or the peer is gone.
        """
        return Control(b"") if self.broken else self._closed(CloseConnection(code, reason))

    def _take(self, event: Event, found: list[Message]) -> None:
        match event:
            case TextMessage():
                self._text += event.data.encode()
                if event.message_finished:
                    text = bytes(self._text)
                    self._text.clear()
                    found.append(sole(text, self.max_bytes, self.max_depth))
            case BytesMessage():
                if event.message_finished:
                    found.append(InvalidRequest("a message must be text"))
            case Ping():
                found.append(Control(self._reading.send(event.response())))
            case CloseConnection():
                asked = self._reading.state is ConnectionState.REMOTE_CLOSING
                found.append(self._closed(event.response() if asked else self._fault(event)))
            case _:  # a pong, or wsproto's word for the request
                pass

    def _fault(self, found: CloseConnection) -> CloseConnection:
        """wsproto's close for what broke the rules, in words that do not depend on the cut and quote nothing."""
        reason = found.reason
        if found.code == CloseReason.MESSAGE_TOO_BIG:
            reason = f"a message is longer than {self.max_bytes} bytes"
        elif found.code == CloseReason.INVALID_FRAME_PAYLOAD_DATA:
            reason = "a text must be UTF-8"
        return CloseConnection(found.code, reason)

    def _closed(self, close: CloseConnection) -> Control:
        self.broken = True
        self._close = Control(self._reading.send(close))
        return self._close


def _granted(request: Request, *extensions: Extension) -> tuple[WSConnection, bytes]:
    """An open connection, and the response that opens it.

    Only what the response is made of is passed on: wsproto would refuse a Host that is no name of one.
    """
    connection = WSConnection(ConnectionType.SERVER)
    key = (request.header("sec-websocket-key") or "").encode()
    connection.initiate_upgrade_connection(
        [
            (b"Host", b"localhost"),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Version", VERSION),
            (b"Sec-WebSocket-Key", key),
        ],
        "/",
    )
    return connection, connection.send(AcceptConnection(extensions=list(extensions)))
