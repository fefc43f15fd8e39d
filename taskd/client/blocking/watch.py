"""A watch: an iterator of events that outlives its connections."""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs

from taskd.client import verbs
from taskd.client.blocking.connection import Connection, connect
from taskd.client.event import Event, Standing
from taskd.client.patience import RETRY, Patience
from taskd.errors import BadParams, NoDaemon, Refused


@attrs.define(eq=False)
class Watch(Iterator[Event]):
    """The events of a watch, each once. A KeyboardInterrupt while it waits for one loses none.

    The connection is its own: what a slow reader leaves unread stays with the daemon, which then tells it less.
    """

    path: str
    _patience: Patience
    _standing: Standing
    _connection: Connection | None = attrs.field(default=None, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def begin(self) -> None:
        """From here on what happens is told.

        Raises:
            Refused: a task that it is to name does not exist.
            NoDaemon: the daemon was away for too long.
        """
        while self._connection is None:
            try:
                self._connect()
            except NoDaemon as error:
                self._bear(error)

    def _connect(self) -> Connection:
        connection = connect(self.path)
        try:
            self._patience.met(time.monotonic())
            connection.ask(self._standing.call())
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

    def __next__(self) -> Event:
        """The next event.

        Raises:
            NoDaemon: the daemon was away for too long.
        """
        while not (self._closed or self._standing.over):
            if (event := self._standing.next()) is not None:
                return event
            try:
                self._step()
            except NoDaemon as error:
                self._bear(error)
        raise StopIteration

    def _bear(self, error: NoDaemon) -> None:
        self._hang_up()
        self._patience.lost(error, time.monotonic())
        time.sleep(RETRY)

    def _step(self) -> None:
        """Come closer to the next event."""
        standing = self._standing
        try:
            connection = self._connection or self._connect()
            if standing.doubt is not None:
                standing.found(connection.ask(verbs.get(standing.doubt)))
            else:
                standing.hear(connection.notification())
        except Refused as error:
            standing.lost(error)
        except BadParams as error:
            raise NoDaemon(self.path, str(error)) from None
        self._patience.answered()
