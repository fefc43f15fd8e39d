"""HTTP/1.1: requests whole and in order, responses to match, refusals with a status and a sentence."""

from __future__ import annotations

import pytest

from taskd.wire import Http, Message, Request, Response, sentence
from taskd.wire.http import HEAD_BYTES


def request(line: bytes = b"GET /x", *headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([line + b" HTTP/" + version, b"Host: _run_taskd_taskd.sock", *headers, b"", body])


def refusal(data: bytes, framing: Http | None = None) -> Response:
    """What the first message is refused with."""
    framing = framing or Http()
    (refused,) = [*framing.receive(data), *framing.receive(b"")]
    assert isinstance(refused, Response)
    assert framing.broken
    assert ("Connection", "close") in refused.headers
    return refused


def statuses(framing: Http, messages: list[Message]) -> list[bytes]:
    """The status lines of the replies, 200 for each request."""
    replies = (m if isinstance(m, Response) else Response(200, m.path.encode()) for m in messages)  # type: ignore[attr-defined]  # a request
    return [framing.reply(reply).partition(b"\r\n")[0] for reply in replies]


def test_a_request_has_its_method_path_query_headers_and_body() -> None:
    data = request(b"POST /a/b?c=d&e", b"X-Y: Z", b"Content-Length: 2", body=b"{}")
    (message,) = Http().receive(data)

    assert isinstance(message, Request)
    assert (message.method, message.path, message.query, message.body) == ("POST", "/a/b", "c=d&e", b"{}")
    assert (message.header("x-y"), message.header("host")) == ("Z", "_run_taskd_taskd.sock")
    assert message.header("none") is None


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://any.where:80/a?b", "/a", "b"),
        (b"http://any.where", "/", ""),
        (b"*", "*", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"/%2e", "/%2e", ""),
    ],
)
def test_a_target_in_any_form_is_a_path(target: bytes, path: str, query: str) -> None:
    (message,) = Http().receive(request(b"OPTIONS " + target))

    assert isinstance(message, Request)
    assert (message.path, message.query) == (path, query)


def test_pipelined_requests_come_out_before_any_is_answered_and_are_answered_in_order() -> None:
    framing = Http()
    messages = framing.receive(b"".join(request(b"GET /%d" % number) for number in range(50)))

    assert [message.path for message in messages] == [f"/{n}" for n in range(50)]  # type: ignore[attr-defined]  # requests
    assert not framing.broken
    assert not framing.partial
    for number in range(50):
        assert framing.reply(Response(200, b"%d" % number)).endswith(b"\r\n\r\n%d" % number)
    assert not framing.broken


def test_a_refusal_waits_for_the_answers_to_what_came_before_it() -> None:
    framing = Http()
    messages = framing.receive(request() + request(b"POST /y", b"Content-Length: 9999999") + request())

    assert statuses(framing, messages) == [b"HTTP/1.1 200 OK", b"HTTP/1.1 413 Request Entity Too Large"]
    assert framing.receive(request()) == []


def test_a_line_break_between_two_requests_is_not_minded() -> None:
    messages = Http().receive(b"\r\n" + request() + b"\r\n\r\n" + request())

    assert len(messages) == 2


def test_a_client_that_waits_is_told_to_go_on_and_one_whose_body_is_too_long_is_not() -> None:
    framing = Http(max_bytes=10)
    head = [b"Expect: 100-continue", b"Content-Length: %d"]
    (go_on,) = framing.receive(request(b"POST /", head[0], head[1] % 10))
    assert framing.reply(go_on) == b"HTTP/1.1 100 Continue\r\n\r\n"
    (whole,) = framing.receive(b"0123456789")
    assert isinstance(whole, Request)
    assert framing.reply(Response(204)) == b"HTTP/1.1 204 No Content\r\n\r\n"

    assert refusal(request(b"POST /", head[0], head[1] % 11), framing).status == 413


