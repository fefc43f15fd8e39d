"""``Task.watch`` over a real socket: JSON on the stream, and a WebSocket that PyPI's ``websockets`` opens."""

from __future__ import annotations

import json
import os
import pwd
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import unix_connect
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from taskd.connection.streams import Subscriptions
from taskd.errors import StoreError
from taskd.model import LogLine
from taskd.service.watching import Notice, Tell, Watch
from taskd.store.memory import MemoryStore
from tests.bench import ROOT
from tests.process import PATIENCE, DaemonProcess
from tests.server import conftest
from tests.server.conftest import Daemon, Peer, Start
from tests.server.sockets import Socket, opened


async def event(peer: Peer | Socket) -> Any:
    """The params of the next notification."""
    said = await peer.reply()
    assert (said["jsonrpc"], said["method"], "id" in said) == ("2.0", "Task.event", False), said
    return said["params"]


async def until(peer: Peer | Socket, kind: str, state: str | None = None) -> list[Any]:
    """The notifications up to the next of that kind, about a task in that state."""
    found = []
    while True:
        found.append(await event(peer))
        if found[-1]["event"] == kind and state in (None, found[-1].get("task", {}).get("state")):
            return found


@pytest.fixture(params=["stream", "websocket"])
def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def carried(daemon: Daemon, carrier: str) -> AsyncIterator[Peer | Socket]:
    if carrier == "websocket":
        async with opened(daemon.path) as socket:
            yield socket
    else:
        async with daemon.peer() as peer:
            yield peer


async def test_the_reply_then_a_snapshot_then_each_change_with_its_log(daemon: Start, carrier: str) -> None:
    async with daemon() as running, running.peer() as producer, carried(running, carrier) as peer:
        old = (await producer.call("Task.start", operation="external"))["id"]
        reply = await peer.call("Task.watch", log=True)
        snapshot, synced = await until(peer, "synced")
        assert set(reply) == {"subscription", "revision"}
        assert (snapshot["event"], snapshot["task"]["id"]) == ("snapshot", old)
        assert (synced["subscription"], synced["revision"]) == (reply["subscription"], reply["revision"])

        await producer.call("Task.update", id=old, status="half", log=["one", "two"])
        log, changed = await until(peer, "changed")
        assert (log["event"], log["id"], log["next"]) == ("log", old, 2)
        assert [line["line"] for line in log["lines"]] == ["one", "two"]
        assert (changed["task"]["status"], changed["revision"]) == ("half", changed["task"]["revision"])

        await producer.call("Task.complete", id=old)
        assert (await until(peer, "changed"))[-1]["task"]["state"] == "completed"
        await producer.call("Task.destroy", id=old)
        assert (await until(peer, "destroyed"))[-1]["id"] == old


async def test_after_unwatch_nothing_more_is_told(daemon: Start, carrier: str) -> None:
    async with daemon() as running, running.peer() as producer, carried(running, carrier) as peer:
        first = (await peer.call("Task.watch"))["subscription"]
        await until(peer, "synced")
        assert await peer.call("Task.unwatch", subscription=first) is None
        await producer.call("Task.start", operation="external")
        gone = await peer.ask("Task.unwatch", subscription=first)
        assert (gone["error"]["message"], gone["error"]["data"]) == ("Does_not_exist", ["subscription", first])
        assert isinstance(await peer.call("Task.ls"), list)


