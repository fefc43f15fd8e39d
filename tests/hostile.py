"""Hostile clients, each to its limit, and the daemon that must not mind.

The cases of ``tests/server/test_unmoved.py`` and of ``tests.benchmarks.unmoved``. Each says what it does to the
daemon and asserts what comes of it; meanwhile a well-behaved client in a process of its own asks, must have every
answer, and measures. Where we are root the hostile ones are another user than it.
"""

from __future__ import annotations

import json
import os
import resource
import select
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedRWPair
from pathlib import Path
from typing import Any, Final

import attrs

from tests.others import NOBODY, connected_as_nobody
from tests.process import PATIENCE, DaemonProcess
from tests.well_behaved import Found, WellBehaved, well_behaved

IDLE: Final = 10_000

LABEL: Final = "the task of the other client"


@attrs.define(eq=False)
class Ground:
    """What a case has: the daemon, and the client that must not notice it."""

    daemon: DaemonProcess
    other: WellBehaved

    @property
    def path(self) -> str:
        return self.daemon.socket

    @property
    def pid(self) -> int:
        assert self.daemon.process is not None
        return self.daemon.process.pid

    @contextmanager
    def crowd(self, number: int, users: int = 1) -> Iterator[Sequence[socket.socket]]:
        """So many connections, of so many users."""
        with ExitStack() as stack:
            uids = [NOBODY.pw_uid - n % users for n in range(number)]
            yield [stack.enter_context(connected_as_nobody(self.path, uid)) for uid in uids]

    @contextmanager
    def talking(self) -> Iterator[Talk]:
        with connected_as_nobody(self.path) as sock:
            sock.settimeout(PATIENCE)
            with sock.makefile("rwb") as stream:
                yield Talk(sock, stream)


def line(method: str, number: int | None = 1, /, **params: object) -> bytes:
    """One request; without a ``number`` a notification."""
    request = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(request if number is None else {**request, "id": number}).encode() + b"\n"


@attrs.define(eq=False)
class Talk:
    """One connection that asks and reads."""

    sock: socket.socket
    stream: BufferedRWPair

    def send(self, data: bytes) -> None:
        self.stream.write(data)
        self.stream.flush()

    def reply(self) -> Any:
        return json.loads(self.stream.readline())

    def ask(self, method: str, **params: object) -> Any:
        self.send(line(method, **params))
        return self.reply()

    def call(self, method: str, **params: object) -> Any:
        return self.ask(method, **params)["result"]


