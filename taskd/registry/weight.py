"""About how much memory a snapshot takes: counted where it can be much, a fixed amount for the rest.

JSON in memory is many times as long as JSON on the wire (``[]`` is two bytes there). To walk over all its objects
would keep everybody waiting, so it is its text that is looked at: what stands in it tells how many there are.
"""

from __future__ import annotations

import sys
from operator import attrgetter, is_
from typing import Final

import attrs
import orjson

from taskd.model import Task

# Bytes of a snapshot beside its ``parts``.
FRAME: Final = 4096

# What of a snapshot can be long: ``max_text`` is four bytes a character in memory, and more once it was written.
VALUES: Final = ("params", "result", "error", "annotations", "speeds", "draft", "journal", "residue", "targets")
TEXTS: Final = ("label", "description", "debug_info", "request_id", "status", "progress.unit")

# What stands in the text at each object in memory, and bytes that one takes beside its text, about.
SIGNS: Final = ",:[{"
OBJECT: Final = 64

parts = attrgetter(*VALUES, *TEXTS)


def weigh(task: Task) -> int:
    """About how many bytes of memory a snapshot takes. Raises what ``heft`` does."""
    return FRAME + heft(parts(task))


def heft(value: object) -> int:
    """About how many bytes of memory it takes: up to twice as many, or more where texts are full of ``SIGNS``, but
    hardly fewer.

    Raises:
        TypeError: it has what JSON cannot say, and so cannot be stored either.
    """
    written = orjson.dumps(value, default=lambda each: attrs.astuple(each, recurse=False))
    # As one text its characters are as wide as the widest of any text in it. And a text that is not ASCII keeps
    # its UTF-8, once it was written.
    text, kept = written.decode(), 0 if written.isascii() else len(written)
    return sys.getsizeof(text) + kept + OBJECT * sum(map(text.count, SIGNS))


def same(task: Task, other: Task) -> bool:
    """Both share what can be long, so that they weigh the same."""
    return all(map(is_, parts(task), parts(other)))
