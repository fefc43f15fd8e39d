"""Clients of taskd, blocking and on trio, over one conversation.

``with connect(path) as daemon: daemon.get(id)`` is the blocking one; ``async with open(path) as daemon: await
daemon.get(id)`` the one on trio, with as many calls in flight on its one connection as there are tasks that
call. Both have the same verbs (``taskd.client.verbs``), ``call`` for any other method, and the same errors:
``Refused`` is the daemon's no, ``NoDaemon`` that nobody answers.

Timeouts are the caller's: ``timeout_s`` of ``connect``, ``trio.fail_after`` around a call. Whoever gives a
call up leaves the connection in step, and the daemon goes on with what was asked.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from taskd.client.blocking import Daemon, connect
from taskd.client.conversation import Call, Notification
from taskd.client.record import Grant, Lines, Offer, Page, Record
from taskd.errors import NoDaemon, Refused

if TYPE_CHECKING:
    from taskd.client import on_trio

__all__ = [
    "Call",
    "Daemon",
    "Grant",
    "Lines",
    "NoDaemon",
    "Notification",
    "Offer",
    "Page",
    "Record",
    "Refused",
    "connect",
    "open",
]


def open(path: str) -> AbstractAsyncContextManager[on_trio.Daemon]:
    """Connect on trio to the daemon that listens on the Unix socket ``path``; closed at the end.

    Raises:
        NoDaemon: on entering; nobody listens there, or we may not connect.
    """
    # Late, so that a program that only blocks does not pay for trio.
    from taskd.client import on_trio

    return on_trio.open(path)