def has_hung_up(sock: socket.socket) -> bool:
    """The other side has closed it for good; looked at, not read."""
    poll = select.poll()
    poll.register(sock, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


def until(what: Callable[[], bool], ground: Ground) -> None:
    """Until it is so; the other client goes on meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, ground.daemon.log
        ground.other.goes_on(10)


def as_socket(registered: object) -> socket.socket:
    assert isinstance(registered, socket.socket)
    return registered


# The cases.


def room_for_idle() -> int:
    """How many of the idle connections this process may have, and the daemon, which keeps a quarter for root."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(IDLE, (hard - 1200) * 3 // 4)


def idle(ground: Ground) -> None:
    """They have asked once, are there, and hang up together. One user could not have so many."""
    with ground.crowd(room_for_idle(), users=2) as sockets:
        for sock in sockets:
            sock.sendall(line("Task.get", id="none"))
        for sock in sockets:
            assert b"Does_not_exist" in sock.recv(4096)
        ground.other.goes_on(200)
    ground.other.goes_on(200)


def silent(ground: Ground) -> None:
    """They say nothing, and are all sent away when the time for their first message is over."""
    with ground.crowd(1000) as sockets:
        for sock in sockets:
            sock.settimeout(PATIENCE)
            assert b"no complete message within 2.0 seconds" in sock.recv(4096)


def one_users_crowd(ground: Ground) -> None:
    """A thousand ask as fast as they are answered; what is over the limit of one user is refused."""
    with ground.crowd(1000) as sockets, selectors.DefaultSelector() as asking:
        left = dict.fromkeys(sockets, 4)
        refused = 0
        for sock in sockets:
            with suppress(BrokenPipeError):
                sock.sendall(line("Task.ls"))
            asking.register(sock, selectors.EVENT_READ)
        while asking.get_map():
            for key, _ in asking.select(PATIENCE):
                sock = as_socket(key.fileobj)
                reply = sock.recv(4096)
                left[sock] -= 1
                if b"Too_many_connections" in reply:
                    refused += 1
                else:
                    assert b'"result"' in reply
                if left[sock] and b'"result"' in reply:
                    sock.sendall(line("Task.ls"))
                else:
                    asking.unregister(sock)
        assert refused == 200


def slow_senders(ground: Ground) -> None:
    """A byte a second: what has begun must be complete in its time."""
    with ground.crowd(100) as sockets:
        for byte in line("Task.ls"):
            for sock in sockets:
                with suppress(BrokenPipeError):
                    sock.sendall(bytes([byte]))
            if select.select([sockets[-1]], [], [], 1.0)[0]:
                break
        for sock in sockets:
            assert b"no complete message within 2.0 seconds" in sock.recv(4096)


# A record of this many bytes, so many times: a hundred megabytes.
RESULT: Final = 62_000
OFTEN: Final = 1_700


def a_long_record(talk: Talk) -> str:
    id: str = talk.call("Task.start", operation="external")["id"]
    assert talk.call("Task.complete", id=id, result="x" * RESULT)["state"] == "completed"
    return id


def deaf_reader(ground: Ground) -> None:
    """They ask for a hundred megabytes each, one after the other, and read none: they are let go of."""
    with ground.talking() as talk:
        id = a_long_record(talk)
    asked = b"".join(line("Task.get", number, id=id) for number in range(OFTEN))
    with ground.crowd(8) as sockets:
        for sock in sockets:
            sock.setblocking(False)
            sock.send(asked)
        until(lambda: all(map(has_hung_up, sockets)), ground)


def deaf_batches(ground: Ground) -> None:
    """They ask for a hundred megabytes in one batch, and read nothing: made is what is allowed."""
    with ground.talking() as talk:
        id = a_long_record(talk)
        batch = [json.loads(line("Task.get", number, id=id)) for number in range(OFTEN)]
        asked = json.dumps(batch).encode() + b"\n"
        talk.send(asked)
        replies = talk.reply()
    assert "result" in replies[0]
    assert replies[-1]["error"]["message"] == "Reply_too_long"
    with ground.crowd(8) as sockets:
        for sock in sockets:
            sock.sendall(asked)
        until(lambda: all(map(has_hung_up, sockets)), ground)


def huge_message(ground: Ground) -> None:
    """A hundred megabytes that are one message, in each framing."""
    chunk = b"x" * (1 << 20)
    size = 100 << 20
    http = b"POST /jsonrpc HTTP/1.1\r\nHost: taskd\r\nContent-Length: %d\r\n\r\n" % size
    for opening in (b'{"jsonrpc": "', http, b"Content-Length: %d\r\n\r\n" % size, b"%016d" % size, b"x"):
        with connected_as_nobody(ground.path) as sock:
            sock.settimeout(PATIENCE)
            sent = 0
            try:
                sock.sendall(opening)
                while sent < size:
                    sock.sendall(chunk)
                    sent += len(chunk)
            except (BrokenPipeError, ConnectionResetError):
                pass
            with suppress(ConnectionResetError):
                said = sock.recv(4096)
                assert b"longer than 1048576 bytes" in said or b"413" in said, said


def million_batch(ground: Ground) -> None:
    """A million elements are too long, half a million too many, ten thousand are answered."""
    with ground.talking() as talk:
        with suppress(BrokenPipeError):
            talk.send(b"[" + b"1," * 999_999 + b"1]\n")
        assert "longer than 1048576 bytes" in talk.reply()["error"]["message"]
    with ground.talking() as talk:
        for _ in range(10):
            talk.send(b"[" + b"1," * 500_000 + b"1]\n")
            assert "a batch of 500001 is over the limit of 10000" in talk.reply()["error"]["message"]
        request = {"jsonrpc": "2.0", "method": "Task.ls", "id": 1}
        talk.send(json.dumps([request] * 10_000).encode() + b"\n")
        assert [each["result"] for each in talk.reply()] == [[]] * 10_000
        talk.send(json.dumps([1] * 10_000).encode() + b"\n")
        assert len(talk.reply()) == 10_000


def pipelines(ground: Ground) -> None:
    """One request behind the other, and no end; and such as want no answer."""
    asked, told, junk = line("Task.ls") * 500, line("Task.ls", None) * 500, b"1\n" * 20_000
    with ground.crowd(6) as sockets, selectors.DefaultSelector() as busy:
        for sock, data in zip(sockets, (asked, told, junk) * 2, strict=True):
            sock.setblocking(False)
            busy.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, [data, 0])
        began, read = time.monotonic(), 0
        while (lasted := time.monotonic() - began) < 3 or not read:
            assert lasted < PATIENCE
            for key, event in busy.select(1):
                sock = as_socket(key.fileobj)
                if event & selectors.EVENT_READ:
                    data = sock.recv(1 << 20)
                    assert data
                    read += len(data)
                if event & selectors.EVENT_WRITE:
                    data, at = key.data
                    key.data[1] = (at + sock.send(data[at:])) % len(data)


