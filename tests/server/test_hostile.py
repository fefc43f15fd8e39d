"""What a hostile client tried, and got the daemon with: each stays here."""

from __future__ import annotations

import gc
import getpass
import json
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from xmlrpc.client import dumps

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from taskd.errors import BadParams
from taskd.service import bounds
from tests.bench import ROOT
from tests.counted import calls
from tests.server.conftest import Daemon, Peer, Start
from tests.server.sockets import opened


async def test_to_connect_over_the_limit_and_hang_up_at_once_harms_nobody(daemon: Start) -> None:
    """The refusal met a closed socket, and the error ended the daemon."""
    async with daemon(connections_per_user=2) as running, running.peer() as first, running.peer() as second:
        await first.call("Task.ls")
        await second.call("Task.ls")
        for _ in range(300):
            with socket.socket(socket.AF_UNIX) as hasty:
                hasty.setblocking(False)
                hasty.connect(running.path)
            await first.call("Task.ls")


async def until_alone(running: Daemon) -> None:
    """Until the daemon has let go of every connection but one: one may have two."""
    with trio.fail_after(20):
        while True:
            async with running.peer() as second:
                try:
                    await second.call("Task.ls")
                except (EOFError, AssertionError, trio.BrokenResourceError):
                    await trio.sleep(0.05)
                else:
                    return


async def test_more_waits_than_there_is_room_for_and_then_gone_is_noticed(daemon: Start) -> None:
    """Nothing was read any more, so the end was never seen, and the connection stayed for ever."""
    async with daemon(requests_in_flight=5, connections_per_user=2) as running, running.peer() as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        async with running.peer() as gone:
            for number in range(20):
                await gone.send({"method": "Task.wait", "params": [{"id": id}], "id": number})
        await until_alone(running)


