"""What the JSON stream refuses, with which words, and that it goes on reading where it can."""

from __future__ import annotations

import pytest

from taskd.errors import InvalidRequest, ParseError
from taskd.wire import JsonStream, Message, sole
from tests.counted import calls

GOOD = b'{"id": 7}\n'


def read(data: bytes) -> list[Message]:
    """All of the stream, to its end, under the limits that are the default."""
    stream = JsonStream()
    return [*stream.receive(data), *stream.receive(b"")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"hello", "unexpected character"),
        (b"}", "unexpected character"),
        (b'{"id": 1]', "expected"),
        (b"[1, 2,]", "trailing comma"),
        (b"[NaN]", "unexpected character"),
        (b"[Infinity]", "unexpected character"),
        (b"[-Infinity]", "sign"),
        (b"[1e400]", "infinity"),
        (b'["\\ud800"]', "surrogate"),
        (b'["\xff"]', "UTF-8"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b'["a\x00b"]', "control character"),
        (b'["a\tb"]', "control character"),
        (b'["\\x41"]', "escape"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"1 2", "after document"),
        (b"42 {}", "after document"),
        (b"\x16\x03\x01\x02\x00\x01", "unexpected character"),
    ],
)
def test_what_is_no_json_is_one_parse_error_and_the_next_message_is_read(text: bytes, reason: str) -> None:
    error, good = read(text + b"\n" + GOOD)

    assert type(error) is ParseError
    assert reason in str(error)
    assert good == {"id": 7}


def test_a_parse_error_never_quotes_what_was_sent() -> None:
    for text in (
        b"hunter2",
        b'{"password": hunter2}',
        b"{hunter2: 1}",
        b'["hunter2\xff"]',
        b'["hunter2\\x"]',
    ):
        (error,) = read(text)
        assert type(error) is ParseError
        assert "hunter2" not in repr(error) + str(error)


@pytest.mark.parametrize(
    "text", [b'{"method": "Task.stat', b'{"params": {"id": "x', b'[["x\\', b'{"method": "Task.stat\\', b'["\\"]}']
)
def test_a_line_break_inside_a_string_ends_the_message_as_one_error_and_reading_goes_on(text: bytes) -> None:
    error, good = read(text + b"\n" + GOOD)

    assert type(error) is ParseError
    assert good == {"id": 7}


@pytest.mark.parametrize("text", [b"{", b'{"id": 7', b'["abc', b'["abc\\', b"[[1]"])
def test_an_end_in_the_middle_of_a_value_is_one_parse_error(text: bytes) -> None:
    good, error = read(GOOD + text)

    assert good == {"id": 7}
    assert type(error) is ParseError
    assert str(error) == "the stream ended in the middle of a value"


def test_an_end_completes_a_line_and_after_blanks_says_nothing() -> None:
    assert read(b"42") == [42]
    assert read(b" \r\n\t") == []
    assert read(b"") == []


def test_what_comes_after_the_end_is_not_read() -> None:
    stream = JsonStream()
    stream.receive(b"")

    assert stream.receive(GOOD) == []
    assert not stream.partial
    assert repr(stream) == "<JsonStream ended>"


def test_a_value_that_is_no_request_is_a_message_all_the_same() -> None:
    assert read(b'42\n"text"\nnull\n[]true\n') == [42, "text", None, [], True]


def test_of_a_repeated_key_the_last_value_counts() -> None:
    assert read(b'{"id": 1, "id": 2}') == [{"id": 2}]


def test_a_number_of_300_digits_is_read_as_the_float_that_it_is_nearest_to() -> None:
    assert read(b"[" + b"1" * 300 + b"]") == [[float("1" * 300)]]


@pytest.mark.parametrize("message", [b'["%s"]', b'"%s"\n', b'"%s"\r\n{"id": 7}'])
def test_a_message_may_be_as_long_as_the_limit_and_not_a_byte_longer(message: bytes) -> None:
    frame = len(message.partition(b"\n")[0] % b"")
    stream = JsonStream(max_bytes=100)
    stream.receive(message % (b"x" * (100 - frame)))
    assert not stream.broken

    stream = JsonStream(max_bytes=100)
    (error,) = stream.receive(message % (b"x" * (101 - frame)))
    assert type(error) is InvalidRequest
    assert str(error) == "a message is longer than 100 bytes"
    assert stream.broken


@pytest.mark.parametrize("start", [b"xx", b'["', b"[1", b'[""'])
def test_a_message_that_grows_over_the_limit_is_refused_before_its_end_and_nothing_is_read_after_it(
    start: bytes,
) -> None:
    stream = JsonStream()
    assert stream.receive(GOOD + start + b"x" * ((1 << 20) - len(start))) == [{"id": 7}]
    assert (stream.partial, stream.broken) == (True, False)

    (error,) = stream.receive(b"x")
    assert type(error) is InvalidRequest
    assert str(error) == "a message is longer than 1048576 bytes"
    assert (stream.partial, stream.broken) == (False, True)
    assert stream.receive(b'"]' + GOOD) == []
    assert stream.receive(b"") == []
    assert repr(stream) == "<JsonStream broken>"


def test_many_messages_may_be_longer_together_than_one_may_be() -> None:
    stream = JsonStream(max_bytes=len(GOOD))

    assert stream.receive(GOOD * 50) == [{"id": 7}] * 50


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"":', b"}")])
def test_nesting_to_the_limit_is_read_and_one_deeper_is_refused_to_its_last_bracket(
    opening: bytes, closing: bytes
) -> None:
    allowed, error, good = read(
        opening * 100 + b"1" + closing * 100 + opening * 101 + b'"]}"' + closing * 101 + GOOD
    )

    assert isinstance(allowed, list | dict)
    assert type(error) is InvalidRequest
    assert str(error) == "nested deeper than 100"
    assert good == {"id": 7}


def test_ten_thousand_nested_brackets_are_one_refusal_given_before_they_are_closed() -> None:
    stream = JsonStream()
    (error,) = stream.receive(b"[" * 10_000)
    assert str(error) == "nested deeper than 100"
    assert stream.partial

    assert stream.receive(b"]" * 10_000 + GOOD) == [{"id": 7}]


def test_a_refused_nesting_that_is_never_closed_is_not_refused_again_at_the_end() -> None:
    (error,) = read(b"[" * 10_000)

    assert str(error) == "nested deeper than 100"


@pytest.mark.parametrize(
    "many", [b"[],", b'"[",{},', b'["\\"]"],'], ids=["lists", "strings and objects", "lists of strings"]
)
@pytest.mark.parametrize("end", [b"1]", b"1", b"1]}"], ids=["whole", "without its end", "with another's end"])
def test_a_value_that_comes_as_a_whole_is_not_gone_through_bracket_by_bracket(many: bytes, end: bytes) -> None:
    """A megabyte of brackets held everybody up for as long as a few thousand calls take."""
    text = b"[" + many * 10_000 + end

    assert calls(lambda: sole(text)) < 100


def test_a_message_is_partial_from_its_first_byte_to_its_last() -> None:
    stream = JsonStream()
    states = []
    for byte in b' {"a":1}\n4\n':
        stream.receive(bytes([byte]))
        states.append(stream.partial)

    assert states == [False, *[True] * 6, False, False, True, False]


def test_a_reply_is_compact_json_on_a_line_of_its_own() -> None:
    assert JsonStream().reply({"result": [1.0, None], "id": "é"}) == '{"result":[1.0,null],"id":"é"}\n'.encode()


def test_what_json_cannot_say_is_no_reply() -> None:
    with pytest.raises(TypeError):
        JsonStream().reply({"path": "\udcff"})
