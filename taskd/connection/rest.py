"""Where the connections of polling clients rest, when there are many: one task answers whoever asks.

For each message that a task of its own waits for, trio asks the kernel to tell of the socket once more, and takes
a turn of its scheduler; beside an answer from memory that is most of the cost. In here a socket stays known to the
kernel between its messages.

The law: a connection is served as its own task would serve it. What it raises is raised there; cancelled, it is
out at once; and who asks much keeps nobody waiting for longer than anybody may.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from time import perf_counter
from typing import Final

import attrs
import trio

# So many connections are a crowd: of fewer, hardly two ask in the same moment.
CROWD: Final = 8

# The kernel tells of so many at a time, and then of them last: all have their turn.
ABREAST: Final = 16

# Seconds that may be taken for what is answered from memory, by one connection or by those that rest, until others
# have their turn.
TURN: Final = 0.001


@attrs.define(eq=False)
class Resting:
    """One that rests: what serves it, whom to wake when it is over, and what was raised."""

    hear: Callable[[], bool]
    task: trio.lowlevel.Task
    error: Exception | None = None


@attrs.define(eq=False)
class Rest:
    """See the module; ``present`` is how many connections there are."""

    present: int = 0
    _epoll: select.epoll = attrs.field(factory=select.epoll)
    _resting: dict[int, Resting] = attrs.field(factory=dict)

    @property
    def crowded(self) -> bool:
        return self.present >= CROWD

    async def run(self) -> None:
        """Serve those that rest. Never returns."""
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                until = perf_counter() + TURN
                while perf_counter() < until and (asking := self._epoll.poll(0, ABREAST)):
                    for fd, _ in asking:
                        self._serve(fd)

    def _serve(self, fd: int) -> None:
        resting = self._resting[fd]
        try:
            over = resting.hear()
        except Exception as error:
            over, resting.error = True, error
        if over:
            self._leave(fd)
            trio.lowlevel.reschedule(resting.task)

    async def until(self, fd: int, hear: Callable[[], bool]) -> None:
        """Rest until ``hear`` is true, which is called whenever something is to be read, and must not block. The
        socket stays open meanwhile.

        Raises what it raises.
        """
        self._epoll.register(fd, select.EPOLLIN)
        resting = self._resting[fd] = Resting(hear, trio.lowlevel.current_task())

        def abort(_: object) -> trio.lowlevel.Abort:
            self._leave(fd)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if resting.error is not None:
            raise resting.error

    def _leave(self, fd: int) -> None:
        del self._resting[fd]
        self._epoll.unregister(fd)