async def test_a_batch_whose_replies_grow_too_long_is_cut_off_before_it_is_called(daemon: Start) -> None:
    """One request asked for nine thousand copies of a megabyte."""
    async with daemon(max_reply_bytes=65536) as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external", label="x" * 4000))["id"]
        get = {"jsonrpc": "2.0", "method": "Task.get", "params": {"id": id}}
        start = {"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}, "id": "last"}
        await peer.send([*({**get, "id": n} for n in range(500)), start])
        replies = await peer.reply()
        assert len(await peer.call("Task.ls")) == 1

    assert len(json.dumps(replies)) < 10 * 65536
    assert "result" in replies[0]
    assert (replies[-1]["error"]["message"], replies[-1]["error"]["data"]) == ("Reply_too_long", ["65536"])


async def logged(peer: Peer, *reports: list[str]) -> str:
    """The id of a task with these reports in its log."""
    id: str = (await peer.call("Task.start", operation="external"))["id"]
    for report in reports:
        await peer.call("Task.update", id=id, log=report)
    return id


# More than a page, of the longest lines that there are.
LONG = [["\x01" * 4096] * 20] * 10


async def test_a_wait_then_a_message_that_is_too_long_and_then_gone_is_noticed(daemon: Start) -> None:
    async with daemon(connections_per_user=2) as running, running.peer() as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        async with running.peer() as gone:
            with trio.fail_after(20):
                await gone.send({"method": "Task.wait", "params": [{"id": id}], "id": 1}, b"[" * (2 << 20))
        await until_alone(running)


async def test_long_calls_that_wait_together_are_no_longer_than_one_may_be(daemon: Start) -> None:
    """Of each was kept what it would come to when its first members are answered: of one connection gigabytes."""
    async with daemon(max_message_bytes=8192) as running, running.peer() as producer, running.peer() as peer:
        first, second = [(await producer.call("Task.start", operation="external"))["id"] for _ in range(2)]
        for id in (first, second):
            wait = {"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": id}
            await peer.send([wait, {"method": "Task.get", "params": {"id": id, "x": [{}] * 1500}}])
        await producer.call("Task.complete", id=second)
        await producer.call("Task.complete", id=first)

        assert [(await peer.reply())[0]["id"] for _ in range(2)] == [first, second]


async def test_what_is_listened_to_takes_no_room_from_the_calls_of_its_websocket(daemon: Start) -> None:
    """It kept its place and its length until its end: with too many, or one long, nothing was read any more."""

    def frame(call: str, stream: str) -> object:
        return {"call": call, "streamId": stream, "payload": {"id": "none", "x": "x" * 8000}}

    async with daemon(requests_in_flight=1, max_message_bytes=8192) as running:
        async with opened(running.path, "/api/tasks") as socket:
            for stream in "ab":
                await socket.send(frame("task.listen", stream))
            await socket.send(frame("task.view", "c"))
            reply = await socket.reply()

    assert (reply["streamId"], reply["status"]) == ("c", 404)


async def test_the_pages_of_a_batch_do_not_pass_the_bound_together(daemon: Start) -> None:
    """Sixty-four had begun before the first was there: a request of 8 KB was answered with 1.5 GB."""
    async with daemon() as running, running.peer() as peer:
        log = {"jsonrpc": "2.0", "method": "Task.log", "params": {"id": await logged(peer, *LONG)}}
        await logged(peer, *[["x" * 4096] * 250] * 8)  # the store is asked for the other: its lines are old
        await peer.send([{**log, "id": n} for n in range(64)])
        replies = await peer.reply()

    lines = [reply["result"]["lines"] for reply in replies if "result" in reply]
    assert 16 << 20 <= len(json.dumps(lines)) < 21 << 20
    assert replies[-1]["error"]["message"] == "Reply_too_long"


async def test_a_page_of_a_log_ends_early_and_the_walk_sees_all(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = await logged(peer, *LONG)
        pages = [await peer.call("Task.log", id=id)]
        while pages[-1]["lines"]:
            pages.append(await peer.call("Task.log", id=id, **{"from": pages[-1]["next"]}))

    assert [line["n"] for page in pages for line in page["lines"]] == [*range(200)]
    assert [len(page["lines"]) for page in pages] == [170, 30, 0]
    assert pages[-1]["next"] == 200


async def test_a_page_of_long_records_ends_early_and_the_walk_sees_all(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        made = []
        for _ in range(100):
            made.append((await peer.call("Task.start", operation="external"))["id"])
            await peer.call("Task.complete", id=made[-1], result="x" * 60_000)
        seen: list[str] = []
        cursor, pages = None, 0
        while pages == 0 or cursor is not None:
            page = await peer.call("Task.list", page_size=1000, cursor=cursor, order="oldest")
            seen += [record["id"] for record in page["tasks"]]
            cursor, pages = page["next_cursor"], pages + 1

    assert seen == made
    assert pages == 2


async def test_a_result_and_a_log_line_have_a_longest_length(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        error = (await peer.ask("Task.complete", id=id, result="x" * 70_000))["error"]
        assert error["data"][0] == "params.result"
        await peer.call("Task.update", id=id, log=["x" * 10_000])
        lines = (await peer.call("Task.log", id=id))["lines"]

    assert [len(line["line"]) for line in lines] == [4096, 4096, 1808]


async def test_tasks_that_are_started_together_do_not_pass_the_limit_together(daemon: Start) -> None:
    async with daemon(tasks_per_owner=10) as running, running.peer() as peer:
        start = {"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}}
        await peer.send([{**start, "id": n} for n in range(50)])
        replies = await peer.reply()
        assert len(await peer.call("Task.ls")) == 10

    assert sum("result" in reply for reply in replies) == 10


async def test_a_blank_is_no_first_message(daemon: Start) -> None:
    async with daemon(message_deadline_s=0.05) as running, running.peer() as stranger:
        await stranger.send(b" ")
        assert "no complete message" in (await stranger.reply())["error"]["message"]


async def test_a_list_of_many_faults_is_refused_at_the_first(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        error = (await peer.ask("Task.list", states=["x"] * 100_000))["error"]

    assert error["data"][0] == "params.states[0]"
    assert len(error["message"]) < 1000


def test_a_result_that_is_too_long_is_not_gone_through_to_be_refused() -> None:
    """Copied element by element first, a megabyte of empty lists held everybody up."""

    def refused() -> None:
        with pytest.raises(BadParams, match=r"params\.result: is longer than 65536 bytes"):
            bounds.result(65536, "result", [[]] * 100_000)

    assert calls(refused) < 1000


async def test_who_waits_by_the_hundred_and_does_not_read_is_let_go_of(daemon: Start) -> None:
    """Every reply was made before its turn to be sent: one connection took gigabytes."""
    async with daemon(max_reply_bytes=65536) as running, running.peer() as producer, running.peer() as deaf:
        id = (await producer.call("Task.start", operation="external"))["id"]
        assert await deaf.call("Task.ls") == [id]  # it is known who that is
        for number in range(200):
            await deaf.send({"method": "Task.wait", "params": [{"id": id}], "id": number})
        await wait_all_tasks_blocked()  # all of them wait
        await producer.call("Task.complete", id=id, result="x" * 60_000)
        with trio.fail_after(20):
            received = 0
            try:
                while data := await deaf.stream.receive_some():
                    received += len(data)
            except trio.BrokenResourceError:
                pass
        assert received < 200 * 50_000
        assert len(await producer.call("Task.ls")) == 1


RECORDS = {"jsonrpc": "2.0", "method": "task.get_all_records", "id": 1}
HEAD = "POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n"


def over_http(path: str, body: bytes) -> bytes:
    return HEAD.format(path, len(body)).encode() + body


def a_table(session: str, _: str) -> bytes:
    return json.dumps({**RECORDS, "params": [session]}).encode() + b"\n"


def events(session: str, _: str) -> bytes:
    said = {**RECORDS, "method": "event.from", "params": [session, ["task"], "", 0.0]}
    return json.dumps(said).encode() + b"\n"


def a_table_and_a_wait(session: str, id: str) -> bytes:
    """Of a batch that is not answered as long as the task lasts."""
    wait = {"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": 2}
    return json.dumps([{**RECORDS, "params": [session]}, wait]).encode() + b"\n"


def a_table_over_http(session: str, _: str) -> bytes:
    return over_http("/jsonrpc", a_table(session, _))


def a_table_in_xml(session: str, _: str) -> bytes:
    return over_http("/RPC2", dumps((session,), "task.get_all_records").encode())


@pytest.mark.parametrize("ask", [a_table, events, a_table_and_a_wait, a_table_over_http, a_table_in_xml])
async def test_of_many_who_read_nothing_most_are_let_go_of_and_one_alone_has_it_all(
    daemon: Start, ask: Callable[[str, str], bytes]
) -> None:
    """Each connection had a whole table of XenAPI in memory: a dozen of them took a gigabyte, of one user."""
    async with daemon(unread_bytes_per_user=2 << 20) as running, running.peer() as peer:
        for _ in range(20):
            id = (await peer.call("Task.start", operation="external"))["id"]
            await peer.call("Task.complete", id=id, result="x" * 60_000)
        id = (await peer.call("Task.start", operation="external"))["id"]
        login = {"jsonrpc": "2.0", "method": "session.login_with_password", "params": ["", ""], "id": 0}
        await peer.send(login)
        session = (await peer.reply())["result"]
        async with AsyncExitStack() as stack:
            deaf = [await stack.enter_async_context(running.peer()) for _ in range(6)]
            for each in deaf:
                await each.send(ask(session, id))
            with trio.fail_after(20):
                while running.service.health.connections > 3:
                    await trio.sleep(0.01)
        with trio.fail_after(20):
            while running.service.health.connections > 1:
                await trio.sleep(0.01)
        assert not running.service.unread._held
        await peer.call("Task.complete", id=id)
        async with running.peer() as alone:
            await alone.send(ask(session, id))
            await alone.stream.send_eof()
            with trio.fail_after(20):
                said = b"".join([part async for part in alone.stream])
        assert len(said) > 20 * 60_000


def batch(*calls: tuple[str, dict[str, object]]) -> bytes:
    each = enumerate(calls)
    return json.dumps(
        [{"jsonrpc": "2.0", "method": m, "params": params, "id": n} for n, (m, params) in each]
    ).encode()


START: tuple[str, dict[str, object]] = ("Task.start", {"operation": "external"})
LIST: tuple[str, dict[str, object]] = ("Task.list", {})


@pytest.mark.parametrize("head", ["", "POST /jsonrpc HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n"])
async def test_of_a_batch_whose_peer_has_gone_nothing_more_is_begun(daemon: Start, head: str) -> None:
    """Sixty thousand lists were read on for somebody who had left, and all others waited."""
    asked = batch(START, *[LIST] * 300, START)
    async with daemon() as running:
        async with running.service.turns.of(attrs.evolve(ROOT, user=getpass.getuser()), "read"):
            async with running.peer() as peer:
                await peer.send(head.format(len(asked)).encode() + asked)
                with trio.fail_after(20):
                    while not len(running.service.registry):
                        await trio.sleep(0.01)
            with trio.fail_after(20):
                while running.service.health.connections:
                    await trio.sleep(0.01)
        async with running.peer() as peer:
            assert len(await peer.call("Task.ls")) == 1


@pytest.mark.parametrize("notification", [{"jsonrpc": "2.0"}, {"id": None}], ids=["V2", "V1"])
async def test_a_batch_that_wants_no_answer_is_done_for_whoever_has_gone_too(
    daemon: Start, notification: dict[str, object]
) -> None:
    method, params = START
    async with daemon() as running:
        async with running.peer() as peer:
            await peer.send([{**notification, "method": method, "params": params}] * 300)
        with trio.fail_after(20):
            while len(running.service.registry) < 300:
                await trio.sleep(0.01)


# More calls than a batch may have, of which none is one.
MANY = b"[" + b"[]," * 15_000 + b"[]]"

POST = b"POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
UPGRADE = (
    b"GET /jsonrpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# The head of a text frame, whose mask leaves it as it is.
TEXT = b"\x81\xfe" + len(MANY).to_bytes(2, "big") + bytes(4)


def refused(peer: Peer) -> bool:
    """Its message is answered. Nothing is taken from what there is to read."""
    with socket.socket(fileno=os.dup(peer.stream.socket.fileno())) as same, suppress(BlockingIOError):
        return b"over the limit" in same.recv(4096, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return False


@pytest.mark.parametrize(
    "head",
    [b"", b"%016d" % len(MANY), POST % len(MANY), UPGRADE + TEXT],
    ids=["stream", "prefixed", "http", "websocket"],
)
async def test_long_messages_that_end_together_are_read_one_by_one_and_others_served_meanwhile(
    daemon: Start, head: bytes
) -> None:
    """All were parsed in one pass of the event loop: with some hundred of them the watchdog ended the daemon."""
    async with daemon() as running, running.peer() as other, AsyncExitStack() as stack:
        await other.call("Task.ls")  # from here on our user is known, and looked up in no thread
        peers = [await stack.enter_async_context(running.peer()) for _ in range(24)]
        for each in peers:
            await each.send(head + MANY[:-1])
        await wait_all_tasks_blocked()
        for each in peers:
            os.write(each.stream.socket.fileno(), MANY[-1:])
        with trio.fail_after(20):
            while not (first := sum(map(refused, peers))):
                await other.call("Task.ls")
            while sum(map(refused, peers)) < len(peers):
                await other.call("Task.ls")

    assert first <= len(peers) / 3


async def test_of_a_message_that_is_answered_nothing_is_kept(daemon: Start) -> None:
    """It stayed until the next one came: of a MiB of brackets twenty, for each connection."""
    async with daemon() as running, running.peer() as peer:
        await peer.send([["of this"]] * 20_000)
        assert "over the limit" in (await peer.reply())["error"]["message"]
        await wait_all_tasks_blocked()
        assert not [each for each in gc.get_objects() if type(each) is list and each[:1] == ["of this"]]
