"""A daemon in a process of its own, at a path that XenAPI's Python client can say, and a way to it from TCP."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import PATIENCE, DaemonProcess


@pytest.fixture
def daemon() -> Iterator[DaemonProcess]:
    """Started, and gone at the end. The client writes ``_`` for ``/``, so the path must have none."""
    folder = Path(tempfile.gettempdir()) / f"taskd{uuid.uuid4().hex}"
    if "_" in str(folder):
        pytest.skip(f"the folder for temporary files, {folder.parent}, has an underscore")
    folder.mkdir(mode=0o700)
    process = DaemonProcess(folder)
    try:
        process.start()
        yield process
    finally:
        process.end()
        shutil.rmtree(folder)


@pytest.fixture
def port(daemon: DaemonProcess) -> Iterator[int]:
    """A port on the loopback that leads to the daemon's socket."""
    socat = shutil.which("socat")
    if socat is None:
        pytest.skip("socat is not here")
    command = [socat, "-d", "-d", "TCP-LISTEN:0,bind=127.0.0.1,fork", f"UNIX-CONNECT:{daemon.socket}"]
    log = daemon.folder / "socat"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, start_new_session=True)
    try:
        yield _listened(process, log)
    finally:
        # Its own session: with it go the children that it forks, one for each connection.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def _listened(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port, when it listens there: its log says so, and that is read until it does."""
    for _ in range(PATIENCE * 20):
        found = re.search(r"listening on AF=2 127\.0\.0\.1:(\d+)", log.read_text())
        if found is not None:
            return int(found[1])
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(log.read_text())
