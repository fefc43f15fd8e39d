"""Sessions: what XenAPI's clients hold on to, though the connection tells already who calls.

A session is its user's: to anybody else its ref is SESSION_INVALID. It ends with its logout, after IDLE seconds
without a call, when its user opens more than LIMIT (the one unused for longest goes), or with the daemon: sessions
are not stored, and clients log in again. Whatever waits in a session is woken by its end (xapi-project/xen-api,
ocaml/xapi/xapi_session.ml and xapi_event.ml).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from taskd.errors import XenApiError
from taskd.model import Caller

# Seconds without a call after which a session ends, as xapi's inactive_session_timeout.
IDLE: Final = 86400.0

# Most sessions of one user.
LIMIT: Final = 500


@attrs.define(eq=False)
class Session:
    """One login of ``user``. ``classes`` are those registered for ``event.next``, which goes on from ``seen``."""

    ref: str
    user: str
    used_at: float
    classes: frozenset[str] | None = None
    seen: int = 0
    _ended: bool = False
    _waits: set[trio.CancelScope] = attrs.field(factory=set)

    @property
    def in_use(self) -> bool:
        """Something waits in it."""
        return bool(self._waits)

    @property
    def idle(self) -> bool:
        return not self._waits and trio.current_time() - self.used_at > IDLE

    def check(self) -> None:
        """Raises SESSION_INVALID when it has ended."""
        if self._ended:
            raise XenApiError("SESSION_INVALID", (self.ref,))

    @contextmanager
    def waiting(self, deadline: float) -> Iterator[None]:
        """What is in the block ends at ``deadline`` (trio's clock), or with the session, which is then raised.

        Raises:
            XenApiError: SESSION_INVALID.
        """
        with trio.CancelScope(deadline=deadline) as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)
                self.used_at = trio.current_time()
        self.check()

    def end(self) -> None:
        self._ended = True
        for scope in self._waits:
            scope.cancel()


@attrs.define(eq=False)
class Sessions:
    """All sessions, by ref."""

    _open: dict[str, Session] = attrs.field(factory=dict)

    def open(self, caller: Caller) -> Session:
        """A new session of ``caller``."""
        for session in [each for each in self._open.values() if each.idle]:
            self.end(session)
        own = [each for each in self._open.values() if each.user == caller.user]
        for session in sorted(own, key=lambda each: (each.in_use, each.used_at))[: max(0, len(own) + 1 - LIMIT)]:
            self.end(session)
        session = Session(f"OpaqueRef:{uuid.uuid4()}", caller.user, trio.current_time())
        self._open[session.ref] = session
        return session

    def find(self, caller: Caller, ref: str) -> Session:
        """The session of that ref, which is now in use.

        Raises:
            XenApiError: SESSION_INVALID: there is none, it has ended, or it is somebody else's.
        """
        session = self._open.get(ref)
        if session is not None and session.idle:
            self.end(session)
        elif session is not None and session.user == caller.user:
            session.used_at = trio.current_time()
            return session
        raise XenApiError("SESSION_INVALID", (ref,))

    def end(self, session: Session) -> None:
        """End it; what waits in it is woken and raises SESSION_INVALID."""
        self._open.pop(session.ref, None)
        session.end()

    def __len__(self) -> int:
        return len(self._open)
