"""The socket: order, concurrency, half-closed peers, real programs on the other side."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial

import pytest
import trio

from tests.server.conftest import Start

LS = {"method": "Task.ls", "params": [{"dbg": "d"}], "id": 44}


async def test_pretty_printed_and_concatenated_requests_are_all_answered(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        text = json.dumps(LS, indent=4).encode() + json.dumps(LS).encode() + b"\r\n\n " + json.dumps(LS).encode()
        await peer.send(text)

        assert await peer.rest() == [{"result": [], "error": None, "id": 44}] * 3


async def test_quick_calls_are_answered_in_the_order_they_came(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        for id in range(200):
            await peer.send({"jsonrpc": "2.0", "method": "Task.ls", "id": id})

        assert [reply["id"] for reply in await peer.rest()] == list(range(200))


async def test_a_long_call_holds_up_nobody_and_is_answered_when_ready(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        await peer.send(
            {"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": "wait"},
            {"jsonrpc": "2.0", "method": "Task.complete", "params": {"id": id, "result": 7}, "id": "complete"},
        )
        replies = {reply["id"]: reply["result"] for reply in (await peer.reply(), await peer.reply())}

    assert replies["wait"]["state"] == replies["complete"]["state"] == "completed"
    assert replies["wait"]["result"] == 7


async def test_a_wait_with_a_timeout_returns_the_record_as_it_is(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        record = await peer.call("Task.wait", id=id, timeout_s=0.01)

    assert record["state"] == "running"


async def test_a_wait_returns_when_the_task_changed_after_a_revision(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer, running.peer() as producer:
        before = await peer.call("Task.start", operation="external")
        wait = {"id": before["id"], "after_revision": before["revision"]}
        await peer.send({"jsonrpc": "2.0", "method": "Task.wait", "params": wait, "id": 5})
        await producer.call("Task.update", id=before["id"], progress={"done": 1, "total": 4})
        record = (await peer.reply())["result"]

    assert record["progress"]["fraction"] == 0.25
    assert record["revision"] > before["revision"]


async def test_a_half_closed_peer_still_gets_all_its_answers(daemon: Start) -> None:
    """Also the one that it has to wait for."""
    async with daemon() as running, running.peer() as peer, running.peer() as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        await peer.send({"method": "Task.wait", "params": [{"id": id}], "id": 1}, LS)
        await peer.stream.send_eof()
        assert (await peer.reply())["id"] == 44
        await producer.call("Task.complete", id=id)
        assert (await peer.reply())["result"]["state"] == "completed"
        with pytest.raises(EOFError):
            await peer.reply()


async def test_a_peer_that_is_gone_is_not_waited_for(daemon: Start) -> None:
    async with daemon() as running:
        async with running.peer() as producer:
            id = (await producer.call("Task.start", operation="external"))["id"]
            async with running.peer() as peer:
                await peer.send({"method": "Task.wait", "params": [{"id": id}], "id": 1})
                await peer.call("Task.ls")
        # The daemon stops at once although the task never ends: nobody waits any more.


async def test_who_sends_what_is_too_long_while_it_waits_gets_it_out_and_all_its_answers(daemon: Start) -> None:
    """Nothing was read any more before the wait was over, and a peer that first sends and then reads hung."""
    async with daemon() as running, running.peer() as peer, running.peer() as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        await peer.send({"method": "Task.wait", "params": [{"id": id}], "id": 1})
        with trio.fail_after(20):
            await peer.send(b'["' + b"x" * (4 << 20) + b'"]\n')
        assert "longer than 1048576 bytes" in (await peer.reply())["error"]["message"]
        await producer.call("Task.complete", id=id)
        assert (await peer.reply())["result"]["state"] == "completed"
        with pytest.raises(EOFError):
            await peer.reply()


async def test_many_peers_are_served_at_once(daemon: Start) -> None:
    async def one(number: int) -> None:
        async with running.peer() as peer:
            record = await peer.call("Task.start", operation="external", label=f"number {number}")
            await peer.call("Task.complete", id=record["id"], result=number)
            assert (await peer.call("Task.get", id=record["id"]))["result"] == number

    async with daemon() as running:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        async with running.peer() as peer:
            assert len(await peer.call("Task.ls")) == 100


async def test_batches_are_answered_in_order_and_notifications_are_not(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        await peer.send(
            [
                {"jsonrpc": "2.0", "method": "Task.ls", "id": "a"},
                {"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}},
                {"jsonrpc": "2.0", "method": "Task.nothing", "id": "b"},
                LS,
            ]
        )
        await peer.send({"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}})
        replies = await peer.reply()
        assert [reply["id"] for reply in replies] == ["a", "b", 44]
        assert len(await peer.call("Task.ls")) == 2


async def test_long_calls_of_one_peer_are_limited_and_all_answered(daemon: Start) -> None:
    async with daemon(requests_in_flight=2) as running, running.peer() as peer, running.peer() as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        for number in range(5):
            await peer.send({"method": "Task.wait", "params": [{"id": id}], "id": number})
        await producer.call("Task.complete", id=id)

        assert {(await peer.reply())["id"] for _ in range(5)} == set(range(5))


async def test_a_user_has_so_many_connections_and_no_more(daemon: Start) -> None:
    async with daemon(connections_per_user=2) as running, running.peer() as first, running.peer() as second:
        await first.call("Task.ls")
        await second.call("Task.ls")
        async with running.peer() as third:
            reply = await third.reply()
            assert (reply["error"]["message"], reply["error"]["data"]) == ("Too_many_connections", ["2"])
            with pytest.raises(EOFError):
                await third.reply()
        await first.call("Task.ls")


PROGRAMS = [
    pytest.param(("nc", "-U", "-N"), marks=pytest.mark.skipif(not shutil.which("nc"), reason="nc is not here")),
    pytest.param(("socat", "-"), marks=pytest.mark.skipif(not shutil.which("socat"), reason="socat is not here")),
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program[0])
@pytest.mark.parametrize("end", [b"\n", b""], ids=["newline", "no newline"])
async def test_shell_tools_get_their_answer(daemon: Start, program: tuple[str, ...], end: bytes) -> None:
    async with daemon() as running:
        address = running.path if program[0] == "nc" else f"UNIX-CONNECT:{running.path}"
        command = partial(
            trio.run_process, [*program, address], stdin=json.dumps(LS).encode() + end, capture_stdout=True
        )
        with trio.fail_after(20):
            done: subprocess.CompletedProcess[bytes] = await command()

    assert json.loads(done.stdout) == {"result": [], "error": None, "id": 44}
    assert done.stdout.endswith(b"\n")
