"""What the clients' docstrings show is so, against a real daemon."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from taskd import client
from taskd.client import on_trio
from tests.process import DaemonProcess


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    daemon.start()
    yield daemon
    daemon.end()


@pytest.mark.parametrize("module", [client, on_trio])
def test_the_docstrings_are_true(module: ModuleType, daemon: DaemonProcess, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))

    found = doctest.testmod(module, extraglobs={"path": daemon.socket, "folder": str(tmp_path)})

    assert found.attempted > 0
    assert found.failed == 0