async def test_two_watches_of_one_connection_are_independent(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer, running.peer() as producer:
        a, b = [(await producer.call("Task.start", operation="external"))["id"] for _ in range(2)]
        await peer.send(
            *(
                {"jsonrpc": "2.0", "method": "Task.watch", "params": {"ids": ids}, "id": n}
                for n, ids in enumerate([[a], [b]])
            )
        )
        said = [await peer.reply() for _ in range(6)]
        names = {each["id"]: each["result"]["subscription"] for each in said if "result" in each}
        told = [each["params"] for each in said if "params" in each]
        for n, id in enumerate([a, b]):
            assert [each["event"] for each in told if each["subscription"] == names[n]] == ["snapshot", "synced"]
            await producer.call("Task.update", id=id, status="x")
            assert (await event(peer))["subscription"] == names[n]


async def test_a_watch_goes_on_after_a_disconnect(daemon: Start) -> None:
    async with daemon() as running, running.peer() as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        async with running.peer() as peer:
            await peer.call("Task.watch", log=True)
            await until(peer, "synced")
            await producer.call("Task.update", id=id, log=["one"])
            since, seen = (await until(peer, "changed"))[-1]["revision"], 1
        await producer.call("Task.update", id=id, log=["two"])
        await producer.call("Task.complete", id=id)
        async with running.peer() as peer:
            await peer.call("Task.watch", log=True, since=since, log_from={id: seen})
            told = await until(peer, "changed", "completed")
            assert [line["line"] for each in told for line in each.get("lines", ())] == ["two"]
            assert "snapshot" not in {each["event"] for each in told}


async def test_what_cannot_be_watched_is_refused_by_name(daemon: Start) -> None:
    async with daemon(subscriptions_per_connection=2) as running, running.peer() as peer:
        for params, number, data in (
            ({"ids": []}, -32602, "params.ids"),
            ({"ids": ["nothing"]}, 1, "task"),
            ({"since": -1}, -32602, "params.since"),
            ({"log_from": {"x": -1}}, -32602, "params.log_from.x"),
            ({"log_from": {"x": "y"}}, -32602, "params.log_from"),
        ):
            error = (await peer.ask("Task.watch", **params))["error"]
            assert (error["code"], error["data"][0][: len(data)]) == (number, data), params
        for _ in range(2):
            await peer.call("Task.watch")
            await until(peer, "synced")
        error = (await peer.ask("Task.watch"))["error"]
        assert (error["message"], error["data"]) == ("Too_many_subscriptions", ["2"])


async def test_a_watch_that_cannot_read_the_store_ends_alone_and_says_why(
    daemon: Start, carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits on the same connection is answered, and what else is told is told on."""
    fails = False

    class Unreadable(MemoryStore):
        async def log(self, id: str, start: int, limit: int) -> Sequence[LogLine]:
            if fails:
                raise StoreError("the store cannot read: disk I/O error")
            return await super().log(id, start, limit)

    monkeypatch.setattr(conftest, "MemoryStore", Unreadable)
    async with daemon() as running, running.peer() as producer, carried(running, carrier) as peer:
        running.service.registry.logs.limit = 1
        id = (await producer.call("Task.start", operation="external"))["id"]
        other = (await peer.call("Task.watch"))["subscription"]
        await until(peer, "synced")
        await peer.send({"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": 9})
        fails = True
        await producer.call("Task.update", id=id, log=["one", "two", "three"])
        await until(peer, "changed")

        broken = (await peer.call("Task.watch", log=True))["subscription"]
        said = await event(peer)
        assert (said["subscription"], set(said)) == (broken, {"subscription", "error"})
        assert said["error"]["data"] == ["the store cannot read: disk I/O error"]
        gone = await peer.ask("Task.unwatch", subscription=broken)
        assert gone["error"]["message"] == "Does_not_exist"

        fails = False
        again = (await peer.call("Task.watch", log=True))["subscription"]
        assert {each["subscription"] for each in await until(peer, "synced")} == {again}
        await producer.call("Task.complete", id=id)
        last = [await peer.reply() for _ in range(3)]
        assert {each["params"]["subscription"] for each in last if "params" in each} == {other, again}
        assert [each["result"]["state"] for each in last if "result" in each] == ["completed"]


async def test_over_plain_http_there_is_no_stream(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        body = json.dumps({"jsonrpc": "2.0", "method": "Task.watch", "params": {}, "id": 1}).encode()
        await peer.send(b"POST /jsonrpc HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        with trio.fail_after(20):
            data = await peer.stream.receive_some()
            while b"Needs_stream" not in data:
                data += await peer.stream.receive_some()


async def test_a_watcher_that_does_not_read_disturbs_nobody_and_ends_with_the_truth(daemon: Start) -> None:
    """Megabytes of records are due to it; they are not in memory, and what it reads at last is the newest."""
    async with daemon() as running, running.peer() as producer, running.peer() as other:
        text = "x" * 4000
        id = (await producer.call("Task.start", operation="external", label=text, description=text))["id"]
        async with running.peer() as deaf:
            await deaf.send({"jsonrpc": "2.0", "method": "Task.watch", "params": {}, "id": 1})
            await deaf.reply()
            for n in range(300):
                await producer.call("Task.update", id=id, status=f"{n} {text[:3000]}")
                await trio.sleep(0.06 if n < 60 else 0)
            await other.call("Task.watch")
            await until(other, "synced")
            await producer.call("Task.complete", id=id)
            await until(other, "changed", "completed")
            told = await until(deaf, "changed", "completed")
            assert len(told) < 200


async def test_whoever_hangs_up_leaves_nothing_running(daemon: Start, carrier: str) -> None:
    async with daemon() as running:
        async with carried(running, carrier) as peer:
            await peer.call("Task.watch")
            await until(peer, "synced")
            assert running.service.registry.feed._bells
        with trio.fail_after(20):
            while running.service.registry.feed._bells:
                await trio.sleep(0.01)


# WebSockets.


async def test_a_websocket_is_json_rpc_in_both_envelopes_with_errors_and_batches(daemon: Start) -> None:
    async with daemon() as running, opened(running.path) as socket:
        await socket.send({"method": "Task.ls", "params": [{"dbg": ""}], "id": 4})
        assert await socket.reply() == {"result": [], "error": None, "id": 4}
        await socket.send([{"jsonrpc": "2.0", "method": "Task.ls", "id": n} for n in (1, 2)])
        assert [each["id"] for each in await socket.reply()] == [1, 2]
        await socket.send("{broken")
        assert (await socket.reply())["error"]["code"] == -32700
        await socket.send(b"bytes")
        assert (await socket.reply())["error"]["code"] == -32600
        assert (await socket.ask("Task.nope"))["error"]["code"] == -32601
        id = (await socket.call("Task.start", operation="external"))["id"]
        await socket.send({"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": 9})
        assert (await socket.call("Task.complete", id=id))["state"] == "completed"
        assert (await socket.reply())["id"] == 9


async def test_a_message_that_is_too_long_closes_the_websocket_and_says_why(daemon: Start) -> None:
    async with daemon(max_message_bytes=4096) as running, opened(running.path) as socket:
        await socket.send("[" + " " * 5000 + "]")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.reply()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def test_a_websocket_is_told_that_the_daemon_stops(tmp_path: Path) -> None:
    """After what is being said; the daemon does not wait for whoever watches."""
    daemon = DaemonProcess(tmp_path)
    daemon.start()
    try:
        with unix_connect(daemon.socket, "ws://taskd/jsonrpc", open_timeout=PATIENCE) as socket:
            socket.send('{"jsonrpc": "2.0", "method": "Task.watch", "params": {}, "id": 1}')
            said = [json.loads(socket.recv(PATIENCE)) for _ in range(2)]
            assert said[-1]["params"]["event"] == "synced"
            assert daemon.stop() == 0
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(PATIENCE)
    finally:
        daemon.end()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the daemon stops")


@pytest.mark.parametrize(
    ("path", "call"),
    [
        (
            "/jsonrpc",
            {"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": "ID", "after_revision": 0}, "id": 1},
        ),
        ("/api/tasks", {"call": "task.view", "streamId": "1", "payload": {"id": "ID"}}),
    ],
)
async def test_a_stop_cuts_no_message_of_a_websocket_that_has_begun(
    daemon: Start, path: str, call: dict[str, Any]
) -> None:
    """One that is longer than a socket takes, to a peer that reads only then; the close is behind it."""
    status, text = "s" * 500_000, ""
    client = WSConnection(ConnectionType.CLIENT)
    async with daemon(max_text=len(status)) as running, running.peer() as producer, running.peer() as peer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        await producer.call("Task.update", id=id, status=status)
        await peer.send(client.send(Request(host="taskd", target=path)))
        client.receive_data(await peer.stream.receive_some())
        assert isinstance(next(client.events()), AcceptConnection)
        await peer.send(client.send(TextMessage(json.dumps(call).replace("ID", id))))
        await trio.lowlevel.wait_readable(peer.stream.socket)
        signal.raise_signal(signal.SIGTERM)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(20):
            while data := await peer.stream.receive_some():
                client.receive_data(data)
    *messages, closed = client.events()
    for message in messages:
        assert isinstance(message, TextMessage)
        text += message.data
    assert isinstance(closed, CloseConnection)
    assert (closed.code, closed.reason) == (1001, "the daemon stops")
    said = json.loads(text)
    assert (said["result"] if "result" in said else said["payload"])["status"] == status


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/nothing", {}, 404),
        ("/healthz", {}, 400),
        ("/jsonrpc", {"Origin": "https://elsewhere.example"}, 403),
        ("/jsonrpc", {"Authorization": "Bearer taskd_00000000_x"}, 401),
    ],
)
async def test_a_websocket_that_may_not_be_is_refused_with_a_status(
    daemon: Start, path: str, headers: dict[str, str], status: int
) -> None:
    async with daemon() as running:
        with pytest.raises(InvalidStatus) as refused:
            async with opened(running.path, path, additional_headers=headers):
                pass
        assert refused.value.response.status_code == status


async def test_a_web_page_does_nothing_where_the_kernel_says_who_calls(daemon: Start) -> None:
    """Any page could send it, to whatever forwards the socket; and by its DNS be of the same origin."""
    body = b'{"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}, "id": 1}'
    async with daemon() as running, running.peer() as peer:
        for line in (b"POST /jsonrpc", b"PUT /api/tasks", b"POST /", b"GET /koodrive/ose/v1/task/list"):
            for origin in (b"https://evil.example", b"http://taskd", b"null", b"http://[::1"):
                head = b"%s HTTP/1.1\r\nHost: taskd\r\nOrigin: %s\r\n" % (line, origin)
                await peer.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                data = b""
                with trio.fail_after(20):
                    while b"has an Origin\n" not in data:
                        data += await peer.stream.receive_some()
                assert data.startswith(b"HTTP/1.1 403 ")
        assert await running.service.ids(ROOT) == []


async def test_a_page_that_has_a_token_gets_a_websocket(daemon: Start) -> None:
    proxy = pwd.getpwuid(os.geteuid()).pw_name
    async with daemon(proxies=(proxy,)) as running:
        _, secret = await running.service.tokens.add(ROOT, "ann", ["user"])
        headers = {"Origin": "https://front.example", "Authorization": f"Bearer {secret}"}
        async with opened(running.path, additional_headers=headers) as socket:
            assert await socket.call("Task.ls") == []


async def test_a_proxys_websocket_that_brings_no_bearer_is_closed(daemon: Start) -> None:
    """Strangers without a token could otherwise take all the connections that a proxy may have."""
    proxy = pwd.getpwuid(os.geteuid()).pw_name
    async with daemon(proxies=(proxy,), message_deadline_s=0.3) as running, running.peer() as peer:
        await peer.send(HANDSHAKE % b"/api/tasks")
        data = b""
        with trio.fail_after(60):
            while more := await peer.stream.receive_some():
                data += more
        assert b"no bearer came within 0.3 seconds" in data


HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: taskd\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.mark.parametrize("path", [b"/jsonrpc", b"/api/tasks"])
async def test_a_websocket_on_which_nothing_happens_is_pinged(
    daemon: Start, autojump_clock: object, path: bytes
) -> None:
    """Less than a minute apart: a proxy between would take it for dead."""
    async with daemon() as running, running.peer() as peer:
        await peer.send(HANDSHAKE % path)
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += await peer.stream.receive_some()
        began = trio.current_time()
        for _ in range(3):
            data = b""
            while not data.endswith(b"\x89\x00"):
                data += await peer.stream.receive_some()
        assert trio.current_time() - began < 3 * 60


async def test_whoever_goes_on_is_told_when_there_is_nothing_more(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        await peer.call("Task.start", operation="external")
        reply = await peer.call("Task.watch", since=running.service.registry.feed.revision)
        assert [each["event"] for each in await until(peer, "synced")] == ["synced"]
        assert reply["revision"] == running.service.registry.feed.revision


async def test_the_unread_watches_of_one_connection_hold_one_batch_and_disturb_no_other(daemon: Start) -> None:
    """While the peer does not read, one of them is sending, and the others have gathered nothing."""
    holding: dict[trio.Lock | None, int] = {}
    run = Watch.run

    async def counted(watch: Watch, tell: Tell, turn: trio.Lock | None = None) -> None:
        async def telling(notices: Sequence[Notice]) -> None:
            holding[turn] = holding.get(turn, 0) + 1
            await tell(notices)
            holding[turn] -= 1

        await run(watch, telling, turn)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Watch, "run", counted)
        async with daemon() as running, running.peer() as producer, running.peer() as deaf, running.peer() as peer:
            id = (await producer.call("Task.start", operation="external"))["id"]
            for _ in range(5):
                await producer.call("Task.update", id=id, log=["x" * 4096] * 200)
            watch = {"jsonrpc": "2.0", "method": "Task.watch", "params": {"log": True}, "id": 1}
            await deaf.send(*[watch] * 8)
            await peer.call("Task.watch")
            await until(peer, "synced")
            await producer.call("Task.complete", id=id)
            await until(peer, "changed", "completed")
            assert len(holding) == 2  # by connection
            assert max(holding.values()) == 1  # and what the reader's last is about to leave may be counted yet


async def test_a_stream_that_is_opened_when_all_are_ended_does_not_begin() -> None:
    """The call that opens it was under way at the stop; the connection would live on as long as a stop lets it."""
    subscriptions = Subscriptions(limit=1)
    subscriptions.end()
    _, following = subscriptions.add()
    await following.run(partial(pytest.fail, "it begins"))
