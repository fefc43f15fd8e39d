"""What is told and not read yet, by user: a thousand connections that read nothing must not fill the memory.

A connection has a bound of its own, but for one reply of any length: a table of XenAPI is one value, however many
tasks there are. So the long replies of a user are counted together, from when they are made until they are sent.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

logger = logging.getLogger("taskd.service")

# A reply of no more bytes is not counted: a thousand of them are no burden, and it always gets through.
SHORT: Final = 65536


@attrs.define(eq=False)
class Unread:
    """Of one user ``most`` bytes at a time, or one reply, however long it is."""

    most: int = 256 * 1024 * 1024
    _held: Counter[str] = attrs.field(factory=Counter)

    @contextmanager
    def held(self, user: str, size: int) -> Iterator[None]:
        """Count a reply of ``size`` bytes as long as the context lasts.

        Raises:
            BrokenResourceError: it would be too much; the connection that asked for it is to be closed.
        """
        if size <= SHORT:
            yield
            return
        if self._held[user] and self._held[user] + size > self.most:
            logger.warning("%s does not read what it asks for on all its connections; one of them is closed", user)
            raise trio.BrokenResourceError
        self._held[user] += size
        try:
            yield
        finally:
            self._held[user] -= size
            if not self._held[user]:
                del self._held[user]
