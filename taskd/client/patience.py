"""How long a daemon may be away: the one place that decides whether a broken connection is made anew.

Sans-IO: it is told the time, and its owner sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from taskd.errors import NoDaemon

# Seconds between two looks whether the daemon is back.
RETRY: Final = 0.1


def ignore(away: bool) -> None:
    """Nobody wants to know."""


@attrs.define(eq=False)
class Patience:
    """``seconds`` that the daemon may be away at a time; 0 is none at all.

    ``told`` hears True when it goes away and False when it is back. A daemon that comes back only to go away again
    has not come back: the time runs on until it has answered, or has stayed for as long.
    """

    seconds: float
    told: Callable[[bool], None] = ignore
    _until: float | None = attrs.field(default=None, init=False)
    _met: float | None = attrs.field(default=None, init=False)
    _away: bool = attrs.field(default=False, init=False)

    def met(self, now: float) -> None:
        """There is a connection."""
        self._met = now
        if self._away:
            self._away = False
            self.told(False)

    def answered(self) -> None:
        """There is a daemon."""
        self._until = None

    def lost(self, error: NoDaemon, now: float) -> None:
        """There is no connection; to be tried again in ``RETRY`` seconds.

        Raises:
            NoDaemon: that was long enough.
        """
        stayed, self._met = self._met is not None and now - self._met >= self.seconds, None
        if self._until is None or stayed:
            self._until = now + self.seconds
        if now >= self._until:
            raise error
        if not self._away:
            self._away = True
            self.told(True)
