"""A daemon in this process on a real Unix socket, and peers that speak to it in bytes."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

from taskd import operations, server
from taskd.config import Config
from taskd.service import Service
from taskd.store.memory import MemoryStore

# Seconds after which an answer does not come any more. It may stand behind eighty others that are long, on a
# machine that is slow and stands still in between.
LATEST: Final = 90


@attrs.define
class Peer:
    """One connection, by its bytes."""

    stream: trio.SocketStream
    _buffer: bytes = b""

    async def send(self, *values: object) -> None:
        """Each value as one line; bytes as they are."""
        for value in values:
            data = value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"
            await self.stream.send_all(data)

    async def reply(self) -> Any:
        """The next reply; EOFError when there is none any more."""
        with trio.fail_after(LATEST):
            while b"\n" not in self._buffer:
                data = await self.stream.receive_some()
                if not data:
                    raise EOFError
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    async def ask(self, method: str, **params: object) -> Any:
        """The whole reply to one call."""
        await self.send({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
        return await self.reply()

    async def call(self, method: str, **params: object) -> Any:
        """The result of one call."""
        reply = await self.ask(method, **params)
        assert "error" not in reply, reply
        return reply["result"]

    async def rest(self) -> list[Any]:
        """Close the sending side, and read what still comes, to the end."""
        await self.stream.send_eof()
        replies = []
        while True:
            try:
                replies.append(await self.reply())
            except EOFError:
                return replies


@attrs.define
class Daemon:
    """``settings`` is what a reload finds."""

    path: str
    service: Service
    settings: Config

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        async with await trio.open_unix_socket(self.path) as stream:
            yield Peer(stream)


Start = Callable[..., AbstractAsyncContextManager[Daemon]]


@asynccontextmanager
async def _daemon(
    folder: Path, table: operations.Operations | None = None, **settings: Any
) -> AsyncIterator[Daemon]:
    config = Config(socket=str(folder / "s"), state=str(folder / "state"), **settings)
    with server.lock(Path(config.state)):
        async with trio.open_nursery() as nursery:
            found: list[Daemon] = []

            def read() -> Config:
                return found[0].settings

            start = partial(server.serve, config, table or operations.load(), MemoryStore(), read=read)
            service: Service = await nursery.start(start)
            found.append(Daemon(config.socket, service, config))
            yield found[0]
            nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """As it was: a daemon that is reloaded sets it for all of this process."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
def daemon(tmp_path: Path) -> Start:
    """``async with daemon(**settings) as daemon``: it serves, and stops at the end."""
    return partial(_daemon, tmp_path)
