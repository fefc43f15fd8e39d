"""A watch on trio: an iterator of events that outlives its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
import trio

from taskd.client import verbs
from taskd.client.event import Event, Standing
from taskd.client.on_trio.connection import Connection, connect
from taskd.client.patience import RETRY, Patience
from taskd.errors import BadParams, NoDaemon, Refused


@attrs.define(eq=False)
class Watch(AsyncIterator[Event]):
    """The events of a watch, each once. Whoever is cancelled while it waits for one loses none.

    The connection is its own: what a slow reader leaves unread stays with the daemon, which then tells it less.
    """

    path: str
    _patience: Patience
    _standing: Standing
    _connection: Connection | None = attrs.field(default=None, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    async def begin(self) -> None:
        """From here on what happens is told.

        Raises:
            Refused: a task that it is to name does not exist.
            NoDaemon: the daemon was away for too long.
        """
        while self._connection is None:
            try:
                await self._connect()
            except NoDaemon as error:
                await self._bear(error)

    async def _connect(self) -> Connection:
        connection = await connect(self.path)
        try:
            self._patience.met(trio.current_time())
            await connection.ask(self._standing.call())
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def close(self) -> None:
        """To leave is to hang up."""
        self._closed = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def __anext__(self) -> Event:
        """The next event.

        Raises:
            NoDaemon: the daemon was away for too long.
        """
        await trio.lowlevel.checkpoint()
        while not (self._closed or self._standing.over):
            if (event := self._standing.next()) is not None:
                return event
            try:
                await self._step()
            except NoDaemon as error:
                await self._bear(error)
        raise StopAsyncIteration

    async def _bear(self, error: NoDaemon) -> None:
        self._hang_up()
        self._patience.lost(error, trio.current_time())
        await trio.sleep(RETRY)

    async def _step(self) -> None:
        """Come closer to the next event."""
        standing = self._standing
        try:
            connection = self._connection or await self._connect()
            if standing.doubt is not None:
                standing.found(await connection.ask(verbs.get(standing.doubt)))
            else:
                standing.hear(await connection.notification())
        except Refused as error:
            standing.lost(error)
        except BadParams as error:
            raise NoDaemon(self.path, str(error)) from None
        self._patience.answered()
