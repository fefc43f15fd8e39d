"""The other sides: started here, and ended by their process ids.

From Debian: qemu-storage-daemon (qemu-system-common), qemu-img (qemu-utils), rsync. From PyPI, into a venv of
their own in ours, so that nothing of taskd depends on them: supervisor, dbos, taskflow, huey.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Final, TypeVar

from tests.benchmarks.clients import PATIENCE, connected
from tests.benchmarks.measure import Missing, Side
from tests.process import DaemonProcess

T = TypeVar("T")

VENV: Final = Path(sys.prefix) / "peers"
# With what supervisor and TaskFlow's database need and do not ask for.
PACKAGES: Final = ("supervisor", "setuptools", "dbos", "taskflow", "alembic", "SQLAlchemy-Utils", "huey")


def tool(name: str, package: str) -> str:
    """Where a program is. Raises Missing."""
    path = shutil.which(name)
    if path is None:
        raise Missing(f"there is no {name} (Debian: {package})")
    return path


def python() -> Path:
    """The Python of the peers' venv, which is made where it is not there. Raises Missing."""
    done = VENV / "installed"
    if not done.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True, capture_output=True)
            pip = [str(VENV / "bin" / "pip"), "install", "--disable-pip-version-check", "-qq"]
            subprocess.run([*pip, *PACKAGES], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            raise Missing(f"{', '.join(PACKAGES)} cannot be installed: {error.stderr.decode()[-200:]}") from None
        done.touch()
    return VENV / "bin" / "python"


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="taskd-") as name:
        yield Path(name)


@contextmanager
def taskd(
    state: Path | None = None,
    options: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
) -> Iterator[DaemonProcess]:
    """A daemon of ours, in ``state`` or in a folder of its own."""
    if _shared and not (state or options or settings or under):
        yield _shared[0]
        return
    with folder() as own:
        process = DaemonProcess(state or own, tuple(options), settings or {}, tuple(under))
        try:
            process.start()
            yield process
        finally:
            process.end()


# The daemon of ``sharing``, where there is one.
_shared: list[DaemonProcess] = []


@contextmanager
def sharing() -> Iterator[None]:
    """Meanwhile whoever asks for a daemon and has no wishes gets the same one: nothing can be measured, but what
    measures can be seen to run, and most of its time was the start.
    """
    with taskd() as daemon:
        _shared.append(daemon)
        try:
            yield
        finally:
            _shared.remove(daemon)


def pid(process: DaemonProcess) -> int:
    assert process.process is not None
    return process.process.pid


@contextmanager
def process(*argv: str | Path, cwd: Path | None = None, pipes: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs meanwhile."""
    pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
    running = subprocess.Popen(argv, cwd=cwd, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def first(path: str, running: subprocess.Popen[bytes], name: str | Path) -> socket.socket:
    """The first connection to what was started: its socket is there before it listens. Raises Missing."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return connected(path)
        except OSError:
            if running.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"{name} does not start") from None
            time.sleep(0.01)


@contextmanager
def served(path: str, *argv: str | Path, cwd: Path | None = None) -> Iterator[None]:
    """A server that listens on ``path``."""
    with process(*argv, cwd=cwd) as running:
        first(path, running, argv[0]).close()
        yield


@contextmanager
def echo(how: str) -> Iterator[str]:
    """The floor (``echo``): its socket."""
    with folder() as own:
        path = str(own / "s")
        with served(path, sys.executable, "-m", "tests.benchmarks.echo", path, how):
            yield path


@contextmanager
def supervisor() -> Iterator[str]:
    """supervisord with one program: the socket of its XML-RPC. Raises Missing."""
    python()
    with folder() as own:
        path = str(own / "s")
        settings = own / "settings"
        settings.write_text(
            f"[unix_http_server]\nfile={path}\n[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
            f"pidfile={own}/pid\n[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            "[program:one]\ncommand=sleep infinity\n"
        )
        with process(VENV / "bin" / "supervisord", "-c", settings, cwd=own) as running:
            first(path, running, "supervisord").close()
            try:
                yield path
            finally:
                running.terminate()  # it ends its program then
                running.wait(PATIENCE)


class StorageDaemon:
    """One monitor of a qemu-storage-daemon, over QMP (qemu, docs/interop/qmp-spec.rst)."""

    QUERY: Final = b'{"execute": "query-jobs"}\n'

    def __init__(self, sock: socket.socket, own: Path) -> None:
        self.sock, self._own = sock, own
        self._lines: IO[bytes] = sock.makefile("rb")
        self._lines.readline()
        self.sock.sendall(b'{"execute": "qmp_capabilities"}\n')
        self._until(b'{"return"')
        image = {"driver": "file", "filename": str(own / "image"), "size": 65536}
        self._create = json.dumps(
            {"execute": "blockdev-create", "arguments": {"job-id": "JOB", "options": image}}
        ).encode()

    def _until(self, *starts: bytes) -> None:
        """Read on until a line with each of these has come."""
        left = set(starts)
        while left:
            line = self._lines.readline()
            assert b'"error"' not in line, line
            left -= {start for start in left if start in line}

    def create(self, job: str) -> None:
        """A job that makes a small file, until it is done."""
        self.sock.sendall(self._create.replace(b"JOB", job.encode()) + b"\n")
        self._until(b'{"return"', b'"concluded"')

    def dismiss(self, job: str) -> None:
        self.sock.sendall(b'{"execute": "job-dismiss", "arguments": {"id": "%s"}}\n' % job.encode())
        self._until(b'{"return"')


@contextmanager
def storage_daemon() -> Iterator[StorageDaemon]:
    """A qemu-storage-daemon and one client of it. Raises Missing."""
    program = tool("qemu-storage-daemon", "qemu-system-common")
    with folder() as own:
        path = str(own / "s")
        chardev = f"socket,id=c0,path={path},server=on,wait=off"
        with process(program, "--chardev", chardev, "--monitor", "chardev=c0") as running:
            with first(path, running, "qemu-storage-daemon") as sock:
                yield StorageDaemon(sock, own)


class Sides:
    """The sides of a comparison: those that are there are measured; of the others it is kept why not."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.there: dict[str, Side] = {}
        self.missing: dict[str, str] = {}

    def add(self, name: str, side: AbstractContextManager[T], measure: Callable[[T], float]) -> None:
        """``measure`` is given what is entered."""
        try:
            entered = self._stack.enter_context(side)
        except Missing as error:
            self.missing[name] = str(error)
        else:
            self.there[name] = partial(measure, entered)


@contextmanager
def sides() -> Iterator[Sides]:
    with ExitStack() as stack:
        yield Sides(stack)
