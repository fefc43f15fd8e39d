"""The creed of these tests.

- No real sleep: time passes on trio's autojump clock, or an event says that something is so.
- No network: Unix sockets in a temporary folder.
- Real objects against real objects; the one stand-in is ``MemoryStore``, which is held to the contract itself.
- Whoever starts a process or a daemon ends it, by its process id.
- A timeout in a test (``trio.fail_after``) is a bound that a right program never meets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

from tests.proof import SEED, seed

# An example may take as long as it takes, and so may making one up: how fast a machine is proves nothing.
settings.register_profile("taskd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("taskd")


def pytest_configure() -> None:
    """Before there are workers: all of them take the same samples."""
    seed()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"{SEED}={seed()}")


@pytest.fixture
def commons() -> Iterator[Path]:
    """An empty folder that every user may walk to; pytest's own are root's alone."""
    with TemporaryDirectory(prefix="taskd-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
