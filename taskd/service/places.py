"""Where in the feed a bell is to hang, for whoever waits (``registry.feed``)."""

from __future__ import annotations

from taskd import access
from taskd.model import Caller
from taskd.registry.feed import EVERYTHING, desk, of, one

__all__ = ["desk", "of", "one", "seen"]


def seen(caller: Caller) -> tuple[str, str]:
    """Where all that the caller may see changes."""
    return EVERYTHING if access.sees_all(caller) else of(caller.user)
