"""Framings that say before each message how long it is: a head, then so many bytes of JSON.

``headers`` and ``prefixed`` are two such heads. A body that is no JSON is one error in its place, and the next
message is read; a head that is no head, or that announces more than a message may be long, is the last thing
that is read, since nobody can tell where the next message would start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs
import orjson

from taskd.errors import InvalidRequest, ParseError
from taskd.wire.json_stream import MAX_BYTES, MAX_DEPTH, Message, sole

# Where the body starts and how many bytes it has; None: the head is not complete yet. Raises InvalidRequest.
ReadHead: TypeAlias = Callable[[bytearray], tuple[int, int] | None]
WriteHead: TypeAlias = Callable[[int], bytes]


@attrs.define(eq=False, repr=False)
class Sized:
    """One peer's bytes in, messages out; a message may be ``max_bytes`` long and ``max_depth`` brackets deep.

    ``broken`` says that nothing can be read after this: answer what has come, then close.
    """

    read_head: ReadHead
    write_head: WriteHead
    max_bytes: int = MAX_BYTES
    max_depth: int = MAX_DEPTH
    broken: bool = attrs.field(default=False, init=False)
    _buffer: bytearray = attrs.field(factory=bytearray, init=False)
    _length: int | None = attrs.field(default=None, init=False)

    def __repr__(self) -> str:
        return f"<Sized {'broken' if self.broken else f'{len(self._buffer)} bytes waiting'}>"

    @property
    def partial(self) -> bool:
        """Whether a message has begun and waits for its end."""
        return bool(self._buffer) or self._length is not None

    def receive(self, data: bytes | bytearray) -> list[Message]:
        """The messages that ``data`` completes; ``b""`` says that the peer sends no more. Never raises."""
        if self.broken:
            return []
        self._buffer += data
        found: list[Message] = []
        try:
            while self._next(found):
                pass
        except InvalidRequest as unreadable:
            self._end(found, unreadable)
        if not data and not self.broken:
            cut = ParseError("the stream ended in the middle of a message") if self.partial else None
            self._end(found, cut)
        return found

    def reply(self, value: object) -> bytes:
        """``value`` with its head.

        Raises:
            TypeError: it is nothing that JSON can say.
        """
        body = orjson.dumps(value)
        return self.write_head(len(body)) + body

    def timed_out(self, reason: str) -> Message:
        """What is to be said when the rest of a message did not come in time; nothing is read after it."""
        self._end([], None)
        return InvalidRequest(reason)

    def _next(self, found: list[Message]) -> bool:
        """Whether there was one more message in the buffer."""
        buffer = self._buffer
        if self._length is None:
            head = self.read_head(buffer)
            if head is None:
                return False
            start, self._length = head
            del buffer[:start]
            if self._length > self.max_bytes:
                raise InvalidRequest(f"a message is longer than {self.max_bytes} bytes")
        if len(buffer) < self._length:
            return False
        text = bytes(buffer[: self._length])
        del buffer[: self._length]
        self._length = None
        found.append(sole(text, self.max_bytes, self.max_depth))
        return True

    def _end(self, found: list[Message], last: Message | None) -> None:
        if last is not None:
            found.append(last)
        self.broken = True
        self._buffer.clear()
        self._length = None
