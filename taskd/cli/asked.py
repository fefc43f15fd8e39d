"""Asking, but not for ever: whoever types a command is told when a daemon that is there does not answer.

``asking`` is without the weight, for what starts often and reads a lot, ``ls`` and the Tab key: to import
``taskd.client`` takes longer than all that ``ls`` does. What it reads is read as it comes: a
``Glance`` has the fields of a record by the same names, and so ``words`` may speak of either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from taskd.asking import PATIENCE_S, Asking

if TYPE_CHECKING:
    from taskd.client import Daemon, Record


@contextmanager
def asking(path: str, patience_s: float = PATIENCE_S) -> Iterator[Asking]:
    """A connection to the daemon that listens on the Unix socket ``path``.

    Raises:
        NoDaemon: nobody answers, or not in time.
    """
    try:
        with Asking(path, patience_s) as daemon:
            yield daemon
    except OSError as error:
        from taskd.errors import NoDaemon

        raise NoDaemon(path, error.strerror or str(error)) from None


@contextmanager
def connected(path: str, *, long: bool = False) -> Iterator[Daemon]:
    """A client's connection; a reply may take ``PATIENCE_S``, and where calls are ``long``, as long as it likes.

    Raises:
        NoDaemon: nobody answers, or not in time.
    """
    from taskd import client
    from taskd.errors import NoDaemon

    try:
        with client.connect(path, None if long else PATIENCE_S) as daemon:
            yield daemon
    except TimeoutError as error:
        raise NoDaemon(path, str(error)) from None


class Glance:
    """A part of a reply, read by attribute: None where the daemon does not say it; times in seconds."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw

    def __getattr__(self, name: str) -> Any:
        value = self.raw.get(name)
        if isinstance(value, str) and name.endswith("_at"):
            return datetime.fromisoformat(value).timestamp()
        return Glance(value) if isinstance(value, dict) else value

    @property
    def ended(self) -> bool:
        """As ``Record.ended``."""
        return self.raw.get("finished_at") is not None


def glance(raw: Mapping[str, Any]) -> Record:
    """A record as it came, to be looked at; its params and result stay in ``raw``."""
    return cast("Record", Glance(raw))