def waits(ground: Ground) -> None:
    """Five thousand ``Task.wait`` on one task, which changes a hundred times before it ends."""
    with ExitStack() as stack, ground.talking() as producer:
        id = producer.call("Task.start", operation="external")["id"]
        waiting = [stack.enter_context(ground.talking()) for _ in range(20)]
        for each in waiting:
            each.send(b"".join(line("Task.wait", number, id=id) for number in range(256)))
            each.send(line("Task.wait", 256, id=id))  # over the limit: not read before one is answered
        for done in range(100):
            assert producer.call("Task.update", id=id, progress={"done": done, "total": 100})["state"] == "running"
        assert producer.call("Task.complete", id=id)["state"] == "completed"
        for each in waiting:
            replies = [each.reply() for _ in range(257)]
            assert {reply["id"] for reply in replies} == set(range(257))
            assert {reply["result"]["state"] for reply in replies} == {"completed"}


# The default, 10,000, takes some ten seconds to reach, and is no other than this.
TASKS: Final = 4_000


def tasks_of_one_owner(ground: Ground) -> None:
    """As many as one owner may have, and one more."""
    start = {"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}}
    with ground.talking() as talk:
        for _ in range(TASKS // 1000):
            talk.send(json.dumps([{**start, "id": number} for number in range(1000)]).encode() + b"\n")
            assert all("result" in reply for reply in talk.reply())
        error = talk.ask("Task.start", operation="external")["error"]
        assert (error["message"], error["data"]) == ("Too_many_tasks", [str(TASKS)])
        for _ in range(5):
            assert len(talk.call("Task.list", page_size=1000)["tasks"]) == 1000
        assert len(talk.call("Task.ls")) == TASKS


@attrs.frozen
class Case:
    """``load`` is what is done, for people."""

    name: str
    load: str
    attack: Callable[[Ground], None]
    settings: Mapping[str, str] = attrs.field(factory=dict)
    needs_another_user: bool = False

    def __str__(self) -> str:
        return self.name


CASES: Final = (
    Case("idle", f"{IDLE:,} idle connections, closed together", idle, {"connections_per_user": "20000"}),
    Case("silent", "1,000 connections that say nothing", silent, {"message_deadline_s": "2"}),
    Case(
        "crowd",
        "1,000 connections of one user that ask on and on, 200 of them over its limit",
        one_users_crowd,
        {"connections_per_user": "800"},
        needs_another_user=True,
    ),
    Case("slow", "100 senders of one byte a second", slow_senders, {"message_deadline_s": "2"}),
    Case("deaf", "8 that read nothing of 100 MB of replies", deaf_reader, {"reader_deadline_s": "2"}),
    Case("deaf batch", "8 that read nothing of a batch of 100 MB", deaf_batches, {"reader_deadline_s": "2"}),
    Case("huge", "messages of 100 MB in five framings", huge_message),
    Case("batch", "batches of a million, of half a million, of ten thousand", million_batch),
    Case("pipeline", "6 pipelines without end", pipelines),
    Case("waits", "5,120 Task.wait, 100 changes", waits),
    Case(
        "tasks",
        f"{TASKS:,} tasks of one owner and one more",
        tasks_of_one_owner,
        {"tasks_per_owner": str(TASKS)},
        needs_another_user=True,
    ),
)


@attrs.frozen
class Outcome:
    """What the other client found, seconds that the case took, and the daemon's memory in MiB."""

    found: Found
    took: float
    before: float
    most: float


def memory(pid: int, what: str) -> float:
    """MiB; ``what`` is VmRSS, or VmHWM for the most that it ever was."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) / 1024


@contextmanager
def descriptors(number: int | None = None) -> Iterator[None]:
    """What begins in the block finds that this process may have so many; None: as many as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if number is None else number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def run(case: Case, folder: Path) -> Outcome:
    """The case against a daemon of its own in ``folder``, which everybody gets into."""
    settings = {"socket_mode": "0666", **case.settings}
    daemon = DaemonProcess(folder, settings=settings)
    with ExitStack() as stack:
        stack.enter_context(descriptors())
        stack.callback(daemon.end)
        daemon.start()
        ours = stack.enter_context(daemon.connect())
        id = ours.start("external", label=LABEL).id
        fresh = os.geteuid() == 0  # else the hostile ones use up our own connections
        other = stack.enter_context(well_behaved(daemon.socket, id, LABEL, fresh=fresh))
        ground = Ground(daemon, other)
        other.goes_on(50)
        before, began = memory(ground.pid, "VmRSS"), time.monotonic()
        case.attack(ground)
        other.goes_on(50)
        took = time.monotonic() - began
        return Outcome(other.end(), took, before, memory(ground.pid, "VmHWM"))
