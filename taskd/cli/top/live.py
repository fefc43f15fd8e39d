"""The live form: keys, news and the clock on one side, a terminal on the other.

At most four times a second the screen follows the tasks; a key is followed at once. Where nothing differs nothing
is written. A terminal that takes its bytes slowly gets fewer frames and delays nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from math import inf
from typing import Final

import attrs
import trio

from taskd.cli.exits import Exit
from taskd.cli.top import screen
from taskd.cli.top.keys import Keys
from taskd.cli.top.news import News, news
from taskd.cli.top.screen import Screen, Terminal
from taskd.cli.top.view import Verb, View, Wish

# Seconds: between two frames, if nobody presses a key; the longest that a frame stays, for it tells times; and in
# which the rest of a key's sequence comes, if it was cut.
PACE: Final = 0.25
TICK: Final = 1.0
REST: Final = 0.1


@attrs.define(eq=False)
class Live:
    """One run of it."""

    view: View
    news: News
    terminal: Terminal
    screen: Screen
    exit: Exit = Exit.DONE
    # What there is to draw anew: at the next frame, or at once.
    _stirred: trio.Event = attrs.field(factory=trio.Event, init=False)
    _pressed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def stir(self) -> None:
        self._stirred.set()

    async def run(self) -> None:
        """Until somebody quits; the terminal is ours."""
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(
                signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP
            ) as signals:
                nursery.start_soon(self._heed, signals, nursery.cancel_scope)
                nursery.start_soon(self._keyboard, nursery)
                nursery.start_soon(self.news.run)
                await self._draw(nursery.cancel_scope)

    async def _draw(self, scope: trio.CancelScope) -> None:
        while True:
            self._stirred, self._pressed = trio.Event(), trio.Event()
            data = self.screen.draw(self.view.frame(time.time()))
            if data:
                try:
                    # In a thread, for a terminal may stop taking bytes.
                    await trio.to_thread.run_sync(screen.write, data, abandon_on_cancel=True)
                except OSError:
                    self._end(Exit.UNWRITABLE, scope)
            with trio.move_on_after(PACE):
                await self._pressed.wait()
            if not self._stirred.is_set():
                with trio.move_on_after(TICK - PACE):
                    await self._stirred.wait()

    def _end(self, exit: Exit, scope: trio.CancelScope) -> None:
        self.exit = exit
        scope.cancel()

    async def _heed(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            match number:
                case signal.SIGWINCH:
                    self._repaint()
                case signal.SIGTSTP:
                    self.terminal.give_back()
                    os.kill(os.getpid(), signal.SIGSTOP)
                    self.terminal.take()
                    self._repaint()
                case signal.SIGINT:
                    self._end(Exit.LEFT, scope)
                case _:
                    self._end(Exit.TERMINATED, scope)

    def _repaint(self) -> None:
        self.view.width, self.view.height = screen.size()
        self.screen.forget()
        self._press()

    def _press(self) -> None:
        self._stirred.set()
        self._pressed.set()

    async def _keyboard(self, nursery: trio.Nursery) -> None:
        keys, fd = Keys(), sys.stdin.fileno()
        while True:
            found: list[str] = []
            with trio.move_on_after(REST if keys.begun else inf) as waiting:
                await trio.lowlevel.wait_readable(fd)
            if waiting.cancelled_caught:
                found = keys.nothing_follows()
            else:
                try:
                    data = os.read(fd, 1024)
                except OSError:
                    data = b""
                if not data:  # nobody will press a key any more
                    self._end(Exit.DONE, nursery.cancel_scope)
                found = keys.receive(data)
            for key in found:
                wish = self.view.key(key, time.time())
                if wish is not None:
                    self._grant(wish, nursery)
                if self.view.asks:
                    break  # what was pressed, or pasted, before the question could be read is no answer
            if found:
                self._press()

    def _grant(self, wish: Wish, nursery: trio.Nursery) -> None:
        match wish.verb:
            case Verb.QUIT:
                self._end(Exit.DONE, nursery.cancel_scope)
            case Verb.CANCEL:
                nursery.start_soon(self.news.cancel, wish.id)
            case Verb.RECALL:
                nursery.start_soon(self.news.recall)
            case Verb.OPEN if self.view.page is not None:
                nursery.start_soon(self.news.open, self.view.page)
            case Verb.CLOSE:
                self.news.close()
            case Verb.REPAINT:
                self._repaint()


async def live(view: View, path: str) -> Exit:
    """Show it until somebody quits.

    Raises:
        NoDaemon, Refused: of the first connection; a daemon that goes away later is awaited.
    """
    async with news(path, view, patience_s=inf) as told:
        shown = Live(view, told, Terminal(), Screen(sys.stdout.encoding))
        told.stirred = shown.stir
        view.width, view.height = screen.size()
        with shown.terminal:
            await shown.run()
        return shown.exit
