"""What something costs, without a clock: the calls that it makes, of functions in Python and in C."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable


def calls(act: Callable[[], object]) -> int:
    """The calls of `act` alone: a collection in its midst would add what others have it call (hypothesis times
    each), and the finalizers of what they left.
    """
    made = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    collecting = gc.isenabled()
    gc.disable()
    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
        if collecting:
            gc.enable()
    return made
