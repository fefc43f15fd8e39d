"""Messages under headers, as language servers have them: ``Content-Length: 42``, an empty line, 42 bytes of JSON.

The names of headers may be in any case, and of headers other than ``Content-Length`` there may be any; they mean
nothing here. Lines end in CR LF; a bare LF is read too, since a shell script writes it. Replies carry
``Content-Length`` alone. (Language Server Protocol 3.17, "Base Protocol".)
"""

from __future__ import annotations

import re
from typing import Final

from taskd.errors import InvalidRequest
from taskd.wire.json_stream import MAX_BYTES, MAX_DEPTH
from taskd.wire.sized import Sized

# Bytes that the headers of one message may have, the empty line included.
HEAD_BYTES: Final = 4096

_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(r"[0-9]{1,18}")


def headers(max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Sized:
    """The framing for one stream; a message may be ``max_bytes`` long and ``max_depth`` brackets deep."""
    return Sized(read_head, write_head, max_bytes, max_depth)


def read_head(buffer: bytearray) -> tuple[int, int] | None:
    """Where the body starts and its length in bytes; None while the headers are not complete.

    Raises:
        InvalidRequest: these are no headers, or they give no length.
    """
    end = _END.search(buffer, 0, HEAD_BYTES)
    if end is None:
        if len(buffer) >= HEAD_BYTES:
            raise InvalidRequest(f"the headers are longer than {HEAD_BYTES} bytes")
        return None
    try:
        lines = bytes(buffer[: end.start()]).decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise InvalidRequest("the headers must be ASCII") from None
    lengths = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise InvalidRequest("a header must be a name, a colon and a value")
        if name.strip().lower() == "content-length":
            lengths.append(value.strip())
    if len(lengths) != 1:
        raise InvalidRequest(f"Content-Length must be given once, not {len(lengths)} times")
    if not _LENGTH.fullmatch(lengths[0]):
        raise InvalidRequest("Content-Length must be a number of bytes, in decimal digits")
    return end.end(), int(lengths[0])


def write_head(length: int) -> bytes:
    """The headers before a body of so many bytes."""
    return b"Content-Length: %d\r\n\r\n" % length