def test_a_chunked_body_is_put_together_and_one_too_long_refused() -> None:
    head = request(b"POST /", b"Transfer-Encoding: chunked")
    (message,) = Http(max_bytes=5).receive(head + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")
    assert isinstance(message, Request)
    assert message.body == b"abcde"

    assert refusal(head + b"2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n", Http(max_bytes=5)).status == 413


def test_the_head_of_a_request_has_a_limit_that_is_the_same_in_any_cut() -> None:
    def data(size: int) -> bytes:
        short = request(b"GET /", b"X: ")
        return short[:-4] + b"x" * (size - len(short)) + b"\r\n\r\n"

    for pieces in (1, HEAD_BYTES):
        for size, fits in ((HEAD_BYTES, True), (HEAD_BYTES + 2, False), (3 * HEAD_BYTES, False)):
            framing, step, sent = Http(), -(-size // pieces), data(size)
            assert len(sent) == size
            (message,) = (
                m for at in range(0, size, step) for m in framing.receive(sent[at : at + step])
            )  # fmt: skip
            assert isinstance(message, Request) == fits
            assert fits or message.status == 431  # type: ignore[attr-defined]  # a refusal


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"GET lost\r\n\r\n", 400, "illegal request line"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nhunter2\r\n\r\n", 400, "illegal header line"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA b: hunter2\r\n\r\n", 400, "illegal header line"),
        (request(b"POST /", b"Content-Length: x"), 400, "bad Content-Length"),
        (request(b"POST /", b"Content-Length: 1", b"Content-Length: 2"), 400, "conflicting Content-Length"),
        (request(b"POST /", b"Transfer-Encoding: gzip"), 501, "chunked"),
        (request(b"POST /", b"Transfer-Encoding: chunked", body=b"hunter2\r\n"), 400, "illegal chunk header"),
        (request(b"POST /", b"Transfer-Encoding: chunked", body=b"1\r\nhunter2"), 400, "malformed chunk footer"),
        (request(b"GET /", version=b"2.0"), 505, "HTTP/1.1"),
        (request(b"POST /", b"Content-Length: 5", body=b"{"), 400, "the stream ended in the middle"),
        (b"GET / HT", 400, "the stream ended in the middle"),
    ],
)
def test_what_is_no_request_is_refused_with_a_status_and_a_sentence_that_quotes_nothing(
    data: bytes, status: int, reason: str
) -> None:
    refused = refusal(data)

    assert refused.status == status
    assert reason in refused.body.decode()
    assert b"hunter2" not in refused.body
    assert refused.body.endswith(b"\n")


def test_a_refusal_can_be_said_whatever_it_was_that_came() -> None:
    for data in (b"GET lost\r\n\r\n", b"GET / HT", request(b"POST /", b"Content-Length: 5", body=b"{")):
        framing = Http()
        (refused,) = [*framing.receive(data), *framing.receive(b"")]
        assert framing.reply(refused).startswith(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n")


@pytest.mark.parametrize(("version", "header"), [(b"1.0", b"X: y"), (b"1.1", b"Connection: close")])
def test_after_the_last_request_of_a_connection_nothing_is_read(version: bytes, header: bytes) -> None:
    framing = Http()
    (message,) = framing.receive(request(b"GET /", header, version=version) + request())

    assert isinstance(message, Request)
    assert framing.broken
    assert b"Connection: close" in framing.reply(Response(200))


def test_a_head_has_the_headers_of_its_get_and_no_body() -> None:
    framing = Http()
    framing.receive(request(b"GET /") + request(b"HEAD /"))
    got, head = (framing.reply(Response(200, b"{}", "application/json")) for _ in range(2))

    assert got == head + b"{}"
    assert b"Content-Type: application/json\r\nContent-Length: 2\r\n" in head


def test_a_method_that_would_change_the_protocol_is_a_request_like_another() -> None:
    framing = Http()
    messages = framing.receive(
        request(b"CONNECT a:1") + request(b"GET /", b"Upgrade: x", b"Connection: Upgrade") + request()
    )

    assert statuses(framing, [sentence(405, "no"), *messages[1:]])[1:] == [b"HTTP/1.1 200 OK"] * 2
    assert not framing.broken


def test_a_connection_that_is_to_close_or_to_change_closes_once_its_change_is_refused() -> None:
    framing = Http()
    messages = framing.receive(request(b"GET /", b"Upgrade: x", b"Connection: Upgrade, close"))

    assert statuses(framing, messages) == [b"HTTP/1.1 200 OK"]
    assert framing.broken


def test_an_end_between_two_requests_says_nothing() -> None:
    framing = Http()
    assert framing.receive(request() + b"\r\n") != []
    assert framing.receive(b"") == []
    assert framing.receive(request()) == []


def test_only_a_response_can_be_said() -> None:
    framing = Http()
    framing.receive(request())
    with pytest.raises(TypeError):
        framing.reply({"result": 1})


def test_a_length_and_chunks_together_are_refused() -> None:
    """Whoever stands before us may cut the stream by the other one."""
    both = request(b"POST /jsonrpc", b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")

    assert refusal(both).status == 400


@pytest.mark.parametrize("head", [b"GET / HTTP/1.0", b"GET / HTTP/1.1\r\nConnection: x, Close"])
@pytest.mark.parametrize("more", [b"", b"\r\nUpgrade: websocket", b"\r\nUpgrade: h2c\r\nConnection: Upgrade"])
def test_behind_a_request_that_ends_the_connection_nothing_is_read_however_it_is_cut(
    head: bytes, more: bytes
) -> None:
    sent = head + more + b"\r\nHost: taskd\r\n\r\n" + b"no request\r\n\r\n"
    whole, cut = Http(), Http()

    assert len(whole.receive(sent)) == 1
    assert sum(len(cut.receive(sent[at : at + 1])) for at in range(len(sent))) == 1
    assert whole.broken
    assert cut.broken
