"""A real daemon in a process of its own, started, killed and started again by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import attrs

from taskd import client

# Seconds that a daemon may take to answer, or to stop, on a busy machine, whose processes may stand still for ten.
PATIENCE = 60


@attrs.define(eq=False)
class DaemonProcess:
    """``taskd`` on a socket and a state folder in ``folder``; its log is ``folder/log``.

    ``settings`` go into its environment; ``under`` is a program that runs it as its own process.
    """

    folder: Path
    options: tuple[str, ...] = ()
    settings: Mapping[str, str] = attrs.field(factory=dict)
    under: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return str(self.folder / "s")

    def start(self) -> None:
        """Returns when it listens."""
        command = [sys.executable, "-m", "taskd", "--socket", self.socket, "--state", str(self.folder / "state")]
        # Its own file, and no pipe that we would copy from: what it has said is there for whoever has its answer.
        with open(self.folder / "log", "ab") as log:
            said_before = log.tell()
            self.process = subprocess.Popen(
                [*self.under, *command, *self.options],
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {f"TASKD_{name.upper()}": value for name, value in self.settings.items()},
            )
        deadline = time.monotonic() + PATIENCE
        while b"listens on" not in (self.folder / "log").read_bytes()[said_before:]:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.005)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self._gone()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._gone()

    def _gone(self) -> int:
        """Its exit status, when it has ended."""
        assert self.process is not None
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def connect(self) -> client.Daemon:
        return client.connect(self.socket, timeout_s=PATIENCE)

    def end(self) -> None:
        """Whatever it does, it is gone afterwards."""
        if self.process is not None:
            self.kill()


def listens(path: str) -> bool:
    """Somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0
