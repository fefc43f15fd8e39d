"""About how much memory a snapshot takes: counted where it can be much, a fixed amount for the rest.

JSON in memory is many times as long as JSON on the wire (``[]`` is two bytes there), so it is weighed as objects.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from operator import attrgetter
from typing import Final

import attrs

from taskd.model import Task

# Bytes of a snapshot beside its ``HEAVY`` parts.
FRAME: Final = 4096

# What of a snapshot can be long.
HEAVY: Final = ("params", "result", "error", "annotations", "speeds", "draft", "journal", "residue")

parts = attrgetter(*HEAVY)


def weigh(task: Task) -> int:
    """About how many bytes of memory a snapshot takes."""
    size, waiting = FRAME, [part for part in parts(task) if part]
    while waiting:
        each = waiting.pop()
        size += sys.getsizeof(each, 64)
        if isinstance(each, (str, int, float)):
            continue  # by far the most, and to find that they are no mapping takes long
        if isinstance(each, Mapping):
            waiting += each.keys()
            waiting += each.values()
        elif isinstance(each, (list, tuple)):
            waiting += each
        elif attrs.has(type(each)):
            waiting += attrs.astuple(each, recurse=False)
    return size


def same(task: Task, other: Task) -> bool:
    """Both share what can be long, so that they weigh the same."""
    return all(map(_is, parts(task), parts(other)))


def _is(one: object, other: object) -> bool:
    return one is other
