"""A real daemon in a process of its own, started, killed and started again by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

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
    _reader: threading.Thread | None = attrs.field(default=None, init=False)

    @property
    def socket(self) -> str:
        return str(self.folder / "s")

    def start(self) -> None:
        """Returns when it listens."""
        command = [sys.executable, "-m", "taskd", "--socket", self.socket, "--state", str(self.folder / "state")]
        self.process = subprocess.Popen(
            [*self.under, *command, *self.options],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=os.environ | {f"TASKD_{name.upper()}": value for name, value in self.settings.items()},
        )
        listening = threading.Event()
        self._reader = threading.Thread(target=self._keep_log, args=(self.process.stderr, listening), daemon=True)
        self._reader.start()
        assert listening.wait(PATIENCE), self.log
        assert self.process.poll() is None, self.log

    def _keep_log(self, lines: IO[bytes], listening: threading.Event) -> None:
        with lines, open(self.folder / "log", "ab", buffering=0) as log:
            for line in lines:
                log.write(line)
                if b"listens on" in line:
                    listening.set()
        listening.set()

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
        """Its exit status, when it has ended; what it said last is in the log, and nobody here reads on."""
        assert self.process is not None
        assert self._reader is not None
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
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
