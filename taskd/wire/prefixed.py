"""Messages after their length: 16 ASCII decimal digits, filled up with zeros, then that many bytes of JSON.

This is the binary channel of xapi's services (xen-api, ocaml/xapi-idl/lib/xcp_client.ml, ``binary_rpc``);
replies have the same form.
"""

from __future__ import annotations

from typing import Final

from taskd.errors import InvalidRequest
from taskd.wire.json_stream import MAX_BYTES, MAX_DEPTH
from taskd.wire.sized import Sized

DIGITS: Final = 16


def prefixed(max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Sized:
    """The framing for one stream; a message may be ``max_bytes`` long and ``max_depth`` brackets deep."""
    return Sized(read_head, write_head, max_bytes, max_depth)


def read_head(buffer: bytearray) -> tuple[int, int] | None:
    """Where the body starts and its length in bytes; None while there are fewer than 16 digits.

    Raises:
        InvalidRequest: there is something else than a digit.
    """
    head = bytes(buffer[:DIGITS])
    if head and not head.isdigit():
        raise InvalidRequest(f"a message must start with its length in {DIGITS} decimal digits")
    return (DIGITS, int(head)) if len(head) == DIGITS else None


def write_head(length: int) -> bytes:
    """The digits before a body of so many bytes."""
    return b"%0*d" % (DIGITS, length)
