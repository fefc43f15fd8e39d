"""A token that was taken back, or whose time is over, does nothing more, whatever was sent under it before."""

from __future__ import annotations

import json
import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from taskd.store.memory import MemoryStore
from tests.bench import ROOT, running
from tests.server.conftest import Start
from tests.test_tokens import PROXY

OWN = pwd.getpwuid(os.geteuid()).pw_name


def frame(text: str) -> bytes:
    data = text.encode()
    n = len(data)
    head = bytes([0x81]) + (bytes([0x80 | n]) if n < 126 else bytes([0x80 | 126]) + n.to_bytes(2, "big"))
    return head + b"\0\0\0\0" + data


async def handshake(stream: trio.SocketStream, path: str, secret: str) -> None:
    await stream.send_all(
        f"GET {path} HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {secret}\r\n\r\n".encode()
    )
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    assert b" 101 " in data, data


async def drain(stream: trio.SocketStream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def counted(service: Any, stream: trio.SocketStream, data: bytes, token: str) -> tuple[int, int]:
    """How many of ann's tasks there were when Token.rm returned, and how many in the end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, stream)
        nursery.start_soon(stream.send_all, data)
        while len(await service.store.ids(owner="ann")) < 3:
            await trio.lowlevel.checkpoint()
        await service.tokens.remove(ROOT, token)
        then = len(await service.store.ids(owner="ann"))
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    return then, len(await service.store.ids(owner="ann"))


async def test_messages_of_a_websocket_that_wait_are_not_done_after_the_token_is_gone(daemon: Start) -> None:
    async with daemon(proxies=(OWN,)) as d, d.peer() as peer:
        token, secret = await d.service.tokens.add(ROOT, "ann", ["user"])
        await handshake(peer.stream, "/jsonrpc", secret)
        call = json.dumps({"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}, "id": 1})
        then, end = await counted(d.service, peer.stream, frame(call) * 400, token.id)
    assert end <= then + 1


async def test_frames_of_ucloud_that_wait_are_not_done_after_the_token_is_gone(daemon: Start) -> None:
    async with daemon(proxies=(OWN,)) as d, d.peer() as peer:
        token, secret = await d.service.tokens.add(ROOT, "ann", ["service"])
        await handshake(peer.stream, "/api/tasks", secret)
        call = json.dumps({"call": "task.create", "streamId": "1", "payload": {"title": "t", "owner": "ann"}})
        then, end = await counted(d.service, peer.stream, frame(call) * 400, token.id)
    assert end <= then + 1


async def test_a_batch_over_http_goes_no_further_when_the_token_is_gone(daemon: Start) -> None:
    async with daemon(proxies=(OWN,)) as d, d.peer() as peer:
        token, secret = await d.service.tokens.add(ROOT, "ann", ["user"])
        call = {"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}, "id": 1}
        body = json.dumps([call] * 3000).encode()
        head = f"POST /jsonrpc HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {secret}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        then, end = await counted(d.service, peer.stream, head.encode() + body, token.id)
    assert end <= then + 64


async def test_a_token_whose_time_is_over_by_the_clock_holds_nothing_open(
    tmp_path: Path, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is set right, a day on, while a WebSocket is open."""
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    async with running(MemoryStore(), {}, str(tmp_path)) as service:
        _, secret = await service.tokens.add(ROOT, "ann", ["user"], 3600.0)
        caller = service.tokens.who(PROXY, f"Bearer {secret}")
        over = trio.Event()
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                await service.tokens.withdrawn(caller)
                over.set()

            nursery.start_soon(hold)
            await trio.sleep(1)
            assert not over.is_set()
            ahead[0] = 86400.0
            with trio.fail_after(600):
                await over.wait()


async def test_what_waits_behind_replies_that_nobody_reads_is_not_done_later(daemon: Start) -> None:
    """Whoever holds a token that will be withdrawn sends calls ahead, and reads when it suits."""
    async with daemon(proxies=(OWN,)) as d, d.peer() as peer:
        token, secret = await d.service.tokens.add(ROOT, "ann", ["user"])
        await handshake(peer.stream, "/jsonrpc", secret)
        ask = json.dumps({"jsonrpc": "2.0", "method": "rpc.discover", "id": 1})
        call = json.dumps({"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}, "id": 1})
        await peer.stream.send_all(frame(ask) * 200 + frame(call) * 5)
        await trio.sleep(1)
        await d.service.tokens.remove(ROOT, token.id)
        await trio.sleep(1)
        with trio.move_on_after(5):
            await drain(peer.stream)
        after = len(await d.service.store.ids(owner="ann"))
    assert after == 0
