"""Tokens: how somebody whom the kernel does not know on our socket comes in through a proxy.

The law: a token counts only where a proxy of the settings presents it, and such a proxy counts only with one. A
token that comes from anybody else is refused rather than passed over: its holder would act as somebody else. Of
the secret, 32 random bytes, only the SHA-256 is kept, so that whoever reads the store can let nobody in; and no
answer, nor the time that it takes, tells a wrong secret from an unknown id or one whose time is over.

All tokens are in memory. A change is durable first, and then in force at once: also for what is under way.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from taskd import access
from taskd.errors import BadParams, DoesNotExist, Unauthenticated
from taskd.model import Caller, Time, Token, now
from taskd.service import bounds
from taskd.store import Store

logger = logging.getLogger("taskd.tokens")

# The value of an Authorization header that presents a token: RFC 6750, and ``Bearer+``, as KooDrive's samples
# have it. A scheme's case does not matter (RFC 9110, 11.1).
BEARER: Final = re.compile(r"bearer(?:[\s+]\s*(.*))?", re.IGNORECASE | re.DOTALL)

# What its holder has: our mark, by which people and scanners know it; the id; the secret.
HELD: Final = re.compile(r"taskd_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")

# Seconds that a token may be good for, where that is limited at all: what is longer was not meant.
LONGEST: Final = 100 * 365.25 * 86400

# Seconds between two looks at the time of a token that something goes on under.
AGAIN: Final = 60.0

# What whoever came by a token that counts no more is told.
OVER: Final = "the token is not valid any more"

# No secret has it, and comparing with it takes as long as with any other.
_DUMMY: Final = secrets.token_hex(32)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@attrs.define(eq=False)
class Tokens:
    """All tokens; ``max_text`` is the length of the longest user name, in characters."""

    store: Store
    max_text: int = 4096
    _tokens: dict[str, Token] = attrs.field(factory=dict)
    _under: dict[str, set[trio.CancelScope]] = attrs.field(factory=dict)

    async def load(self) -> None:
        """Take them from the store; before that there is none."""
        self._tokens = {token.id: token for token in await self.store.tokens()}

    # Who calls.

    def who(self, peer: Caller, authorization: str | None) -> Caller:
        """Who calls when ``peer`` sends this Authorization header, None for none.

        Without a token it is the peer itself, also where another scheme says what we do not look at.

        Raises:
            Unauthenticated: a proxy presents no good token, or somebody who is no proxy presents one.
        """
        bearer = BEARER.fullmatch((authorization or "").strip())
        if not peer.proxy:
            if bearer is not None:
                raise Unauthenticated("only whom the setting proxies names may present a token")
            return peer
        if bearer is None:
            raise Unauthenticated(access.NO_TOKEN)
        token = self._good(bearer[1] or "")
        if token is None:
            raise Unauthenticated("the token is not valid")
        return Caller(None, None, peer.pid, token.user, frozenset(token.roles), token=token.id)

    def _good(self, held: str) -> Token | None:
        """The token of that holder, if it is his and its time is not over."""
        match = HELD.fullmatch(held)
        id, secret = (match[1], match[2]) if match is not None else ("", "")
        token = self._tokens.get(id)
        same = hmac.compare_digest(_digest(secret), _DUMMY if token is None else token.digest)
        if same and token is not None and _lasts(token):
            return token
        logger.info("a token was refused: %s", f"its id is {id}" if id else "it has not the form of one")
        return None

    def check(self, caller: Caller) -> None:
        """Whoever came by a token is asked about it for each call: it may have been taken back since.

        Raises:
            Unauthenticated: it was, or its time is over.
        """
        if caller.token is not None:
            token = self._tokens.get(caller.token)
            if token is None or not _lasts(token):
                raise Unauthenticated(OVER)

    @contextmanager
    def held(self, caller: Caller) -> Iterator[trio.CancelScope]:
        """Around whatever goes on for long under a caller's name: the scope is cancelled when the token that the
        caller came by is removed, or its time is over. Without a token it never is.
        """
        with trio.CancelScope() as scope:
            if caller.token is None:
                yield scope
                return
            token = self._tokens.get(caller.token)
            if token is None:
                scope.cancel()
            elif token.expires_at is not None:
                scope.deadline = trio.current_time() + token.expires_at - time.time()
            scopes = self._under.setdefault(caller.token, set())
            scopes.add(scope)
            try:
                yield scope
            finally:
                scopes.discard(scope)
                if not scopes and self._under.get(caller.token) is scopes:
                    del self._under[caller.token]

    async def withdrawn(self, caller: Caller) -> None:
        """Wait until the caller's token does not count any more; for ever, for one who came by none.

        The clock of the wall, by which a token's time goes, may be set meanwhile: it is looked at again.
        """
        while True:
            with self.held(caller) as scope:
                await trio.sleep(AGAIN)
            if scope.cancelled_caught:
                return

    # Verbs, for admins.

    async def add(
        self, caller: Caller, user: str, roles: Collection[str], expires_s: float | None = None
    ) -> tuple[Token, str]:
        """A new token, durable, and what its holder is to present: it is told this once.

        Whoever comes by it is ``user`` with ``roles``; in ``expires_s`` seconds it is as good as none.

        Raises:
            BadParams: it cannot be; nothing was made.
            PermissionDenied, StoreUnavailable: nothing was made.
        """
        access.check_call(caller, "Token.add")
        self._check_user(user)
        if not roles or not access.EVERYONE.issuperset(roles):
            raise BadParams("params.roles", f"must be one or several of {', '.join(sorted(access.EVERYONE))}")
        if expires_s is not None and not 0 < expires_s <= LONGEST:
            raise BadParams("params.expires_s", f"must be more than 0 and at most {LONGEST:.0f} seconds")
        secret = secrets.token_urlsafe(32)
        id = secrets.token_hex(4)
        while id in self._tokens:
            id = secrets.token_hex(4)
        made = now()
        until = None if expires_s is None else Time(round(made + expires_s, 3))
        token = Token(id, user, tuple(sorted(set(roles))), _digest(secret), made, until)
        with trio.CancelScope(shield=True):
            await self.store.add_token(token)
        self._tokens[id] = token
        logger.info("%r added token %s for %s (%s)", caller, id, user, ", ".join(token.roles))
        return token, f"taskd_{id}_{secret}"

    def _check_user(self, user: str) -> None:
        bounds.texts(self.max_text, {"user": user})
        # A colon is in the name that the daemon has for itself, and in no user's.
        # A percent sign is in front of a group, which cannot hold a token.
        if not user or ":" in user or user.startswith("%") or not user.isprintable():
            raise BadParams("params.user", "must be a user's name: no group, no colons, no control characters")

    async def list(self, caller: Caller) -> Sequence[Token]:
        """All tokens, oldest first, also those whose time is over. Raises PermissionDenied."""
        access.check_call(caller, "Token.ls")
        return tuple(self._tokens.values())

    async def remove(self, caller: Caller, id: str) -> None:
        """Remove a token; nobody comes by it any more, and whoever has is out (``held``), when this returns.

        Raises:
            DoesNotExist: there is no such token.
            PermissionDenied, StoreUnavailable: it is as it was.
        """
        access.check_call(caller, "Token.rm")
        if id not in self._tokens:
            raise DoesNotExist("token", id)
        with trio.CancelScope(shield=True):
            there = await self.store.delete_token(id)
        self._tokens.pop(id, None)
        for scope in self._under.pop(id, ()):
            scope.cancel()
        if not there:  # somebody else was faster
            raise DoesNotExist("token", id)
        logger.info("%r removed token %s", caller, id)


def _lasts(token: Token) -> bool:
    return token.expires_at is None or now() < token.expires_at
