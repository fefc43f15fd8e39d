"""A WebSocket: one text is one JSON value; controls have their turn; a close is the end."""

from __future__ import annotations

import tracemalloc

import pytest
from wsproto import events
from wsproto.connection import ConnectionState

from taskd.errors import InvalidRequest, ParseError, WireError
from taskd.wire import Control, JsonStream, Message, Opening, Response, WebSocket, websocket
from taskd.wire.handshake import FRAME_HEAD
from tests.wire.test_any_cut import cut, read
from tests.wire.websocket import (
    ASKING,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    closing,
    frame,
    opened,
    said,
)  # fmt: skip

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def client() -> Client:
    client = Client()
    client.say(events.Request(host="localhost", target="/jsonrpc"))
    assert list(client.core.events()) == [events.AcceptConnection()]
    return client


# Messages


def test_values_go_both_ways_in_any_number_of_fragments(client: Client) -> None:
    value = {"method": "Task.ls", "é": "\U0001f600"}
    for part in ('{"method":', "", ' "Task.ls", "é": "\U0001f600'):
        client.say(events.TextMessage(part, message_finished=False))
        assert client.framing.partial
    client.say(events.TextMessage('"}'), events.TextMessage("1"))

    assert client.heard == [value, 1]
    assert not client.framing.partial
    assert client.hear(value) == [events.TextMessage('{"method":"Task.ls","é":"\U0001f600"}')]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1 << 24])
def test_a_reply_of_any_length_is_one_text(client: Client, size: int) -> None:
    text = '"' + "x" * (size - 2) + '"' if size else "0"

    assert client.hear(text[1:-1] if size else 0) == [events.TextMessage(text)]


@pytest.mark.parametrize("value", [{"path": "\udcff"}, object(), Response(200)])
def test_what_json_cannot_say_is_no_reply(value: object) -> None:
    with pytest.raises(TypeError):
        opened().reply(value)


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        (b"", ParseError, "no value where one is due"),
        (b"{]", ParseError, "expected"),
        (b"{} {}", ParseError, "unexpected content after document"),
        (b"1\n2", ParseError, "unexpected content after document"),
        (b"\xef\xbb\xbf{}", ParseError, "BOM"),
        (b"[" * 101 + b"]" * 101, InvalidRequest, "nested deeper than 100"),
    ],
)
def test_a_text_that_is_no_json_is_one_error_in_its_place_and_the_next_is_read(
    text: bytes, error: type[WireError], reason: str
) -> None:
    wrong, good = opened().receive(frame(TEXT, text) + frame(TEXT, b"[1]"))

    assert type(wrong) is error
    assert reason in str(wrong)
    assert good == [1]


def test_bytes_are_no_message_however_many_fragments_they_have() -> None:
    framing = opened()
    wrong, also_wrong, good = framing.receive(
        frame(BINARY, b"[1]")
        + frame(BINARY, b"\xff", fin=False)
        + frame(CONTINUATION, b"\xff")
        + frame(TEXT, b"[1]")
    )

    for error in (wrong, also_wrong):
        assert type(error) is InvalidRequest
        assert str(error) == "a message must be text"
    assert good == [1]


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("sizes", [[1000], [999, 1], [0, 1000, 0], [1] * 1000])
def test_a_message_may_be_as_long_as_the_limit_over_its_fragments_and_not_a_byte_longer(
    kind: int, sizes: list[int]
) -> None:
    def message(sizes: list[int]) -> bytes:
        frames = [
            frame(kind if at == 0 else CONTINUATION, b"1" * size, fin=False) for at, size in enumerate(sizes)
        ]
        return b"".join(frames) + frame(CONTINUATION)

    framing = opened(1000)
    assert len(framing.receive(message(sizes) * 3)) == 3
    assert framing.receive(message([*sizes, 1])) == [said(1009, "a message is longer than 1000 bytes")]
    assert framing.broken
    assert framing.receive(frame(TEXT, b"1")) == []


@pytest.mark.parametrize("length", [1001, 70_000, 1 << 40, (1 << 63) - 1])
def test_a_frame_that_is_too_long_is_known_by_its_head(length: int) -> None:
    framing = opened(1000)
    head = frame(TEXT, length=length)
    one, close = framing.receive(frame(TEXT, b"1") + head)

    assert (one, close) == (1, said(1009, "a message is longer than 1000 bytes"))
    assert framing.broken


def test_controls_have_no_part_in_the_length_of_a_message() -> None:
    framing = opened(10)
    messages = framing.receive(
        frame(TEXT, b"12345", fin=False) + frame(PONG, b"x" * 125) * 9 + frame(CONTINUATION, b"67890")
    )

    assert messages == [1234567890]


# Controls


