"""A program, run from its start to its end, in a session and an environment of its own, and heard.

The law: it is started up to where it waits for its go-ahead (``launch``), so that what must be durable first
can be; and when ``perform`` is over, however it is over, nothing of its session lives, nothing is left
unreaped and no descriptor is left open.

What it writes is read in chunks, and each is handed on before the next is read: a program that says more
than can be stored is slowed down, and the memory for it is bounded.
"""

from __future__ import annotations

import codecs
import errno
import fcntl
import io
import os
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

import attrs
import trio

from taskd.errors import CommandFailed, CommandNotFound, FolderMissing, OsRefusal, Refusal
from taskd.operations import launch
from taskd.operations.session import Session, end
from taskd.runner.rights import in_thread

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Bytes read at once, and characters after which a line that does not end is cut.
CHUNK: Final = 65_536

# Lines handed on at once, between which others have their turn: a chunk may hold as many as it has bytes.
AT_ONCE: Final = 1000

# What a terminal would obey is shown by its number; a tab stays, and what ends a line.
HARMLESS: Final = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160)) if chr(n) not in "\t\n"}

# Takes one or more lines.
Sink = Callable[..., Awaitable[None]]


@attrs.frozen
class Program:
    """What is to be run: arguments, the whole of its environment, folder, standard input."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str = "/"
    stdin: str = ""


def find(name: str) -> str:
    """The path of the program ``name``; an absolute path is its own. Blocks on the filesystem.

    Raises:
        CommandNotFound: there is none, or it may not be run.
    """
    path = shutil.which(name, path=PATH)
    if path is None:
        raise CommandNotFound(name)
    return path


async def perform(
    program: Program,
    task: str,
    *,
    ready: Callable[[Session], Awaitable[None]],
    said: Sink,
    marked: Sink,
    grace_s: float,
) -> None:
    """Run ``program`` until it ended with status 0.

    ``ready`` is awaited before it can act. ``said`` gets the lines that it writes to its output and errors,
    ``marked`` those on descriptor 3. When cancelled, it and all of its session get SIGTERM, SIGKILL after
    ``grace_s`` seconds, and are dead when the cancellation passes.

    Raises:
        CommandFailed: it ended in another way.
        CommandNotFound, FolderMissing, OsRefusal: it could not be started.
        StillAlive: its session cannot be ended.
    """
    path = await in_thread(find, program.argv[0], abandon_on_cancel=True)
    with _launched(path, program) as child:
        session, ended = Session.of(child.process.pid, task), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_follow, child.output, ended, said)
            nursery.start_soon(_follow, child.marks, ended, marked)
            try:
                await ready(session)
                child.go_ahead()
                await trio.lowlevel.wait_readable(child.pidfd)
                grace_s = 0.0  # for those that it left behind
            finally:
                with trio.CancelScope(shield=True):
                    try:
                        await end(session, grace_s)
                    finally:
                        ended.set()
                        trio.lowlevel.notify_closing(child.output)
                        trio.lowlevel.notify_closing(child.marks)
        # It has ended: this reaps it, and does not wait.
        status = child.process.wait(timeout=0)
        if report := os.read(child.report, 100):
            raise _not_started(report.decode(), program)
    if status != 0:
        raise CommandFailed(program.argv[0], _how(status))


@attrs.frozen(eq=False)
class Child:
    """A program that was launched, and our ends of its pipes.

    Its pid is its own until ``process`` is waited for.
    """

    process: subprocess.Popen[bytes]
    pidfd: int
    go: int
    report: int
    output: int
    marks: int

    def go_ahead(self) -> None:
        """From here on it acts."""
        try:
            os.write(self.go, b"!")
        except BrokenPipeError:
            pass  # somebody killed it; its status says so


@contextmanager
def _launched(path: str, program: Program) -> Iterator[Child]:
    """Start ``program`` up to its go-ahead; close what is ours at the end, without which it does nothing.

    It is started right here, on the thread of the event loop: the kernel kills it when the thread that forked
    it ends, and a worker thread ends when it has been idle. Order and standard input are files in memory, so
    nobody has to write while it reads. Output and errors share a pipe, which keeps their order.
    """
    with ExitStack() as ours:
        with ExitStack() as theirs:
            go_read, go = _pipe(theirs, ours)
            report, report_write = _pipe(ours, theirs)
            output, output_write = _pipe(ours, theirs)
            marks, marks_write = _pipe(ours, theirs)
            variables = [f"{name}={value}" for name, value in program.env.items()]
            words = [path, program.cwd, str(len(program.argv)), *program.argv, *variables]
            inherited = (go_read, report_write, _memory(theirs, "\0".join(words)), marks_write)
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *map(str, inherited)],
                stdin=_memory(theirs, program.stdin) if program.stdin else subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                pass_fds=inherited,
                start_new_session=True,
            )
        # Where the end was not orderly; both do nothing to a process that was waited for.
        ours.callback(process.poll)
        ours.callback(process.kill)
        pidfd = os.pidfd_open(process.pid)
        ours.callback(os.close, pidfd)
        yield Child(process, pidfd, go, report, output, marks)


def _pipe(reads: ExitStack, writes: ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed by those who read and write it."""
    reader, writer = os.pipe()
    reads.callback(os.close, reader)
    writes.callback(os.close, writer)
    return reader, writer


def _memory(owner: ExitStack, text: str) -> int:
    """A file in memory that holds ``text``, open at its start."""
    fd = os.memfd_create("taskd")
    owner.callback(os.close, fd)
    with open(fd, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def _follow(fd: int, ended: trio.Event, sink: Sink) -> None:
    """Hand on the lines of a pipe, up to its end or, once ``ended``, up to what is in it then.

    It is not cancelled: a program that is asked to end may have something to say about it.
    """
    lines = Lines()
    with trio.CancelScope(shield=True):
        while not ended.is_set():
            try:
                await trio.lowlevel.wait_readable(fd)
            except trio.ClosedResourceError:
                break
            chunk = os.read(fd, CHUNK)
            if not chunk:
                break
            await _hand_on(lines.take(chunk), sink)
        # Somebody who left the session may hold the pipe open, and write to it for ever.
        size = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        await _hand_on([*(lines.take(os.read(fd, size)) if size else ()), *lines.take(b"")], sink)


async def _hand_on(lines: list[str], sink: Sink) -> None:
    for at in range(0, len(lines), AT_ONCE):
        await sink(*lines[at : at + AT_ONCE])
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Lines:
    """Cuts any bytes into lines of text, in the memory of ``CHUNK`` characters.

    A carriage return ends a line too, as progress meters write it. What is no UTF-8 is replaced.
    """

    _decoder: io.IncrementalNewlineDecoder = attrs.field(
        factory=lambda: io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8")("replace"), translate=True
        )
    )
    _rest: str = ""

    def take(self, chunk: bytes) -> list[str]:
        """The lines that ``chunk`` completes; an empty one is the end and completes the last."""
        text = self._decoder.decode(chunk, final=not chunk).translate(HARMLESS)
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) >= CHUNK or (self._rest and not chunk):
            lines.append(self._rest)
            self._rest = ""
        return lines


def _how(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def _not_started(report: str, program: Program) -> Refusal:
    """What ``launch`` reported, as an error."""
    step, number = report.split()
    where = program.cwd if step == "chdir" else program.argv[0]
    if int(number) in (errno.ENOENT, errno.ENOTDIR):
        return FolderMissing(where) if step == "chdir" else CommandNotFound(where)
    return OsRefusal.of(OSError(int(number), os.strerror(int(number))), where)
