"""The JSON stream: values one after the other, on lines of their own, concatenated or pretty-printed.

A value that starts with ``{`` or ``[`` ends with its matching bracket; anything else is one message up to the
end of its line, so a line of garbage is one error and the next line is read again. However the bytes are cut,
the messages are the same.

JSON is strict: UTF-8 without a byte order mark, no NaN, no number that a double cannot hold, no lone
surrogate. Of a key that is repeated in an object the last value counts. What was wrong is said by kind and
place, never by content.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from itertools import accumulate
from typing import TypeAlias

import attrs
import orjson

from taskd.errors import InvalidRequest, ParseError

# What JSON says as Python has it, or in its place the WireError that tells why there is nothing.
Message: TypeAlias = object

MAX_BYTES = 1 << 20
MAX_DEPTH = 100

_BLANK = re.compile(rb"[ \t\r\n]*+")
# Both stop at the next byte that matters. A string that is complete is run over in one go; one that is not
# is entered, so that its bytes are looked at once, however slowly they come. A backslash takes the next
# byte with it, but never a line break: that is no JSON, and the place where reading finds its feet again.
_STRING_REST = rb'[^"\\\n]*+(?:\\(?:[^\n]|(?=\n))[^"\\\n]*+)*+'
_IN_STRING = re.compile(_STRING_REST)
_OUTSIDE = re.compile(rb'[^"{}\[\]]*+(?:"' + _STRING_REST + rb'"[^"{}\[\]]*+)*+')
# Also one without its end, or each quote in it would be looked at as the start of another.
_STRING = re.compile(rb'"' + _STRING_REST + rb'"?')
# Brackets as the steps that they are, of one signed byte: 1 down, -1 up.
_STEPS = bytes.maketrans(b"{[}]", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{[}]"))


@attrs.define(eq=False, repr=False)
class JsonStream:
    """One peer's bytes in, messages out; a message may be ``max_bytes`` long and ``max_depth`` brackets deep.

    ``broken`` says that nothing can be read after this: answer what has come, then close.
    """

    max_bytes: int = MAX_BYTES
    max_depth: int = MAX_DEPTH
    broken: bool = attrs.field(default=False, init=False)
    _buffer: bytearray = attrs.field(factory=bytearray, init=False)
    _ended: bool = attrs.field(default=False, init=False)
    _found: list[Message] = attrs.field(factory=list, init=False)
    _reader: Generator[None] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._reader = self._read()

    def __repr__(self) -> str:
        state = "broken" if self.broken else "ended" if self._ended else f"{len(self._buffer)} bytes waiting"
        return f"<JsonStream {state}>"

    @property
    def partial(self) -> bool:
        """Whether a message has begun and waits for its end."""
        return bool(self._buffer)

    def receive(self, data: bytes | bytearray) -> list[Message]:
        """The messages that ``data`` completes; ``b""`` says that the peer sends no more. Never raises."""
        if not self._buffer and data and not self._ended and not self.broken:
            data = self._plain_lines(data)
            if not data:
                found, self._found = self._found, []
                return found
        self._buffer += data
        self._ended = self._ended or not data
        next(self._reader, None)
        if self._ended or self.broken:
            self._buffer.clear()
        found, self._found = self._found, []
        return found

    def reply(self, value: object) -> bytes:
        """``value`` on a line of its own.

        Raises:
            TypeError: it is nothing that JSON can say.
        """
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)

    def timed_out(self, reason: str) -> Message:
        """What is to be said when the rest of a message did not come in time; nothing is read after it."""
        self.broken = True
        self._reader.close()
        self._buffer.clear()
        return InvalidRequest(reason)

    def _plain_lines(self, data: bytes | bytearray) -> bytes | bytearray:
        """Take the objects that stand on lines of their own, as nearly all peers send them; what is left from the
        first line on that is anything else. What is taken here the readers below would take alike, at several
        times the cost: a line that is one object in itself ends with its matching bracket, and so few brackets
        cannot nest too deep.
        """
        at = 0
        while (end := data.find(b"\n", at)) >= 0:
            line = data[at:end]
            if (
                not line.startswith(b"{")
                or len(line) > self.max_bytes
                or line.count(b"{") + line.count(b"[") > self.max_depth
            ):
                break
            try:
                self._found.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                break
            at = end + 1
        return data[at:] if at else data

    # The readers yield for more bytes; the message that is being read starts where the buffer starts.

    def _read(self) -> Generator[None]:
        buffer = self._buffer
        try:
            while not self._ended or buffer:
                del buffer[: _end(_BLANK, buffer, 0)]
                if not buffer:
                    yield
                elif buffer[0] in b"{[":
                    yield from self._read_bracketed()
                else:
                    yield from self._read_line()
        except InvalidRequest as too_long:
            self._found.append(too_long)
            self.broken = True

    def _read_line(self) -> Generator[None]:
        seen = 0
        while (end := self._buffer.find(b"\n", seen)) < 0 and not self._ended:
            seen = len(self._buffer)
            self._limit(seen)
            yield
        self._found.append(_parsed(self._take(end if end >= 0 else len(self._buffer))))

    def _read_bracketed(self) -> Generator[None]:
        buffer = self._buffer
        at = depth = 0
        quoted = refused = False
        while True:
            at = _end(_IN_STRING if quoted else _OUTSIDE, buffer, at)
            if at == len(buffer) or buffer[at] in b"\\":  # a backslash whose next byte is still to come
                self._limit(len(buffer))
                if self._ended:
                    buffer.clear()
                    if not refused:
                        self._found.append(ParseError("the stream ended in the middle of a value"))
                    return
                yield
                continue
            byte = buffer[at]
            at += 1
            self._limit(at)
            if byte in b'"':
                quoted = not quoted
            elif byte in b"{[":
                depth += 1
                if depth > self.max_depth and not refused:
                    # Said at once: the peer may wait for the answer and never close what it has opened.
                    refused = True
                    self._found.append(InvalidRequest(f"nested deeper than {self.max_depth}"))
            elif depth == 1 or byte in b"\n":
                break
            else:
                depth -= 1
        text = self._take(at)
        if not refused:
            self._found.append(_parsed(text))

    def _take(self, end: int) -> bytes:
        self._limit(end)
        text = bytes(self._buffer[:end])
        del self._buffer[:end]
        return text

    def _limit(self, size: int) -> None:
        if size > self.max_bytes:
            raise InvalidRequest(f"a message is longer than {self.max_bytes} bytes")


def sole(text: bytes, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Message:
    """The one value that ``text`` is, under the laws of the stream; what else it is, is a WireError.

    It is here as a whole, and nobody has a turn before it is read: so it is not gone through by its brackets.
    """
    text = text.strip(b" \t\r\n")
    if not text:
        return ParseError("no value where one is due")
    if len(text) > max_bytes:
        return InvalidRequest(f"a message is longer than {max_bytes} bytes")
    if _depth(text, max_depth) > max_depth:
        return InvalidRequest(f"nested deeper than {max_depth}")
    return _parsed(text)


def _depth(text: bytes, enough: int) -> int:
    """How deep the brackets of a value nest, or ``enough`` where there are no more of them than that."""
    if text.count(b"{") + text.count(b"[") <= enough:
        return enough
    steps = _STRING.sub(b"", text).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def _end(pattern: re.Pattern[bytes], buffer: bytearray, start: int) -> int:
    """Where a pattern that may be empty ends. No match lives on: the buffer could not change its size."""
    match = pattern.match(buffer, start)
    return match.end() if match else start


def _parsed(text: bytes) -> Message:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return ParseError(str(error))