def test_a_ping_is_answered_in_its_turn_with_what_it_carries(client: Client) -> None:
    client.say(events.TextMessage("[1"), events.Ping(b"are you there?"), events.Pong(b"unasked"))
    _, pong = client.heard

    assert isinstance(pong, Control)
    assert client.hear(pong) == [events.Pong(b"are you there?")]


def test_messages_and_controls_come_in_the_order_of_the_wire() -> None:
    framing = opened()
    messages = framing.receive(
        frame(PING, b"a")
        + frame(TEXT, b"1", fin=False)
        + frame(PING, b"b")
        + frame(CONTINUATION, b"2")
        + frame(BINARY)
        + frame(PING, b"c")
        + closing(1000)
        + frame(PING, b"d")
    )
    pongs = [Control(frame(PONG, payload, masked=False)) for payload in (b"a", b"b", b"c")]

    assert str(messages.pop(3)) == "a message must be text"
    assert messages == [pongs[0], pongs[1], 12, pongs[2], said(1000)]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1009, "too much for me"), (4999, "é" * 61)])
def test_a_close_is_answered_with_the_same_and_is_the_end(client: Client, code: int, reason: str) -> None:
    client.say(events.TextMessage("1"), events.CloseConnection(code, reason))
    one, close = client.heard

    assert one == 1
    assert (client.framing.broken, client.framing.partial) == (True, False)
    assert client.framing.receive(frame(TEXT, b"1")) == []
    assert client.hear(close) == [events.CloseConnection(code, reason)]
    assert client.core.state is ConnectionState.CLOSED


def test_a_close_without_a_code_is_answered_without_one() -> None:
    assert opened().receive(frame(CLOSE)) == [Control(frame(CLOSE, masked=False))]


def test_what_came_before_a_close_is_answered_before_it_and_nothing_is_said_after_it(client: Client) -> None:
    client.say(events.TextMessage("1"), events.Ping(), events.TextMessage("2"), events.CloseConnection(1000))
    one, pong, two, close = client.heard

    heard = [event for reply in (one, pong, two, close) for event in client.hear(reply)]
    assert [type(event) for event in heard] == [
        events.TextMessage, events.Pong, events.TextMessage, events.CloseConnection,
    ]  # fmt: skip
    assert [client.framing.reply(reply) for reply in (one, pong, close)] == [b"", b"", b""]
    with pytest.raises(TypeError):
        client.framing.reply(object())


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(TEXT, b"1", masked=False), 1002, "unmasked frame"),
        (frame(PING, masked=False), 1002, "unmasked frame"),
        (frame(TEXT, b"1", reserved=4), 1002, "Reserved bit"),
        (frame(TEXT, b"1", reserved=2), 1002, "Reserved bit"),
        (frame(CLOSE, reserved=1), 1002, "Reserved bit"),
        (frame(3), 1002, "Invalid opcode"),
        (frame(15), 1002, "Invalid opcode"),
        (frame(PING, fin=False), 1002, "fragment control frame"),
        (frame(CLOSE, fin=False), 1002, "fragment control frame"),
        (frame(PING, b"x" * 126), 1002, "Control frame with payload len > 125"),
        (frame(CONTINUATION, b"1"), 1002, "unexpected CONTINUATION"),
        (frame(TEXT, b"1", fin=False) + frame(TEXT, b"1"), 1002, "expected CONTINUATION"),
        (frame(TEXT, b"1", fin=False) + frame(BINARY), 1002, "expected CONTINUATION"),
        (b"\x81\xfe\x00\x01", 1002, "1 would have sufficed"),
        (b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x01", 1002, "2 would have sufficed"),
        (frame(TEXT, length=1 << 63), 1002, "non-zero MSB"),
        (frame(CLOSE, b"1"), 1002, "CLOSE with 1 byte payload"),
        (closing(999), 1002, "CLOSE with invalid code"),
        (closing(1005), 1002, "local-only"),
        (closing(1004), 1002, "unknown reserved code"),
        (closing(1000)[:-2] + b"\xff\xff", 1002, "CLOSE with invalid code"),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007, "a text must be UTF-8"),
        (frame(TEXT, b'"\xff"'), 1007, "a text must be UTF-8"),
        (frame(TEXT, b'"\xed\xa0\x80"'), 1007, "a text must be UTF-8"),
        (frame(TEXT, b'"\xe2\x82'), 1007, "a text must be UTF-8"),
        (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"("), 1007, "a text must be UTF-8"),
        (GET, 1002, "Invalid opcode"),
    ],
)
def test_what_breaks_the_rules_closes_with_the_code_for_it_and_harms_nothing_before_it(
    data: bytes, code: int, reason: str
) -> None:
    for pieces in ([data], cut(data, range(len(data)))):
        framing = opened()
        first, close = [
            *framing.receive(frame(TEXT, b'"first"')),
            *(m for piece in pieces for m in framing.receive(piece)),
        ]

        assert first == "first"
        assert isinstance(close, Control)
        assert framing.reply(close)[:1] == b"\x88"
        assert int.from_bytes(close.data[2:4]) == code
        assert reason in close.data[4:].decode()
        assert (framing.broken, framing.partial) == (True, False)
        assert framing.receive(frame(TEXT, b"1") + frame(CLOSE)) == []


