"""One law for all framings: the first bytes tell which it is, and in any cut the same messages come out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskd.errors import InvalidRequest, ParseError
from taskd.wire import Message, Opening, Request, Response
from taskd.wire.http import METHODS
from taskd.wire.prefixed import DIGITS
from tests.wire.test_any_cut import cut, cuts, read, shown

Json = object

objects = st.dictionaries(st.text(max_size=5), st.integers(0, 2**53) | st.text(max_size=20), max_size=4)


def in_stream(bodies: Sequence[bytes]) -> bytes:
    return b"\n".join([*bodies, b""])


def under_headers(bodies: Sequence[bytes]) -> bytes:
    return b"".join(b"Content-Length: %d\r\n\r\n%b" % (len(body), body) for body in bodies)


def after_digits(bodies: Sequence[bytes]) -> bytes:
    return b"".join(b"%016d%b" % (len(body), body) for body in bodies)


def posted(bodies: Sequence[bytes]) -> bytes:
    return b"".join(
        b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body) for body in bodies
    )


def posted_in_chunks(bodies: Sequence[bytes]) -> bytes:
    head = b"POST /jsonrpc?a=b HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    return b"".join(
        head
        + b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (body[:3], body[3:]) if part)
        + b"0\r\nTrailer: x\r\n\r\n"
        for body in bodies
    )


WRITERS: list[Callable[[Sequence[bytes]], bytes]] = [
    in_stream,
    under_headers,
    after_digits,
    posted,
    posted_in_chunks,
]


def body_of(message: Message) -> Json:
    return json.loads(message.body) if isinstance(message, Request) else message


@pytest.mark.parametrize("write", WRITERS)
@settings(deadline=None, max_examples=60)
@given(sent=st.lists(objects, min_size=1, max_size=5), places=cuts)
def test_what_is_sent_comes_out_however_it_is_cut(
    write: Callable[[Sequence[bytes]], bytes], sent: list[Json], places: Sequence[int]
) -> None:
    data = write([json.dumps(value).encode() for value in sent])
    messages = read(Opening(), cut(data, places))

    assert [body_of(message) for message in messages if message != Response(100)] == sent
    assert messages.count(Response(100)) == (len(sent) if write is posted_in_chunks else 0)


@pytest.mark.parametrize("write", WRITERS)
@settings(deadline=None, max_examples=200)
@given(
    sent=st.lists(objects, max_size=3),
    start=st.integers(0, 300),
    length=st.integers(0, 30),
    junk=st.binary(max_size=30) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"\n", b"0", b"999999", b":", b" "]),
    places=cuts,
    max_bytes=st.sampled_from([10, 40, 1000]),
)
@example(sent=[{}], start=0, length=0, junk=b"", places=range(2000), max_bytes=1)
def test_what_is_spoilt_is_refused_alike_in_any_cut(
    *,
    write: Callable[[Sequence[bytes]], bytes],
    sent: list[Json],
    start: int,
    length: int,
    junk: bytes,
    places: Sequence[int],
    max_bytes: int,
) -> None:
    data = write([json.dumps(value).encode() for value in sent])
    data = data[:start] + junk + data[start + length :]
    whole, pieces = Opening(max_bytes), Opening(max_bytes)

    assert shown(read(whole, [data] if data else [])) == shown(read(pieces, cut(data, places)))
    assert whole.broken == pieces.broken
    assert not whole.partial


def replies_to(data: bytes) -> bytes:
    framing = Opening()
    found = framing.receive(data)
    return b"".join(framing.reply(Response(405) if isinstance(message, Request) else 7) for message in found)


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"{}", b"7\n"),
        (b" \r\n{}", b"7\n"),
        (b"PIPPO\n", b"7\n"),
        (b"POSTER\n", b"7\n"),
        (b"get / HTTP/1.1\n", b"7\n"),
        (b"content\n", b"7\n"),
        (b"42\n", b"7\n"),
        (b"123456789012345\n", b"7\n"),
        (b"\xef\xbb\xbf{}\n", b"7\n"),
        (b"Content-Length: 2\r\n\r\n{}", b"Content-Length: 1\r\n\r\n7"),
        (b"CONTENT-LENGTH:2\n\n{}", b"Content-Length: 1\r\n\r\n7"),
        (b"Content-Type: x\r\ncontent-length: 2\r\n\r\n{}", b"Content-Length: 1\r\n\r\n7"),
        (b"0000000000000002{}", b"00000000000000017"),
    ],
)
def test_the_first_bytes_choose_the_framing_of_the_reply(data: bytes, reply: bytes) -> None:
    assert replies_to(data) == reply


@pytest.mark.parametrize("method", METHODS)
def test_the_word_of_an_http_method_and_a_space_is_http(method: bytes) -> None:
    assert replies_to(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize("start", [b"P", b"POST", b"OPTION", b"Content-", b"content-t", b"1", b"0" * (DIGITS - 1)])
def test_bytes_that_can_become_one_of_two_framings_wait_and_are_a_json_stream_at_the_end(start: bytes) -> None:
    framing = Opening()
    assert framing.receive(start) == []
    assert framing.partial
    assert len(framing.receive(b"")) == 1
    assert framing.reply(1) == b"1\n"


@pytest.mark.parametrize("start", [b"\x16\x03\x01\x02\x00\x01", b"\0", b"\x7fELF", b"\x05\x01\x00"])
def test_what_no_framing_starts_with_is_not_answered(start: bytes) -> None:
    framing = Opening()

    assert read(framing, [start, b"{}\n"]) == []
    assert framing.broken
    assert not framing.partial


@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (b"Content-Length: x\r\n\r\n{}", InvalidRequest, "Content-Length must be a number of bytes"),
        (b"Content-Length: -1\r\n\r\n{}", InvalidRequest, "Content-Length must be a number of bytes"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", InvalidRequest, "must be given once, not 2 times"),
        (b"Content-Type: x\r\n\r\n{}", InvalidRequest, "must be given once, not 0 times"),
        (b"Content-Length: 2\r\nnonsense\r\n\r\n{}", InvalidRequest, "a name, a colon and a value"),
        (b"Content-Length: \xff\r\n\r\n{}", InvalidRequest, "ASCII"),
        (b"Content-Length: 2\r\nX: " + b"x" * 5000, InvalidRequest, "longer than 4096 bytes"),
        (b"Content-Length: 1048577\r\n\r\n{}", InvalidRequest, "a message is longer than 1048576 bytes"),
        (b"0000000001048577{}", InvalidRequest, "a message is longer than 1048576 bytes"),
        (b"0000000000000002{}{}", InvalidRequest, "must start with its length in 16 decimal digits"),
        (b"Content-Length: 5\r\n\r\n{}", ParseError, "ended in the middle of a message"),
        (b"0000000000000002{}00", ParseError, "ended in the middle of a message"),
    ],
)
def test_a_head_that_cannot_be_read_is_one_error_and_the_last_thing_that_is_read(
    data: bytes, error: type[Exception], reason: str
) -> None:
    framing = Opening()
    *good, last = read(framing, [data])

    assert good in ([], [{}])
    assert type(last) is error
    assert reason in str(last)
    assert framing.broken


@pytest.mark.parametrize("write", [under_headers, after_digits])
@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [
        (b"{]", ParseError, "expected"),
        (b"", ParseError, "no value where one is due"),
        (b"{} {}", ParseError, "unexpected content after document"),
        (b"{} x", ParseError, "unexpected"),
        (b"[" * 200 + b"]" * 200, InvalidRequest, "nested deeper than 100"),
    ],
)
def test_a_body_that_is_no_json_is_one_error_and_the_next_message_is_read(
    write: Callable[[Sequence[bytes]], bytes], body: bytes, error: type[Exception], reason: str
) -> None:
    wrong, good = read(Opening(), [write([body, b"[1]"])])

    assert type(wrong) is error
    assert reason in str(wrong)
    assert good == [1]


@pytest.mark.parametrize("start", [b"", b"POS", b'{"', b"Content-Length: 5\r\n", b"0000000000000005{", b"12"])
def test_a_message_that_does_not_come_in_time_is_refused_and_nothing_is_read_after_it(start: bytes) -> None:
    framing = Opening()
    framing.receive(start or b" ")

    assert str(framing.timed_out("too late")) == "too late"
    assert framing.broken
    assert not framing.partial
    assert framing.receive(b"{}\n") == []


@pytest.mark.parametrize("start", [b"POST ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{"])
def test_a_request_that_does_not_come_in_time_is_answered_with_408(start: bytes) -> None:
    framing = Opening()
    framing.receive(start)
    late = framing.timed_out("too late")

    assert isinstance(late, Response)
    assert late.status == HTTPStatus.REQUEST_TIMEOUT
    assert framing.broken
    data = framing.reply(late)
    assert data.startswith(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n")
    assert data.endswith(b"\r\n\r\ntoo late\n")
