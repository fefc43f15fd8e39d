"""The short cut of plain requests and h11 are one road: the same requests, the same responses, in any cut.

And whatever could be read in two ways, which is what request smuggling lives by, is always h11's.
"""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.wire import Http, Message, Response, http, sentence
from tests.wire.test_any_cut import cut, cuts

PLAIN = b"POST /jsonrpc HTTP/1.1\r\nHost: taskd\r\nContent-Length: 2\r\n\r\n{}"


def takes(data: bytes, max_bytes: int = 1000) -> bool:
    """Whether the short cut takes what ``data`` begins with."""
    return http._plain(data, max_bytes) is not None


def headed(*headers: bytes, line: bytes = b"POST /jsonrpc HTTP/1.1", body: bytes = b"{}") -> bytes:
    return b"\r\n".join([line, *headers, b"", body])


H, L = b"Host: taskd", b"Content-Length: 2"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        headed(L, b"Accept: */*", b"User-Agent: curl/7.88 (x; y)", H, b"Content-Type: application/json"),
        headed(b"hOST: _run_taskd_taskd.sock", b"CONTENT-LENGTH: 02", b"Connection: keep-alive"),
        headed(H, L, line=b"POST / HTTP/1.1"),
        headed(H, L, line=b"POST /a/b?c=d?e&f HTTP/1.1"),
        headed(H, b"Content-Length: 0", body=b""),
        PLAIN + b"GET",
    ],
)
def test_what_clients_send_takes_the_short_cut(data: bytes) -> None:
    assert takes(data)


