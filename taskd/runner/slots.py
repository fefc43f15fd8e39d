"""How many operations may run at a time: a number that can change while they run."""

from __future__ import annotations

from typing import Protocol

import trio


class HasSlots(Protocol):
    """What has a ``running_tasks`` that is the size of its slots."""

    _slots: trio.CapacityLimiter


def resized(owner: HasSlots, _: object, running_tasks: int) -> int:
    """The hook of attrs for when ``running_tasks`` is set: those in line move up, nobody who runs is stopped."""
    owner._slots.total_tokens = running_tasks
    return running_tasks
