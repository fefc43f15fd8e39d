"""What asks for a WebSocket, and what is wrong with the asking (RFC 6455, sections 4.2.1 and 4.4).

A request that asks is GET, HTTP/1.1, and has ``websocket`` among its ``Upgrade`` and ``upgrade`` among its
``Connection``. Anything less is a request like another, whose ``Upgrade`` means nothing (RFC 9110, 7.8): so is
the ``h2c`` of ``curl --http2``.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import h11

VERSION: Final = b"13"

# Bytes that the head of a frame may have: two, eight for its length, four for its mask (RFC 6455, 5.2).
FRAME_HEAD: Final = 14

# Base64 of 16 bytes.
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")

# A status, a sentence, and the headers that go with them.
Fault: TypeAlias = tuple[int, str, tuple[tuple[str, str], ...]]


def asks(head: h11.Request) -> bool:
    """Whether this is a request for a WebSocket, right or wrong."""
    return (
        head.method == b"GET"
        and head.http_version == b"1.1"
        and b"websocket" in _tokens(head, b"upgrade")
        and b"upgrade" in _tokens(head, b"connection")
    )


def fault(head: h11.Request) -> Fault | None:
    """Why a request that asks for a WebSocket cannot have one; None where it can."""
    if _values(head, b"sec-websocket-version") != [VERSION]:
        version = VERSION.decode()
        # Who sends 426 must say what to change to (RFC 9110, 15.5.22).
        change = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", version))
        return 426, f"Sec-WebSocket-Version must be {version}", change
    keys = _values(head, b"sec-websocket-key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        return 400, "Sec-WebSocket-Key must be given once, as base64 of 16 bytes", ()
    return None


def _values(head: h11.Request, name: bytes) -> list[bytes]:
    return [value for key, value in head.headers if key == name]


def _tokens(head: h11.Request, name: bytes) -> set[bytes]:
    return {token.strip().lower() for value in _values(head, name) for token in value.split(b",")}
