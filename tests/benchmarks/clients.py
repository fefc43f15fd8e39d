"""The one client of all sides: blocking sockets, requests that were built before, replies that are only counted.

On two cores the client costs as much as the server; so it does as little as can be, and the same for everybody. A
reply ends with a line break, in any protocol but HTTP.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
from collections.abc import Callable, Sequence
from itertools import cycle
from time import perf_counter
from typing import Any, Final

import attrs

# Seconds after which a server is taken for dead.
PATIENCE: Final = 60.0

READ: Final = 1 << 16

_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def request(method: str, /, **params: object) -> bytes:
    """A line of JSON-RPC 2.0."""
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode() + b"\n"


def posted(path: str, body: bytes, kind: str) -> bytes:
    """The same as a request over HTTP."""
    head = f"POST {path} HTTP/1.1\r\nHost: taskd\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def connected(path: str) -> socket.socket:
    """Raises OSError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)  # blocking: with a timeout it is refused, and not awaited, while the queue is full
        sock.settimeout(PATIENCE)
    except BaseException:
        sock.close()
        raise
    return sock


def read_line(sock: socket.socket) -> bytes:
    said = b""
    while not said.endswith(b"\n"):
        more = sock.recv(READ)
        if not more:
            raise ConnectionError("the server has hung up")
        said += more
    return said


def at_rest(path: str) -> socket.socket:
    """Connected, and has asked: who says nothing is let go of (``message_deadline_s``). Raises OSError."""
    sock = connected(path)
    ask(sock, "Task.list", page_size=1)
    return sock


def ask(sock: socket.socket, method: str, /, **params: object) -> Any:
    """The result of one call. Raises RuntimeError where it is refused."""
    sock.sendall(request(method, **params))
    reply = json.loads(read_line(sock))
    if "result" not in reply:
        raise RuntimeError(f"{method}: {reply['error']}")
    return reply["result"]


def one_at_a_time(sock: socket.socket, requests: Sequence[bytes], seconds: float) -> list[float]:
    """Seconds from each request to the end of its reply. Raises ConnectionError: the server has hung up."""
    took: list[float] = []
    send, receive, end = sock.sendall, sock.recv, perf_counter() + seconds
    began = perf_counter()
    for each in cycle(requests):
        send(each)
        while not (came := receive(READ)).endswith(b"\n"):
            if not came:
                raise ConnectionError("the server has hung up")
        now = perf_counter()
        took.append(now - began)
        if now > end:
            return took
        began = now
    return took


def rate(took: Sequence[float]) -> float:
    return len(took) / sum(took)


def in_flight(sock: socket.socket, line: bytes, window: int, seconds: float) -> float:
    """Replies a second, with so many requests on their way: for each reply that comes a request goes."""
    send, receive, answered = sock.sendall, sock.recv, 0
    ready = [line * number for number in range(window + 1)]
    began = now = perf_counter()
    send(ready[window])
    while (now := perf_counter()) - began < seconds or not answered:
        came = receive(READ).count(b"\n")
        answered += came
        send(ready[came])
    took, left = now - began, window
    while left:
        left -= receive(READ).count(b"\n")
    return answered / took


@attrs.frozen
class Crowd:
    """What many connections had: replies a second in sum, and the seconds of each reply."""

    rate: float
    took: list[float]


def crowd(socks: Sequence[socket.socket], requests: Sequence[bytes], seconds: float) -> Crowd:
    """Each connection asks, and asks again when it has its reply.

    By their numbers: a socket with a timeout asks the kernel once more before each read and each write.
    """
    took: list[float] = []
    poll = select.epoll()
    line = dict(zip((sock.fileno() for sock in socks), cycle(requests)))
    asked = {}
    began = perf_counter()
    end = began + seconds
    for number, request in line.items():
        poll.register(number, select.EPOLLIN)
        asked[number] = perf_counter()
        os.write(number, request)
    left = len(line)
    now = began
    while left:
        for number, _ in poll.poll(PATIENCE):
            if not os.read(number, READ).endswith(b"\n"):
                continue
            now = perf_counter()
            took.append(now - asked[number])
            if now < end:
                asked[number] = now
                os.write(number, line[number])
            else:
                left -= 1
    poll.close()
    return Crowd(len(took) / (now - began), took)


def over_http(sock: socket.socket, whole: bytes, seconds: float) -> float:
    """Responses a second on one connection that is kept, one request at a time."""
    answered, began = 0, perf_counter()
    while (now := perf_counter()) - began < seconds or not answered:
        respond(sock, whole)
        answered += 1
    return answered / (now - began)


def respond(sock: socket.socket, whole: bytes) -> bytes:
    """The response to a request over HTTP."""
    sock.sendall(whole)
    said = sock.recv(READ)
    while not _is_whole(said):
        said += sock.recv(READ)
    return said


def _is_whole(said: bytes) -> bool:
    head, gap, body = said.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if gap and length is None:
        raise RuntimeError(f"a response without a length: {head!r}")
    return bool(gap) and length is not None and len(body) >= int(length[1])


def repeated(what: Callable[[], None], seconds: float) -> float:
    """How often a second it can be done; it is done once at least."""
    times, began = 0, perf_counter()
    while (now := perf_counter()) - began < seconds or not times:
        what()
        times += 1
    return times / (now - began)
