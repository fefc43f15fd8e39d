"""The notes that callers keep on a task: short texts by name, with an end to them all together (law L10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from taskd.errors import BadParams

# Most characters of all notes on one task, and how many more each note counts for: an empty one is something too.
ANNOTATIONS = 65536
EACH = 64

Change: TypeAlias = Callable[[Mapping[str, str]], Mapping[str, str]]


def changed(notes: Mapping[str, str], change: Change) -> dict[str, str]:
    """What ``change`` makes of the notes; what it raises passes.

    Raises:
        BadParams: they are longer than ANNOTATIONS characters together, where each counts for EACH more.
    """
    new = dict(change(notes))
    if sum(len(name) + len(text) + EACH for name, text in new.items()) > ANNOTATIONS:
        raise BadParams(
            "params.annotations", f"longer than {ANNOTATIONS} characters together, each counted {EACH} more"
        )
    return new
