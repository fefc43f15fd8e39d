"""A real daemon for each module, and ``taskctl`` as a real process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from taskd.client import Daemon, Record
from tests.process import PATIENCE, DaemonProcess

PROGRAM = [sys.executable, "-c", "from taskd.cli import main; main()"]

# The same, but it waits for a daemon, also one that is away, as long as a busy machine may take.
PATIENT = [
    sys.executable,
    "-c",
    f"""
from taskd.cli import checks, doctor, main, tab, watch
checks.PATIENCE = doctor.PATIENCE = tab.PATIENCE_S = watch.PATIENCE = {PATIENCE}.0
main()
""",
]


@attrs.frozen
class Said:
    """How a ``taskctl`` ended."""

    code: int
    out: str
    err: str


@attrs.frozen
class Taskctl:
    """Runs ``taskctl`` with a known environment; ``**env`` is added to it."""

    socket: str
    program: Sequence[str] = tuple(PROGRAM)

    def environment(self, **env: str) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        return {**inherited, "TASKD_SOCKET": self.socket, "TZ": "UTC", "LC_ALL": "C.UTF-8", **env}

    def __call__(self, *args: str, **env: str) -> Said:
        done = subprocess.run(
            [*self.program, *args],
            env=self.environment(**env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *args: str) -> subprocess.Popen[str]:
        """In a process group of its own, as a shell does it, so that a Ctrl-C can be sent there. Killed when it
        takes too long: whoever reads from it then reads its end.
        """
        process = subprocess.Popen(
            [*self.program, *args],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        limit = threading.Timer(PATIENCE, process.kill)
        limit.daemon = True
        limit.start()
        return process


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C."""
    os.killpg(process.pid, signal.SIGINT)


def ended(process: subprocess.Popen[str]) -> Said:
    """Read what it still says, to its end."""
    out, err = process.communicate(timeout=PATIENCE)
    return Said(process.returncode, out, err)


def masked(text: str) -> str:
    """Ids, times and measures replaced by words of the same length or kind."""
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>", text)
    text = re.sub(r"^[0-9a-f]{8}\b", "<-id8->", text, flags=re.MULTILINE)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", lambda match: "<-time->".ljust(len(match[0]), "-"), text)
    text = re.sub(r"^(took +).*", r"\1<time>", text, flags=re.MULTILINE)
    return re.sub(r"in \d+\.\d s( \(.*?/s\))?", "in <time>", text)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path_factory.mktemp("d"))
    process.start()
    yield process
    process.end()


@pytest.fixture
def daemon(process: DaemonProcess) -> Iterator[Daemon]:
    with process.connect() as daemon:
        yield daemon


@pytest.fixture
def taskctl(process: DaemonProcess) -> Taskctl:
    return Taskctl(process.socket)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A source of 2 MiB without holes."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(2 << 20))
    return path


@pytest.fixture
def external(daemon: Daemon) -> Callable[..., Record]:
    """Start an external task with this label."""

    def start(label: str) -> Record:
        return daemon.start("external", label=label)

    return start