def test_our_own_close_is_said_once_and_is_the_end(client: Client) -> None:
    client.say(events.TextMessage("1", message_finished=False))
    close = client.framing.closing(1001, "the daemon stops")

    assert (client.framing.broken, client.framing.partial) == (True, False)
    assert client.framing.receive(frame(TEXT, b"1")) == []
    assert client.framing.closing(1008) == Control(b"")
    assert client.hear(client.framing.closing(1008)) == []
    assert client.hear(close) == [events.CloseConnection(1001, "the daemon stops")]
    assert client.hear(1) == []


def test_a_close_of_ours_where_one_is_under_way_is_empty_and_leaves_that_its_turn(client: Client) -> None:
    client.say(events.CloseConnection(1000))

    assert client.hear(client.framing.closing(1001)) == []
    assert [type(event) for event in client.hear(1)] == [events.TextMessage]
    assert client.hear(*client.heard) == [events.CloseConnection(1000, "")]


def test_a_reason_is_as_long_as_a_control_can_be() -> None:
    assert opened().closing(1008, "é" * 100) == said(1008, "é" * 61)


def test_another_framing_has_no_close_of_its_own() -> None:
    for data in (b"", b"{}", GET, ASKING, b"\0"):
        framing = Opening()
        framing.receive(data or b" ")
        assert framing.closing(1001) is None


def test_a_message_that_does_not_come_in_time_closes_with_the_reason() -> None:
    framing = opened()
    framing.receive(frame(TEXT, b"1")[:-1])
    assert framing.partial

    assert framing.timed_out("too late") == said(1008, "too late")
    assert (framing.broken, framing.partial) == (True, False)
    assert framing.receive(frame(TEXT, b"1")[-1:]) == []


@pytest.mark.parametrize("data", [b"", frame(TEXT, b"1")[:3], frame(TEXT, b"1", fin=False)])
def test_to_a_peer_that_is_gone_without_a_close_nothing_is_said(data: bytes) -> None:
    framing = opened()

    assert read(framing, [frame(TEXT, b"1"), data]) == [1]
    assert (framing.broken, framing.partial) == (True, False)
    assert framing.closing(1001) == Control(b"")


# What it costs


def test_a_message_is_partial_from_its_first_byte_to_its_last() -> None:
    framing = opened()

    def partial(data: bytes) -> list[bool]:
        return [framing.receive(bytes([byte])) is not None and framing.partial for byte in data]

    assert partial(frame(TEXT, b"12")) == [True] * 7 + [False]
    assert partial(frame(PING)) == [True] * 5 + [False]
    assert partial(frame(TEXT, b"1" * 126, fin=False)) == [True] * (8 + 126)
    assert partial(frame(PONG)) == [True] * 6
    assert partial(frame(CONTINUATION)) == [True] * 5 + [False]
    assert partial(frame(BINARY, fin=False) + frame(CONTINUATION)) == [True] * 11 + [False]
    assert partial(frame(TEXT, b"1" * 65536))[-2:] == [True, False]


def test_a_message_in_fragments_of_a_byte_costs_no_more_memory_than_it_is_long() -> None:
    framing = opened()
    character = "€".encode()
    fragments = frame(CONTINUATION, character, fin=False) * 1000 + frame(CONTINUATION, fin=False) * 1000
    framing.receive(frame(TEXT, b'"', fin=False))

    tracemalloc.start()
    try:
        for _ in range(20):
            framing.receive(fragments)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 60_000 <= kept < 100_000
    assert framing.receive(frame(CONTINUATION, b'"')) == ["€" * 20_000]


def test_a_message_that_comes_byte_by_byte_is_parsed_once_and_nothing_of_it_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[bytes] = []

    def parse(text: bytes, max_bytes: int, max_depth: int) -> Message:
        parsed.append(text)
        stream = JsonStream(max_bytes, max_depth)
        return [*stream.receive(text), *stream.receive(b"")]

    monkeypatch.setattr(websocket, "sole", parse)
    framing = opened()
    text = b"[" + b"1," * 10_000 + b"1]"
    for piece in cut(frame(TEXT, text), range(len(text) + FRAME_HEAD)):
        framing.receive(piece)

    assert parsed == [text]
    chosen = framing._chosen
    assert isinstance(chosen, WebSocket)
    assert chosen._text == b""
