"""Clients of taskd, blocking and on trio, over one conversation. Both have the same verbs and the same errors.

The blocking one:

>>> from taskd import client
>>> with client.connect(path) as daemon:
...     task = daemon.copy(f"{folder}/disk.img", f"{folder}/copy.img", label="nightly")
...     done = daemon.wait(task.id).check()
...     print(done.label, done.state, done.result["bytes"])
nightly completed 1048576

``check`` is for who wants an exception where a task did not complete (``NotCompleted``). The daemon's no is
``Refused``, with the name and the data of README's table of errors; the most common names are types of their own:

>>> with client.connect(path) as daemon:
...     try:
...         daemon.copy(f"{folder}/disk.img", f"{folder}/copy.img")
...     except client.TargetExists as refused:
...         print(refused.error, "-", refused)  # doctest: +ELLIPSIS
Target_exists - ...copy.img exists; with overwrite=true it is replaced

A task that is not to outlive the code beside it is started by ``running``. Who leaves the block by an exception, a
Ctrl-C as well, cancels it and goes on when it has really ended:

>>> with client.connect(path) as daemon:
...     try:
...         with daemon.running("command", {"argv": ["sleep", "60"]}) as task:
...             raise RuntimeError("something else went wrong")
...     except RuntimeError:
...         print(task.record.state)
cancelled

``watch`` tells what happens, to some tasks or all of them:

>>> with client.connect(path) as daemon:
...     made = daemon.start("external", label="elsewhere")
...     with daemon.watch(made.id, log=True) as events:
...         reported = daemon.update(made.id, fraction=0.5, log=["half way"])
...         completed = daemon.complete(made.id)
...         for event in events:
...             match event:
...                 case client.Log(lines=lines):
...                     print(*[each.line for each in lines])
...                 case client.Changed(record=record) if record.ended:
...                     print(record.label, record.state)
...                     break
half way
elsewhere completed

With ``connect(path, patience_s=10)`` the daemon may be away for ten seconds at a time, in an upgrade for instance.
What may be made twice is made again when it is back: every look, ``wait``, ``cancel``, and ``start``, which gets a
``request_id`` of its own. A watch goes on where it was: nothing is missed, and nothing told twice. Any other call
waits for a daemon that it finds away; if it breaks after it was sent it raises NoDaemon, for whether it was heard
is not known. Without ``patience_s`` everything raises NoDaemon at once, and where nobody listens in the first
place ``connect`` always does.

Timeouts are the caller's: ``timeout_s`` of ``connect``, ``trio.fail_after`` around a call. Whoever gives a call up
leaves the connection in step, and the daemon goes on with what was asked. ``call`` is for any other method. The
client on trio is ``open``; ``taskd.client.on_trio`` shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from taskd.client.blocking import Daemon, connect
from taskd.client.conversation import Call, Notification
from taskd.client.event import Changed, Destroyed, Event, Log, Resync, Snapshot, Synced
from taskd.client.patience import ignore
from taskd.client.record import Grant, Lines, Offer, Page, Record, Running
from taskd.client.refusals import (
    AlreadyEnded,
    BadParams,
    DoesNotExist,
    HasResidue,
    PermissionDenied,
    SourceMissing,
    StoreUnavailable,
    TargetExists,
    TaskInProgress,
    TooLate,
    TooManyTasks,
)
from taskd.errors import NoDaemon, NotCompleted, Refused

if TYPE_CHECKING:
    from taskd.client import on_trio

__all__ = [
    "AlreadyEnded", "BadParams", "Call", "Changed", "Daemon", "Destroyed", "DoesNotExist", "Event", "Grant",
    "HasResidue", "Lines", "Log", "NoDaemon", "NotCompleted", "Notification", "Offer", "Page", "PermissionDenied",
    "Record", "Refused", "Resync", "Running", "Snapshot", "SourceMissing", "StoreUnavailable", "Synced",
    "TargetExists", "TaskInProgress", "TooLate", "TooManyTasks", "connect", "open",
]  # fmt: skip


def open(
    path: str, patience_s: float = 0.0, away: Callable[[bool], None] = ignore
) -> AbstractAsyncContextManager[on_trio.Daemon]:
    """Connect on trio to the daemon that listens on the Unix socket ``path``; closed at the end.

    ``patience_s``: seconds that the daemon may be away at a time, see above; ``away`` hears True when it goes and
    False when it is back.

    Raises:
        NoDaemon: on entering; nobody listens there, or we may not connect.
    """
    # Late, so that a program that only blocks does not pay for trio.
    from taskd.client import on_trio

    return on_trio.open(path, patience_s, away)
