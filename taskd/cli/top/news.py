"""What a daemon tells by its watches, told to a view, which knows no connection.

A watch outlives the daemon's restarts; so what is shown meanwhile is marked as old, and goes on when it is back.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from taskd import client
from taskd.cli.sentences import sentence
from taskd.cli.top.page import Page
from taskd.cli.top.view import View
from taskd.client import Changed, Destroyed, Event, Log, Snapshot, Synced, on_trio
from taskd.errors import TaskdError

# How many of those that ended before are fetched: a page.
RECALLED: Final = 1000


@attrs.define(eq=False)
class News:
    """See the module. ``stirred`` is called when the view may look different."""

    view: View
    _daemon: on_trio.Daemon
    _events: AsyncIterator[Event]
    stirred: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    _page: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    async def run(self, *, once: bool = False) -> None:
        """Tell the view for ever; with ``once`` only what there is.

        Raises:
            NoDaemon: the daemon was away for too long.
        """
        async for event in self._events:
            match event:
                case Snapshot(_, record) | Changed(_, record):
                    self.view.tasks.put(record, time.time())
                case Destroyed(_, id):
                    self.view.tasks.drop(id)
                case Synced() if once:
                    return
            self.stirred()

    async def cancel(self, id: str) -> None:
        """Ask for a cancel, and note what the daemon says to that; one that is away is not asked later."""
        try:
            said = "the daemon is away; nothing was asked of it"
            if self.view.away is None:
                await self._daemon.cancel(id, must=True)
                said = f"{id[:8]} is being cancelled"
        except TaskdError as error:
            said = sentence(error)
        self.view.note(said, time.time())
        self.stirred()

    async def recall(self) -> None:
        """Fetch the newest of those that ended before."""
        try:
            ended = await self._daemon.page_of(states=["completed", "failed", "cancelled"], page_size=RECALLED)
            self.view.tasks.recall(ended.tasks, time.time())
        except TaskdError as error:
            self.view.note(sentence(error), time.time())
        self.stirred()

    async def open(self, page: Page) -> None:
        """Follow the log of a page's task, until another one is opened, or ``close``."""
        assert page.id is not None
        self.close()
        try:
            with trio.CancelScope() as self._page:
                async with self._daemon.watch(page.id, log=True) as events:
                    async for event in events:
                        if isinstance(event, Log):
                            page.say([line.line for line in event.lines])
                            self.stirred()
        except TaskdError as error:
            self.view.note(sentence(error), time.time())
            self.stirred()

    def close(self) -> None:
        """Follow no log any more."""
        self._page.cancel()


@asynccontextmanager
async def news(path: str, view: View, patience_s: float) -> AsyncIterator[News]:
    """Connect, and begin to be told; the daemon may be away for so many seconds.

    Raises:
        NoDaemon: nobody answers.
        Refused: the daemon's no.
    """
    told: News | None = None

    def away(gone: bool) -> None:
        view.away = time.time() if gone else None
        if told is not None:
            told.stirred()

    async with client.open(path, patience_s, away) as daemon:
        about = await daemon.call("Plugin.query", dbg="top")
        version = f" {about.get('version', '')}" if isinstance(about, Mapping) else ""
        view.about = f"taskd{version} on {path}"
        async with daemon.watch() as events:
            told = News(view, daemon, events)
            yield told
