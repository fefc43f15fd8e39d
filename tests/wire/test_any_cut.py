"""However the bytes of a stream are cut, the messages are the same: of good ones, of junk, at the limits.

Here are the JSON stream and the WebSocket; ``test_framings`` has the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskd.errors import ParseError
from taskd.wire import Control, Framing, JsonStream, Message, Opening, json_stream, sole
from tests.wire.websocket import (
    ASKING,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    closing,
    frame,
    granting,
)  # fmt: skip

Json = object

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
brackets_and_quotes = st.text(alphabet='{}[]"\\\n\r\t a\u00e9\U0001f600')
values: st.SearchStrategy[Json] = st.recursive(
    scalars | brackets_and_quotes,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(brackets_and_quotes, inner, max_size=4),
    max_leaves=20,
)
blanks = st.text(alphabet=" \t\r\n", max_size=3)
cuts = st.lists(st.integers(0, 400), max_size=12) | st.just(range(2000))
garbage = st.binary(max_size=20).filter(lambda text: b"\n" not in text).map(lambda text: b"!" + text)


@st.composite
def texts(draw: st.DrawFn, value: Json) -> bytes:
    """One value as one of its writers would write it, with what may stand between it and the next."""
    text = json.dumps(
        value,
        indent=draw(st.sampled_from([None, 0, 2])),
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\r\n:")])),
    )
    between = draw(blanks)
    if not isinstance(value, list | dict):
        between += "\n"
    return (text + between).encode()


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[start:end] for start, end in pairwise(edges)]


def read(stream: Framing, pieces: list[bytes]) -> list[Message]:
    return [message for piece in [*pieces, b""] for message in stream.receive(piece)]


def shown(messages: list[Message]) -> list[tuple[str, str]]:
    """Messages in a form that tells 1 from true and 1.0, and errors by kind and sentence."""
    return [(type(message).__name__, str(message)) for message in messages]


@settings(deadline=None)
@given(st.data(), st.lists(values, max_size=6), cuts, blanks)
def test_the_values_come_out_as_they_went_in_however_they_are_written_and_cut(
    data: st.DataObject, sent: list[Json], places: Sequence[int], before: str
) -> None:
    stream = before.encode() + b"".join(data.draw(texts(value)) for value in sent)

    assert shown(sent) == shown(read(JsonStream(), cut(stream, places)))


@settings(deadline=None)
@given(st.data(), values, st.integers(1, 5))
def test_a_value_that_comes_as_a_whole_is_read_as_the_stream_reads_it(
    data: st.DataObject, sent: Json, max_depth: int
) -> None:
    text = data.draw(texts(sent))

    assert shown([sole(text, max_depth=max_depth)]) == shown(read(JsonStream(max_depth=max_depth), [text]))


@settings(deadline=None)
@given(st.lists(garbage | st.just(b'{"method": "}"}'), max_size=8), cuts)
def test_a_line_of_garbage_is_one_error_in_its_place_and_harms_nothing_around_it(
    lines: list[bytes], places: Sequence[int]
) -> None:
    messages = read(Opening(), cut(b"\n".join(lines), places))

    assert [line[:1] == b"!" for line in lines] == [type(message) is ParseError for message in messages]


junk = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from(
            [b"{", b"}", b"[", b"]", b'"', b"\\", b"\n", b" ", b"\r", b"a", b"1", b",", b":", b"\xff"]
        ),
        max_size=80,
    ).map(b"".join),
    st.lists(st.sampled_from([b'{"a":', b'["', b'\\"', b'"]', b"}", b"[[", b"]]", b"\n", b"{}"]), max_size=60).map(
        b"".join
    ),
)


@settings(deadline=None, max_examples=500)
@given(junk, cuts, st.integers(1, 60), st.integers(1, 5))
@example(b"[[[", range(3), 2, 2)  # too long before it is too deep
@example(b"[[[]]]", range(6), 5, 2)  # too deep before it is too long
def test_junk_has_the_same_outcome_however_it_is_cut_and_never_more_messages_than_bytes(
    data: bytes, places: Sequence[int], max_bytes: int, max_depth: int
) -> None:
    whole, pieces = Opening(max_bytes, max_depth), Opening(max_bytes, max_depth)
    messages = read(whole, [data] if data else [])

    assert shown(messages) == shown(read(pieces, cut(data, places)))
    assert whole.broken == pieces.broken
    assert not pieces.partial
    assert len(messages) <= len(data)


class Counted(bytearray):
    """A buffer that counts the bytes that are searched for the end of a line."""

    looked_at = 0

    def find(self, what: Any, start: Any = 0, end: Any = None, /) -> int:
        self.looked_at += len(self) - start
        return super().find(what, start, end)


@pytest.mark.parametrize("text", [b'["' + b"x\\n" * 5000 + b'"]', b"[" + b'["]"],' * 3000 + b"1]"])
def test_a_bracketed_value_that_comes_byte_by_byte_is_looked_at_once(
    text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, spans = json_stream._end, [0]

    def counting(pattern: object, buffer: bytearray, start: int) -> int:
        stop = end(pattern, buffer, start)  # type: ignore[arg-type]  # as it was given
        spans[0] += stop - start
        return stop

    monkeypatch.setattr(json_stream, "_end", counting)
    messages = read(Opening(), cut(text, range(len(text))))

    assert len(messages) == 1
    assert spans[0] <= len(text)


def test_a_line_that_comes_byte_by_byte_is_looked_at_once() -> None:
    text = b"x" * 20_000
    stream = json_stream.JsonStream()
    stream._buffer = counted = Counted()

    assert len(read(stream, cut(text, range(len(text))))) == 1
    assert counted.looked_at <= len(text)


def test_of_what_has_been_given_out_nothing_is_kept() -> None:
    stream = json_stream.JsonStream()
    for _ in range(1000):
        assert stream.receive(b'{"a": 1}\n{"b"') == [{"a": 1}]
        assert stream.receive(b": 2}") == [{"b": 2}]

    assert len(stream._buffer) == 0
    assert repr(stream) == "<JsonStream 0 bytes waiting>"


@settings(deadline=None)
@given(st.data(), st.lists(values, max_size=5), cuts)
def test_values_come_out_of_a_websocket_as_they_went_in_however_they_are_fragmented_and_cut(
    data: st.DataObject, sent: list[Json], places: Sequence[int]
) -> None:
    stream, expected = ASKING, list[Message]()
    for value in sent:
        *begun, last = cut(data.draw(texts(value)), data.draw(st.lists(st.integers(0, 30), max_size=4)))
        for at, part in enumerate(begun):
            stream += frame(CONTINUATION if at else TEXT, part, fin=False)
            if data.draw(st.booleans()):
                stream += frame(PING, part[:125])
                expected.append(Control(frame(PONG, part[:125], masked=False)))
        stream += frame(CONTINUATION if begun else TEXT, last)
        expected.append(value)
    _, response, *messages = granting(Opening(), cut(stream, places))

    assert isinstance(response, bytes)
    assert response.startswith(b"HTTP/1.1 101 ")
    assert shown(messages) == shown(expected)


frames = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, CONTINUATION, CONTINUATION, BINARY, PING, PONG]),
    st.sampled_from([b"", b"1", b'["', b'"]', "\u20ac".encode(), b"\xe2", b"\x82\xac", b"\xff", b"x" * 130]),
    fin=st.booleans(),
)
wrong = st.sampled_from(
    [
        frame(TEXT, b"1", masked=False),
        frame(TEXT, reserved=4),
        frame(3),
        frame(PING, b"1", fin=False),
        frame(CLOSE),
        closing(1000, "\u20ac"),
        closing(1006),
        frame(CLOSE, b"1"),
        frame(TEXT, length=1 << 30),
        frame(CONTINUATION, length=1 << 63),
        b"\x81\xfe\x00\x01",
    ]
)


@settings(deadline=None, max_examples=500)
@given(
    spoken=st.lists(frames, max_size=8),
    last=wrong | frames,
    more=st.lists(frames, max_size=2),
    junk=st.none() | st.tuples(st.integers(0, 400), st.integers(0, 30), st.binary(max_size=30)),
    places=cuts,
    max_bytes=st.sampled_from([3, 10, 200, 1 << 20]),
)
def test_what_breaks_the_rules_of_a_websocket_has_the_same_outcome_however_it_is_cut(
    *,
    spoken: list[bytes],
    last: bytes,
    more: list[bytes],
    junk: tuple[int, int, bytes] | None,
    places: Sequence[int],
    max_bytes: int,
) -> None:
    data = ASKING + b"".join([*spoken, last, *more])
    if junk is not None:
        start, length, instead = junk
        data = data[:start] + instead + data[start + length :]
    # What can come behind the request is bounded; in one piece with it, it would not all be kept.
    always = [data.find(b"\r\n\r\n") + 4] if max_bytes < len(data) else []
    whole, pieces = Opening(max_bytes), Opening(max_bytes)
    messages = granting(whole, cut(data, always))

    assert shown(messages) == shown(granting(pieces, cut(data, [*always, *places])))
    assert whole.broken == pieces.broken
    assert not pieces.partial
    assert len(messages) <= len(data)
