"""A WebSocket is asked for over HTTP: what asks, what is refused, what is granted, and what comes behind it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from wsproto import events
from wsproto.extensions import PerMessageDeflate

from taskd.wire import Control, Opening, Request, Response
from taskd.wire.handshake import FRAME_HEAD
from tests.wire.test_any_cut import cut
from tests.wire.websocket import (
    ACCEPT,
    ASKING,
    CLOSE,
    CONNECTION,
    KEY,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    VERSION,
    Client,
    asking,
    frame,
    said,
)  # fmt: skip

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
NONE_WAITS = "no request for a WebSocket is waiting"


def asked(data: bytes = ASKING) -> tuple[Opening, Request]:
    """A stream, and what was asked on it last."""
    framing = Opening()
    *_, request = framing.receive(data)
    assert isinstance(request, Request)
    return framing, request


@pytest.mark.parametrize(
    "change",
    [
        (UPGRADE, CONNECTION),
        (b"UPGRADE: WebSocket", b"connection: upgrade"),
        (b"Upgrade: h2c,  websocket", b"Connection: keep-alive, Upgrade"),
        (b"Upgrade: h2c", UPGRADE, b"Connection: close", CONNECTION),
    ],
)
def test_a_get_that_asks_to_change_to_it_asks_for_a_websocket(change: Sequence[bytes]) -> None:
    framing, request = asked(asking(KEY, VERSION, line=b"GET /a?b HTTP/1.1", change=change))

    assert request.websocket
    assert (request.path, request.query) == ("/a", "b")
    assert not framing.broken


@pytest.mark.parametrize(
    "data",
    [
        asking(
            change=[b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAAP__"]
        ),
        asking(change=[b"Upgrade: websocket/13, xwebsocket", CONNECTION]),
        asking(change=[UPGRADE]),
        asking(change=[CONNECTION]),
        asking(change=[]),
        asking(KEY, VERSION, line=b"POST /x HTTP/1.1"),
    ],
)
def test_what_does_not_ask_for_it_is_a_request_like_another_and_so_is_the_next(data: bytes) -> None:
    framing = Opening()
    messages = framing.receive(data + GET)

    assert [isinstance(message, Request) and message.websocket for message in messages] == [False, False]
    for _ in messages:
        assert framing.reply(Response(200)).startswith(b"HTTP/1.1 200 OK")
    assert not framing.broken
    with pytest.raises(ValueError, match=NONE_WAITS):
        framing.upgrade()


def test_over_http_1_0_is_no_websocket() -> None:
    _, request = asked(asking(KEY, VERSION, line=b"GET / HTTP/1.0"))

    assert not request.websocket


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b"Sec-WebSocket-Key:"],
        [b"Sec-WebSocket-Key: hunter2"],
        [KEY[:-1]],
        [KEY[:-2] + b"AA"],
        [KEY + b"AAAA"],
        [KEY + b"\xff"],
        [KEY, KEY],
    ],
)
def test_a_key_that_is_not_base64_of_16_bytes_is_refused_and_nothing_is_read_after_it(
    headers: list[bytes],
) -> None:
    framing = Opening()
    (refused,) = framing.receive(asking(VERSION, *headers) + GET)

    assert isinstance(refused, Response)
    assert refused.status == 400
    assert refused.body == b"Sec-WebSocket-Key must be given once, as base64 of 16 bytes\n"
    assert framing.broken
    assert b"Connection: close\r\n" in framing.reply(refused)


@pytest.mark.parametrize(
    "headers", [[], [b"Sec-WebSocket-Version: 8"], [b"Sec-WebSocket-Version: 13, 8"], [VERSION, VERSION]]
)
def test_a_version_other_than_13_is_refused_with_the_one_that_is_spoken(headers: list[bytes]) -> None:
    framing = Opening()
    (refused,) = framing.receive(asking(KEY, *headers) + GET)

    assert isinstance(refused, Response)
    assert framing.broken
    status, *head = framing.reply(refused).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert status == b"HTTP/1.1 426 Upgrade Required"
    assert {VERSION, UPGRADE, b"Connection: close"} <= set(head)


def test_a_request_that_is_granted_is_answered_as_the_rfc_has_it_and_is_a_websocket_from_then_on() -> None:
    framing, _ = asked()

    response, behind = framing.upgrade()
    assert behind == []
    status, *head, end, body = response.split(b"\r\n")
    assert status.startswith(b"HTTP/1.1 101 ")
    assert {line.lower() for line in head} == {UPGRADE.lower(), CONNECTION.lower(), ACCEPT.lower()}
    assert ACCEPT in head
    assert end == body == b""
    assert repr(framing) == "<Opening <WebSocket open>>"
    assert framing.receive(frame(TEXT, b"[1]")) == [[1]]
    with pytest.raises(ValueError, match=NONE_WAITS):
        framing.upgrade()


def test_neither_an_extension_nor_a_subprotocol_is_spoken() -> None:
    client = Client()
    client.say(events.Request("localhost", "/", extensions=[PerMessageDeflate()], subprotocols=["jsonrpc"]))

    assert list(client.core.events()) == [events.AcceptConnection(subprotocol=None, extensions=[])]


def test_an_extension_named_like_what_measures_the_frames_is_not_spoken_either() -> None:
    framing, _ = asked(asking(KEY, VERSION, b"Sec-WebSocket-Extensions: frames"))

    assert b"Extensions" not in framing.upgrade()[0]


@pytest.mark.parametrize("host", [b"", b"a..b", b"x" * 100, b"\xff"])
def test_the_host_may_be_anything(host: bytes) -> None:
    framing, _ = asked(ASKING.replace(b"_run_taskd_taskd.sock", host))

    assert framing.upgrade()[0].startswith(b"HTTP/1.1 101 ")


def test_requests_before_it_are_answered_first() -> None:
    framing = Opening()
    messages = framing.receive(GET + GET + ASKING + frame(TEXT, b"1"))
    assert [isinstance(message, Request) and message.websocket for message in messages] == [False, False, True]

    for _ in range(2):
        with pytest.raises(ValueError, match=NONE_WAITS):
            framing.upgrade()
        assert framing.reply(Response(204)) == b"HTTP/1.1 204 No Content\r\n\r\n"
        assert not framing.broken
    assert framing.upgrade()[1] == [1]


@pytest.mark.parametrize("status", [200, 204, 403, 404])
def test_one_that_is_answered_otherwise_closes_and_what_came_behind_it_is_no_request(status: int) -> None:
    framing, _ = asked(GET + ASKING)
    assert framing.receive(GET) == []
    assert b"close" not in framing.reply(Response(200))
    assert (framing.broken, framing.partial) == (False, False)

    assert b"Connection: close\r\n" in framing.reply(Response(status))
    assert (framing.broken, framing.partial) == (True, False)
    assert framing.receive(GET) == []
    with pytest.raises(ValueError, match=NONE_WAITS):
        framing.upgrade()


def test_frames_that_came_behind_the_request_are_read_when_it_is_granted() -> None:
    framing, _ = asked(ASKING + frame(TEXT, b"1") + frame(PING))
    assert framing.receive(frame(TEXT, b"2")) == []
    assert not framing.partial

    assert framing.upgrade()[1] == [1, Control(frame(PONG, masked=False)), 2]


def test_half_a_frame_behind_the_request_waits_for_its_other_half() -> None:
    whole = frame(TEXT, b"[1]")
    framing, _ = asked(ASKING + whole[:4])

    assert framing.upgrade()[1] == []
    assert framing.partial
    assert framing.receive(whole[4:]) == [[1]]


@pytest.mark.parametrize("more", [b"", b"\x8a"])
@pytest.mark.parametrize("pieces", [1, 9])
def test_behind_the_request_as_much_is_kept_as_a_message_has_and_more_is_said_to_be_the_end(
    more: bytes, pieces: int
) -> None:
    framing, whole = Opening(max_bytes=65536), frame(TEXT, b"1".rjust(65536))
    assert len(whole) == 65536 + FRAME_HEAD
    framing.receive(ASKING)
    for piece in cut(whole + more, range(0, len(whole), -(-len(whole) // pieces))):
        assert framing.receive(piece) == []
    assert framing.broken == bool(more)

    expected = [1, said(1008, "more than 65550 bytes were sent before the answer")]
    assert framing.upgrade()[1] == expected[: 1 + len(more)]
    assert framing.broken == bool(more)


def test_what_is_too_much_behind_a_close_is_not_minded() -> None:
    framing = Opening(max_bytes=100)
    framing.receive(ASKING + frame(CLOSE) + b"x" * 200)

    assert framing.upgrade()[1] == [Control(b"\x88\x00")]


def test_of_a_peer_that_ends_behind_its_request_what_it_sent_is_read_and_no_more() -> None:
    framing, _ = asked(ASKING + frame(TEXT, b"1") + frame(TEXT, b"2")[:-1])
    assert framing.receive(b"") == []
    assert framing.broken

    assert framing.upgrade()[1] == [1]
    assert repr(framing) == "<Opening <WebSocket closed>>"
    assert not framing.partial
