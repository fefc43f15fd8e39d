"""In a crowd the connections that poll rest together: each is served as if it were alone."""

from __future__ import annotations

import json
import select
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio
import trio.testing

from taskd.connection import Limits, rest
from taskd.connection.outgoing import Outgoing
from taskd.wire import Opening
from tests.bench import ROOT
from tests.server.conftest import Peer, Start

HELD = {"jsonrpc": "2.0", "method": "Task.ls", "params": {"dbg": ""}, "id": 1}


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is a crowd."""
    monkeypatch.setattr(rest, "CROWD", 1)


def half(value: object) -> tuple[bytes, bytes]:
    whole = json.dumps(value).encode() + b"\n"
    return whole[:20], whole[20:]


async def conversation(peer: Peer, id: str) -> list[object]:
    """From memory, and not; in pieces, together, and what is no call at all."""
    said: list[object] = [await peer.call("Task.stat", id=id, dbg="") for _ in range(3)]
    for piece in half(HELD):
        await peer.send(piece)
        await trio.testing.wait_all_tasks_blocked()
    said.append(await peer.reply())
    said.append(await peer.call("Task.list", page_size=1))
    said.append(await peer.call("Task.stat", id=id, dbg=""))
    await peer.send(*[{**HELD, "id": n} for n in range(300)])
    said += [await peer.reply() for _ in range(300)]
    said.append(await peer.ask("Task.stat", id="nobody", dbg=""))
    said.append(await peer.ask("Task.get", id=id, more=1))
    await peer.send([HELD, {**HELD, "id": 2}])
    said.append(await peer.reply())
    said.append(await peer.call("Task.stat", id=id, dbg=""))
    await peer.send(b"{]")
    return [*said, *await peer.rest()]


async def test_in_a_crowd_everybody_is_answered_as_if_alone(daemon: Start) -> None:
    async with daemon() as running, AsyncExitStack() as stack:
        async with running.peer() as peer:
            id = (await peer.call("Task.start", operation="external"))["id"]
            alone = await conversation(peer, id)
        peers = [await stack.enter_async_context(running.peer()) for _ in range(2 * rest.CROWD)]
        heard: list[list[object]] = []

        async def talk(peer: Peer) -> None:
            heard.append(await conversation(peer, id))

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(talk, peer)

    assert len(alone) > 300
    assert heard == [alone] * len(peers)


@pytest.mark.usefixtures("crowd")
async def test_who_rests_may_hang_up_and_the_daemon_may_stop(daemon: Start) -> None:
    async with daemon() as running:
        async with running.peer() as peer:
            for _ in range(3):
                await peer.call("Task.ls", dbg="")
        async with running.peer() as other:
            for _ in range(3):
                await other.call("Task.ls", dbg="")
            assert running.service.health.connections == 1
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(EOFError):
                await other.reply()


async def resting(where: rest.Rest, sock: socket.socket, answer: object) -> object:
    """What becomes of one that rests until it has heard something."""

    def hear() -> bool:
        assert sock.recv(10) == b"x"
        if isinstance(answer, Exception):
            raise answer
        return True

    try:
        await where.until(sock.fileno(), hear)
    except ValueError as error:
        return error
    return None


@pytest.mark.parametrize("answer", [None, ValueError("broken")], ids=["heard", "raises"])
async def test_what_serving_one_raises_is_raised_in_its_own_task(answer: object) -> None:
    where, outcomes = rest.Rest(), list[object]()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(where.run)

            async def rests() -> None:
                outcomes.append(await resting(where, theirs, answer))

            nursery.start_soon(rests)
            await trio.testing.wait_all_tasks_blocked()
            ours.send(b"x")
            await trio.testing.wait_all_tasks_blocked()
            assert outcomes == [answer]
            nursery.cancel_scope.cancel()


async def test_who_is_cancelled_while_it_rests_is_not_served_any_more() -> None:
    where = rest.Rest()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(where.run)
            with trio.move_on_after(0) as scope:
                await where.until(theirs.fileno(), partial(pytest.fail, "it is served"))
            assert scope.cancelled_caught
            ours.send(b"x")
            await trio.testing.wait_all_tasks_blocked()
            # And may come again, to hear what it has not.
            assert await resting(where, theirs, None) is None
            nursery.cancel_scope.cancel()


# A reply of which the socket took only a part, before the connection's own task has its turn.

TOLD = b'{"told":1}\n'


async def begun(sock: socket.socket) -> tuple[Outgoing, bytearray, bytes]:
    """What sends on ``sock``, what is left of the reply that it has begun, and the whole reply."""
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    out = Outgoing(stream, Opening(), Limits(), ROOT)
    whole = json.dumps("x" * 1_000_000).encode() + b"\n"
    left = bytearray(whole)
    out.offer(left)
    assert 0 < len(left) < len(whole)
    return out, left, whole


async def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    with trio.fail_after(20):
        while len(data) < size:
            await trio.lowlevel.wait_readable(sock)
            data += sock.recv(1 << 16)
    return data


async def test_nothing_goes_out_inside_of_a_reply_that_has_begun() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        out, left, whole = await begun(theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.tell, [{"told": 1}])
            nursery.start_soon(out.say, {"told": 1})
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(out.pass_on, left)
            assert await read(ours, len(whole) + 2 * len(TOLD)) == whole + 2 * TOLD


async def test_who_is_cancelled_behind_a_reply_that_has_begun_takes_nothing_from_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        out, left, whole = await begun(theirs)
        with trio.move_on_after(0) as scope:
            await out.tell([{"never": 1}])
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.pass_on, left)
            assert await read(ours, len(whole)) == whole
        await out.tell([{"told": 1}])
        assert ours.recv(100) == TOLD


async def test_nobody_waits_behind_a_reply_that_breaks_off() -> None:
    broken: list[str] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        out, left, _ = await begun(theirs)

        async def breaks(name: str, send: Callable[[], Awaitable[None]]) -> None:
            with pytest.raises(trio.BrokenResourceError):
                await send()
            broken.append(name)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(breaks, "told", partial(out.tell, [{"told": 1}]))
                await trio.testing.wait_all_tasks_blocked()
                ours.close()
                nursery.start_soon(breaks, "begun", partial(out.pass_on, left))
    assert broken == ["begun", "told"]


@pytest.mark.parametrize("how", ["cancelled", "too late"])
async def test_behind_a_message_that_was_cut_nothing_goes_out(autojump_clock: object, how: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        out, left, _ = await begun(theirs)
        if how == "cancelled":
            with trio.move_on_after(1):
                await out.pass_on(left)
        else:
            with pytest.raises(trio.BrokenResourceError):
                await out.pass_on(left)
        while select.select([ours], [], [], 0)[0]:
            ours.recv(1 << 16)
        with pytest.raises(trio.BrokenResourceError):
            await out.tell([{"told": 1}])
        with pytest.raises(trio.BrokenResourceError):
            out.offer(bytearray(TOLD))
