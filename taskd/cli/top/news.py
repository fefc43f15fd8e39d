"""What the daemon tells by ``Task.watch``, through its restarts: told to a view, which knows no connection.

One connection for all: the watch of all tasks, the watch of the one task whose log is looked at, and cancels.
When it breaks, it is made again for as long as it takes, and goes on from the last revision that was told; from a
daemon that has forgotten that revision, what there is comes anew. This is the only place that knows notifications.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs
import trio

from taskd.cli.sentences import sentence
from taskd.cli.top.page import Page
from taskd.cli.top.view import View
from taskd.client import NoDaemon, Refused, on_trio, record, verbs
from taskd.errors import TaskdError
from taskd.model import JSON

# Seconds between two looks whether the daemon is back.
RETRY: Final = 0.5

# How many of those that ended before are fetched: a page.
RECALLED: Final = 1000


@attrs.define(eq=False)
class News:
    """See the module. ``stirred`` is called when the view may look different."""

    path: str
    view: View
    stirred: Callable[[], None]
    _daemon: on_trio.Daemon | None = attrs.field(default=None, init=False)
    _since: int | None = attrs.field(default=None, init=False)
    # The subscription to all tasks, the one to the page's task, and the number of its next line.
    _all: JSON = None
    _one: JSON = None
    _next: int = 0

    async def connect(self) -> None:
        """Connect, and begin to be told.

        Raises:
            NoDaemon: nobody answers.
            Refused: the daemon's no.
        """
        daemon = await on_trio.connect(self.path)
        try:
            about = await daemon.call("Plugin.query", dbg="top")
            version = f" {about.get('version', '')}" if isinstance(about, Mapping) else ""
            self.view.about = f"taskd{version} on {self.path}"
            given = {} if self._since is None else {"since": self._since}
            answer = await daemon.call("Task.watch", **given)
            self._all = answer["subscription"] if isinstance(answer, Mapping) else None
        except BaseException:
            daemon.close()
            raise
        self._daemon, self._one, self.view.away = daemon, None, None

    async def run(self) -> None:
        """Tell the view for ever; connected already."""
        while True:
            try:
                if self.view.page is not None:
                    await self.open(self.view.page)
                await self.listen()
            except TaskdError as error:
                await self._bear(error)

    async def listen(self, *, once: bool = False) -> None:
        """Tell the view what comes; with ``once`` only what there is.

        Raises:
            NoDaemon: it does not answer any more.
            TaskdError: it says what no daemon says.
        """
        daemon = self._daemon
        assert daemon is not None
        while True:
            said = (await daemon.notification()).params
            if isinstance(said, Mapping):
                self._told(said)
                if once and said.get("event") == "synced":
                    return

    def _told(self, said: Mapping[str, JSON]) -> None:
        tasks, now = self.view.tasks, time.time()
        match said:
            case {"event": "snapshot" | "changed", "task": task}:
                tasks.put(record.record(task), now)
            case {"event": "destroyed", "id": str(id)}:
                tasks.drop(id)
            case {"event": "log", "id": str(id), "lines": list(lines), "next": int(following)}:
                self._log(id, lines, following)
            # The page's task has a watch of its own, which says nothing about the others.
            case {"event": "resync", "subscription": str(of)} if of == self._all:
                tasks.resync()
            case {"event": "synced", "subscription": str(of)} if of == self._all:
                tasks.synced()
        match said:
            case {"event": "changed" | "destroyed" | "synced", "subscription": str(of), "revision": int(revision)}:
                self._since = revision if of == self._all else self._since
        self.stirred()

    def _log(self, id: str, lines: Sequence[JSON], following: int) -> None:
        page = self.view.page
        if page is None or page.id != id:
            return
        fresh = [line for line in lines if isinstance(line, Mapping) and int(str(line.get("n"))) >= self._next]
        page.say([str(line.get("line")) for line in fresh])
        self._next = following

    async def _bear(self, error: TaskdError) -> None:
        """The daemon is away: say so, until it is back."""
        if self._daemon is not None:
            self._daemon.close()
        self._daemon, since = None, time.time()
        while True:
            self.view.away = (since, error.reason if isinstance(error, NoDaemon) else str(error))
            self.stirred()
            await trio.sleep(RETRY)
            try:
                await self.connect()
            except TaskdError as again:
                error = again
            else:
                return

    async def cancel(self, id: str) -> None:
        """Ask for a cancel, and note what the daemon says to that."""
        try:
            if self._daemon is None:
                raise NoDaemon(self.path, "it is away")
            await self._daemon.ask(verbs.cancel(id, must=True))
            said = f"{id[:8]} is being cancelled"
        except TaskdError as error:
            said = sentence(error)
        self.view.note(said, time.time())
        self.stirred()

    async def recall(self) -> None:
        """Fetch the newest of those that ended before."""
        try:
            if self._daemon is not None:
                call = verbs.page_of(states=["completed", "failed", "cancelled"], page_size=RECALLED)
                self.view.tasks.recall((await self._daemon.ask(call)).tasks, time.time())
        except TaskdError as error:
            self.view.note(sentence(error), time.time())
        self.stirred()

    async def open(self, page: Page) -> None:
        """Follow the log of a page's task, from its start or from where a page of it stands."""
        daemon, id = self._daemon, page.id
        if daemon is None or id is None:
            return
        await self.close()
        self._next = self._next if page.log else 0
        try:
            answer = await daemon.call("Task.watch", ids=[id], log=True, log_from={id: self._next})
        except Refused as error:
            self.view.note(sentence(error), time.time())
        except NoDaemon:
            return  # told by whoever listens
        else:
            self._one = answer["subscription"] if isinstance(answer, Mapping) else None
        self.stirred()

    async def close(self) -> None:
        """Follow no log any more."""
        one, self._one = self._one, None
        try:
            if self._daemon is not None and one is not None:
                await self._daemon.call("Task.unwatch", subscription=one)
        except TaskdError:
            pass  # the connection broke, and the subscription with it
