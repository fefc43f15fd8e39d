"""WebSockets of PyPI's ``websockets``, a client that nobody here wrote; its blocking calls run in threads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio
from websockets.sync.client import ClientConnection, unix_connect

from tests.server.conftest import LATEST


@attrs.define(eq=False)
class Socket:
    """A WebSocket of a client that nobody here wrote, its blocking calls in threads."""

    connection: ClientConnection

    async def _do(self, act: Callable[[], Any]) -> Any:
        with trio.fail_after(LATEST):
            return await trio.to_thread.run_sync(act, abandon_on_cancel=True)

    async def send(self, value: object) -> None:
        text = value if isinstance(value, str | bytes) else json.dumps(value)
        await self._do(partial(self.connection.send, text))

    async def reply(self) -> Any:
        return json.loads(await self._do(partial(self.connection.recv, LATEST)))

    async def ask(self, method: str, **params: object) -> Any:
        await self.send({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
        return await self.reply()

    async def call(self, method: str, **params: object) -> Any:
        reply = await self.ask(method, **params)
        assert "error" not in reply, reply
        return reply["result"]


@asynccontextmanager
async def opened(socket: str, path: str = "/jsonrpc", **options: Any) -> AsyncIterator[Socket]:
    with ExitStack() as stack:
        connect = partial(unix_connect, socket, f"ws://taskd{path}", open_timeout=LATEST, **options)
        try:
            yield Socket(await trio.to_thread.run_sync(lambda: stack.enter_context(connect())))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(stack.close)
