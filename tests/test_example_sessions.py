"""The raw sessions in ``examples/sessions``: sent as they stand, to a fresh daemon each, they are answered so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sessions
from tests.process import DaemonProcess


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    daemon = DaemonProcess(tmp_path)
    daemon.start()
    yield daemon
    daemon.end()


@pytest.mark.parametrize("file", sorted(sessions.FOLDER.iterdir()), ids=lambda file: str(file.stem))
def test_a_session_goes_as_it_was_recorded(file: Path, daemon: DaemonProcess) -> None:
    text = file.read_text()
    names = sessions.Names(str(daemon.folder))
    with sessions.connect(text, daemon.socket) as peer:
        for exchange in sessions.exchanges(text):
            heard = sessions.play(peer, exchange, names)
            assert sessions.masked(heard) == sessions.masked(exchange.heard), "run: python -m tests.sessions"
        if isinstance(peer, sessions.Stream):
            assert peer.rest() == ""
