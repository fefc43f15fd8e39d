"""A process for which the system has no thread: the kernel refuses it, as at a limit, also to root."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
import trio

# Bytes of stack that no process has addresses for.
NEVER: Final = 1 << 62


@contextmanager
def no_thread() -> Iterator[None]:
    """Inside, none can be started, and those that trio has in store have something to do."""
    before, over = threading.stack_size(NEVER), threading.Event()
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            while True:
                trio.lowlevel.start_thread_soon(over.wait, lambda _: None)
        yield
    finally:
        threading.stack_size(before)
        over.set()
