"""A process for which the system has no thread: the kernel refuses it, as at a limit, also to root."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
import trio
from trio._core import _thread_cache

# Bytes of stack that no process has addresses for.
NEVER: Final = 1 << 62


@contextmanager
def no_thread() -> Iterator[None]:
    """Inside, none can be started, and trio has none in store, nor takes back one that was busy before."""
    size, cache = threading.stack_size(NEVER), _thread_cache.THREAD_CACHE
    _thread_cache.THREAD_CACHE = _thread_cache.ThreadCache()
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            trio.lowlevel.start_thread_soon(int, lambda _: None)
        yield
    finally:
        _thread_cache.THREAD_CACHE = cache
        threading.stack_size(size)