@pytest.mark.parametrize(
    "data",
    [
        headed(H, L, L),
        headed(H, L, b"content-length: 3"),
        headed(H, b"Content-Length: 2, 2"),
        headed(H, b"Content-Length: +2"),
        headed(H, b"Content-Length: -2"),
        headed(H, b"Content-Length: 0x2"),
        headed(H, b"Content-Length: 2 2"),
        headed(H, b"Content-Length: "),
        headed(H, b"Content-Length: " + b"0" * 30 + b"2"),
        headed(H, b"Content-Length:2"),
        headed(H, b"Content-Length : 2"),
        headed(H, b"Content-Length:  2"),
        headed(H, b"Content-Length: 2 "),
        headed(H, b"Content-Length: 2\t"),
        headed(H, b"Content-Length: 2\r"),
        headed(H, b" Content-Length: 2"),
        headed(H, b"Content-Length: \xb2"),
        headed(H, L, b"Transfer-Encoding: chunked"),
        headed(H, L, b"transfer-encoding: identity"),
        headed(H, L, b"Transfer-Encoding: xchunked"),
        headed(H, b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        headed(H, L, b"Transfer-Encoding\t: chunked"),
        headed(H, L, b"Expect: 100-continue"),
        headed(H, L, b"Upgrade: websocket", b"Connection: Upgrade"),
        headed(H, L, b"Upgrade: h2c"),
        headed(H, L, b"Connection: close"),
        headed(H, L, b"Connection: keep-alive, close"),
        headed(H, L, b"Connection: keep-alive", b"Connection: close"),
        headed(H, L, b"X: a\r\n b"),
        headed(H, L, b"X: a\r\n\tb"),
        headed(H, L, b"X: a\nTransfer-Encoding: chunked"),
        headed(H, L, b"X: a\rTransfer-Encoding: chunked"),
        headed(H, L, b"X: a\x00"),
        headed(H, L, b"X: \xff"),
        headed(H, L, b"X:"),
        headed(H, L, b"X"),
        headed(H, L, b"X Y: z"),
        headed(H, L, b": z"),
        headed(H, L, b"X_Y: z"),
        headed(L),
        headed(H, H, L),
        headed(H),
        headed(H, L, line=b"POST /jsonrpc HTTP/1.0"),
        headed(H, L, line=b"POST /jsonrpc HTTP/2.0"),
        headed(H, L, line=b"POST /jsonrpc http/1.1"),
        headed(H, L, line=b"POST /jsonrpc  HTTP/1.1"),
        headed(H, L, line=b"POST  /jsonrpc HTTP/1.1"),
        headed(H, L, line=b"POST /json rpc HTTP/1.1"),
        headed(H, L, line=b"POST /json\xffrpc HTTP/1.1"),
        headed(H, L, line=b"POST jsonrpc HTTP/1.1"),
        headed(H, L, line=b"POST http://elsewhere/jsonrpc HTTP/1.1"),
        headed(H, L, line=b"POST * HTTP/1.1"),
        headed(H, L, line=b"post /jsonrpc HTTP/1.1"),
        headed(H, L, line=b"GET /jsonrpc HTTP/1.1"),
        headed(H, L, line=b"HEAD /jsonrpc HTTP/1.1"),
        headed(H, L, line=b"CONNECT /jsonrpc HTTP/1.1"),
        PLAIN.replace(b"\r\n", b"\n"),
        PLAIN.replace(b"\r\n\r\n", b"\n\n"),
        b"\r\n" + PLAIN,
        PLAIN[:-1],
        headed(H, b"Content-Length: 1001", body=b"x" * 1001),
        headed(H, L, b"X: " + b"x" * 5000),
    ],
)
def test_what_could_be_read_in_two_ways_never_takes_the_short_cut(data: bytes) -> None:
    assert not takes(data)


# What is alike by both roads.

names = st.sampled_from(
    b"Host,Content-Length,content-LENGTH,Connection,Transfer-Encoding,Expect,Upgrade,X-Y,Origin,a_b,Host ,".split(
        b","
    )
)
values = st.sampled_from(
    b"taskd,0,2,02,5000,close,keep-alive,Keep-Alive,chunked,websocket,100-continue,a b,a  b,a:b,, 2,2 ".split(b",")
) | st.sampled_from([b"2, 2", b"\xff", b"a\x00b", b"a\r\n b", b"a\nHost: x"])
lines = st.builds(
    lambda name, colon, value: name + colon + value, names, st.sampled_from([b": ", b":", b" : "]), values
)
starts = st.sampled_from(
    [b"POST /jsonrpc HTTP/1.1"] * 6
    + [
        b"POST /a?b?c HTTP/1.1",
        b"POST http://x/y?z HTTP/1.1",
        b"POST * HTTP/1.1",
        b"POST / HTTP/1.0",
        b"GET / HTTP/1.1",
    ]
    + [b"HEAD / HTTP/1.1", b"POST /a b HTTP/1.1", b"\r\nPOST / HTTP/1.1", b"POST"]
)
bodies = st.sampled_from([b"", b"{}", b"{}", b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"xyz"])
heads = st.permutations([H, L]) | st.permutations([H, L, b"X-Y: z"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A plain request, mostly, with something about it that is not, sometimes."""
    headers = list(draw(heads))
    for line in draw(st.lists(lines, max_size=2)):
        headers.insert(draw(st.integers(0, len(headers))), line)
    data = headed(*headers, line=draw(starts), body=draw(bodies))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(data)))
        data = (
            data[:at] + draw(st.binary(max_size=2) | st.sampled_from([b"\r", b"\n", b"\t", b" "])) + data[at + 1 :]
        )
    return data


responses = st.sampled_from(
    [
        Response(200, b'{"result": []}', "application/json"),
        Response(200),
        Response(204),
        Response(200, b"x", "text/plain", (("X-Y", "z"),)),
        sentence(404, "there is nothing"),
        sentence(401, "who?", ("WWW-Authenticate", "Bearer")),
        sentence(400, "no", ("Connection", "close")),
    ]
)


def told(pieces: Sequence[bytes], said: Sequence[Response]) -> tuple[list[Message], list[bytes], bool]:
    """The messages, what is replied to each, and whether the stream was read to its end."""
    framing = Http(max_bytes=4000)
    messages = [message for piece in pieces for message in framing.receive(piece)]
    broken = framing.broken
    messages += framing.receive(b"")
    answers = (each if isinstance(each, Response) else said[at % len(said)] for at, each in enumerate(messages))
    return messages, [framing.reply(answer) for answer in answers], broken


@settings(deadline=None, max_examples=400)
@given(st.lists(requests(), min_size=1, max_size=3), cuts, st.lists(responses, min_size=1, max_size=3))
def test_the_short_cut_gives_what_h11_gives(
    sent: list[bytes], places: Sequence[int], said: Sequence[Response]
) -> None:
    data = b"".join(sent)
    with patch.object(http, "_plain", lambda *_: None):
        by_h11 = told([data], said)

    assert told([data], said) == by_h11
    assert told(cut(data, places), said) == by_h11


@settings(deadline=None)
@given(st.lists(responses, min_size=1, max_size=3))
def test_any_response_to_a_plain_request_is_what_h11_writes(said: Sequence[Response]) -> None:
    data = PLAIN * 5
    with patch.object(http, "_plain", lambda *_: None):
        by_h11 = told([data], said)

    assert told([data], said) == by_h11
