"""With whose rights an operation's code acts: those of the task, on each thread that does its work.

The law (an operation is no confused deputy):

- What a task does to files it does in ``in_thread``, and there the kernel grants it what it grants to the task's
  user and groups, and nothing else, at the moment of the act. Nothing is asked first and done later with more.
- The same rights hold for the check before a task is made, for its work, and for its undo and finish, also after
  a restart: they are kept with the task.
- What is the daemon's own (its workspace) is touched inside ``own``, or ``acting`` with None.

What rights do not keep anybody from is the daemon's own process: /proc/self is it. ``operations.image.paths``
walks to files so that nobody gets there.

A task without ``Rights`` is an admin's, and acts with those of the daemon. Code that enters a thread by another
road than these also does, and so does all that runs on the event loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import trio
from trio.lowlevel import RunVar

from taskd.model import Rights
from taskd.runner.credentials import Credentials, wearing

T = TypeVar("T")

# A worker thread has a copy of these from whoever entered it.
_acting: ContextVar[Rights | None] = ContextVar("the rights of the task that acts", default=None)
_before: ContextVar[Credentials | None] = ContextVar("what this thread wore before", default=None)

# How many threads one has at once, if not told otherwise; whose they are is kept for as long as there are any.
_THREADS: Final = 40
_limiters: RunVar[WeakValueDictionary[object, trio.CapacityLimiter]] = RunVar("taskd threads of users")


def current() -> Rights | None:
    """The rights of the task whose code this is; None: the daemon's own."""
    return _acting.get()


def uid() -> int:
    """The id of the user that the kernel takes a file's act for."""
    rights = current()
    return os.geteuid() if rights is None else rights.uid


@contextmanager
def acting(rights: Rights | None) -> Iterator[None]:
    """Inside, ``in_thread`` acts with these rights."""
    token = _acting.set(rights)
    try:
        yield
    finally:
        _acting.reset(token)


@contextmanager
def own() -> Iterator[None]:
    """In a thread: inside, the daemon's own rights, for what is the daemon's own."""
    with acting(None):
        before = _before.get()
        if before is None:
            yield
        else:
            with wearing(before):
                yield


def able(rights: Rights) -> bool:
    """The daemon may act with them: they are its own user's, or it is root."""
    return os.geteuid() in (0, rights.uid)


async def in_thread(
    function: Callable[..., T],
    *args: object,
    limiter: trio.CapacityLimiter | None = None,
    abandon_on_cancel: bool = False,
) -> T:
    """Call it in a worker thread, with the rights of the task; a cancel waits until it has returned.

    Only what changes nothing may be abandoned on cancel. Without a ``limiter`` the user's ``threads`` are it.

    Raises:
        PermissionDenied: the daemon cannot act with these rights; it was not called.
    """
    call, limiter = _with_rights, limiter or threads(uid())
    return await trio.to_thread.run_sync(
        call, function, *args, limiter=limiter, abandon_on_cancel=abandon_on_cancel
    )


def threads(whose: object, most: int = _THREADS) -> trio.CapacityLimiter:
    """The threads in which what ``whose`` calls name is looked at; ``most`` at once.

    A disk that does not answer keeps a thread for as long. So whoever names what is on one spends threads of its
    own, and neither those of others nor trio's, with which callers are looked up and settings read.
    """
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = WeakValueDictionary()
        _limiters.set(limiters)
    return limiters.setdefault(whose, trio.CapacityLimiter(most))


def _with_rights(function: Callable[..., T], *args: object) -> T:
    rights = current()
    # A daemon that is not root has one user's rights, and the capability for no others.
    if rights is None or rights.uid == os.geteuid() != 0:
        return function(*args)
    with wearing(Credentials(rights.uid, rights.gid, tuple(sorted(rights.groups)))) as before:
        token = _before.set(before)
        try:
            return function(*args)
        finally:
            _before.reset(token)


def root_of(path: str, roots: tuple[str, ...]) -> str | None:
    """The innermost of ``roots`` that ``path`` is, or is beneath, as far as its text tells."""
    found = [root for root in roots if path == root or path.startswith(root + "/")]
    return max(found, key=len, default=None)
