"""Waiting for tasks, alive: what moves is shown, Ctrl-C asks for a cancel, a daemon that restarts is awaited.

The first Ctrl-C asks the daemon to cancel what is still waited for, and the waiting goes on: only the daemon
knows how a task ends. The second one leaves; so does SIGTERM at once. Who leaves is told what is true of each
task then: a cancel counts as asked for when the daemon has said so. Everything that is asked here may be asked
twice, so a call that broke with the connection is simply made again.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Final, TypeVar

import attrs
import trio

from taskd.cli import exits, meter, say, words
from taskd.cli.exits import Exit
from taskd.cli.meter import Silent
from taskd.cli.sentences import sentence
from taskd.client import Call, NoDaemon, Record, Refused, on_trio, verbs
from taskd.errors import BadParams, TaskdError

T = TypeVar("T")

# Seconds that a daemon may be away.
PATIENCE: Final = 10.0

# Seconds: the longest between two looks at a task whose rate is shown, the shortest, and the longest at one
# of which only its end, and what hinders it, matters.
TICK: Final = 1.0
BREATH: Final = 0.1
LONG: Final = 10.0

# Seconds that whoever leaves waits for the answer to a cancel, to know what is true.
MOMENT: Final = 1.0

# What becomes of a task that is left, from not knowing of a cancel to the daemon's word for it.
GOES_ON: Final = ", which goes on"
NOT_ASKED: Final = "; its cancel was NOT asked for, it goes on"
NOT_KNOWN: Final = "; its cancel was asked for, but whether the daemon heard it is not known"
ASKED: Final = "; its cancel was asked for"


@attrs.define(eq=False)
class Link:
    """The daemon, which may restart, and the meter, which says so. ``away``: it does not answer now."""

    path: str
    meter: Silent
    away: bool = attrs.field(default=False, init=False)
    _daemon: on_trio.Daemon | None = attrs.field(default=None, init=False)
    _unsent: list[Callable[[], None]] = attrs.field(factory=list, init=False)

    async def connect(self) -> None:
        """Connect for the first time; here there is no patience.

        Raises:
            NoDaemon: nobody answers.
        """
        self._daemon = await on_trio.connect(self.path, PATIENCE, self._told)

    def _told(self, away: bool) -> None:
        self.away = away
        self.meter.away(away)
        if away:
            self.meter.note("the daemon went away; waiting for it to come back")
        while self._unsent and not away:
            self._unsent.pop()()

    async def ask(self, call: Call[T], sending: Callable[[], None] = lambda: None) -> T:
        """The result of a call that may be made again; ``sending`` is called before it may be heard.

        Raises:
            NoDaemon: the daemon was away for longer than our patience.
            Refused: the daemon's no.
        """
        assert self._daemon is not None
        if self.away:
            self._unsent.append(sending)
        else:
            sending()
        return await self._daemon.ask(call)

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.close()


@attrs.define(eq=False)
class Watch:
    """What one command waits for. ``lines``: also show the tasks' logs, from number ``after`` on;
    ``cancels``: Ctrl-C asks for that.
    """

    link: Link
    meter: Silent
    lines: bool
    cancels: bool
    after: int = 0
    pending: list[str] = attrs.field(factory=list, init=False)
    records: dict[str, Record] = attrs.field(factory=dict, init=False)
    exits: list[Exit] = attrs.field(factory=list, init=False)
    _asked: bool = attrs.field(default=False, init=False)
    _starting: Call[Record] | None = attrs.field(default=None, init=False)
    _left: dict[str, str] = attrs.field(factory=dict, init=False)
    _answers: list[trio.Event] = attrs.field(factory=list, init=False)

    async def all(self, start: Call[Record] | None, ids: Sequence[str]) -> None:
        """Wait until the task that ``start`` makes, and every other, has ended, or somebody leaves.

        Raises:
            NoDaemon: nobody answers from the first.
        """
        # Signals are heeded before a task is made: from then on, Ctrl-C means a cancel.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await self.link.connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, signals, nursery)
                async with trio.open_nursery() as tasks:
                    if start is not None:
                        tasks.start_soon(self._told, self._start(start, nursery), nursery)
                    for id in ids:
                        tasks.start_soon(self._told, self._one(id), nursery)
                nursery.cancel_scope.cancel()
        if Exit.READER_GONE not in self.exits:
            self._leave()
        self.link.close()

    def _leave(self) -> None:
        """Say what is true of whatever is not seen to its end."""
        if self._starting is not None:
            self.meter.note(words.unsure(self._starting.params["request_id"]))
        back = " when the daemon is back" if self.link.away else ""
        for id in self.pending:
            left = self._left.get(id, NOT_ASKED if self._asked else GOES_ON)
            self.meter.note(f"left task {id}{left}{back if left in (GOES_ON, NOT_ASKED) else ''}")

    async def _heed(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if number == signal.SIGINT and self.cancels and not self._asked:
                self._asked = True
                what = "will ask for the cancel when the daemon is back" if self.link.away else "cancelling"
                self.meter.note(f"{what}; Ctrl-C again to leave it")
                for id in self.pending:
                    nursery.start_soon(self._cancel, id)
            else:
                with trio.move_on_after(0 if self.link.away else MOMENT):
                    for answer in self._answers:
                        await answer.wait()
                self.exits.append(Exit.LEFT if number == signal.SIGINT else Exit.TERMINATED)
                nursery.cancel_scope.cancel()

    async def _cancel(self, id: str) -> None:
        self._left[id] = NOT_ASKED
        self._answers.append(answered := trio.Event())

        def sending() -> None:
            self._left[id] = NOT_KNOWN

        try:
            await self.link.ask(verbs.cancel(id, must=True), sending)
            self._left[id] = ASKED
        except Refused as error:
            self._left[id] = GOES_ON
            self.meter.note(sentence(error))
        except NoDaemon:
            pass  # told by whoever waits for the task
        finally:
            answered.set()

    async def _told(self, waiting: Coroutine[None, None, None], nursery: trio.Nursery) -> None:
        """What goes wrong with one task is told, and the others are waited for."""
        try:
            await waiting
        except say.Unheard as error:
            self.exits.append(error.exit)
            nursery.cancel_scope.cancel()
        except TaskdError as error:
            self.exits.append(exits.of_error(error))
            self.meter.note(sentence(error))

    async def _start(self, call: Call[Record], nursery: trio.Nursery) -> None:
        self._starting = call
        try:
            id = (await self.link.ask(call)).id
        except (BadParams, Refused):  # none was made
            self._starting = None
            raise
        self._starting = None
        if self._asked:
            nursery.start_soon(self._cancel, id)
        await self._one(id)

    async def _one(self, id: str) -> None:
        self.pending.append(id)
        try:
            self.records[id] = record = await self._end(id)
        except (BadParams, Refused):
            self.pending.remove(id)
            raise
        self.pending.remove(id)
        self.exits.append(exits.of(record))
        self.meter.ended(record)

    async def _end(self, id: str) -> Record:
        """Show the task until it has ended."""
        record = await self.link.ask(verbs.get(id))
        following, owed = self.after, record.residue[:0]
        while True:
            if record.cancel_requested:
                self._left[id] = ASKED
            if self.lines:
                following = await self._log(id, following)
            if record.ended:
                return record
            self.meter.show(record)
            if record.residue not in ((), owed):
                owed = record.residue
                self.meter.note(f"{words.name(record)}: {words.printable(record.state)}")
                for each in words.residue(record):
                    self.meter.note(each)
            if not (self.meter.moving or self.lines):
                record = await self.link.ask(verbs.wait(id, LONG))
                continue
            record = await self.link.ask(verbs.wait(id, TICK, record.revision))
            if not record.ended:  # a task may change a thousand times a second; nobody reads that fast
                record = await self.link.ask(verbs.wait(id, BREATH))

    async def _log(self, id: str, start: int) -> int:
        """Show the log's lines from ``start`` on; where to go on."""
        while (page := await self.link.ask(verbs.log(id, start))).lines:
            if (lost := page.lines[0].n - start) > 0:
                self.meter.note(words.lost(lost))
            for line in page.lines:
                self.meter.line(words.logged(line.line))
            start = page.next
        return start


def watch(
    path: str,
    ids: Sequence[str] = (),
    *,
    start: Call[Record] | None = None,
    silent: bool = False,
    lines: bool = False,
    cancels: bool = True,
    after: int = 0,
) -> tuple[list[Record], Exit]:
    """Wait for tasks; the records of those whose end was seen, in the order asked, and the worst exit.

    ``start`` is a call that makes one more, and that may be made again: it has a ``request_id``. ``lines``: also
    show their logs, from number ``after`` on.

    Raises:
        NoDaemon: nobody answers from the first.
    """
    ids = list(dict.fromkeys(ids))
    with meter.choose(silent=silent, logs=lines) as shown:
        seen = Watch(Link(path, shown), shown, lines, cancels, after)
        trio.run(seen.all, start, ids)
    order = ids or list(seen.records)
    return [seen.records[id] for id in order if id in seen.records], exits.worst(seen.exits)
