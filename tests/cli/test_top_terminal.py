"""``taskctl top`` in a real terminal, tmux's, over a real daemon; and what it is where there is no terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from taskd.client import Daemon, Record
from tests.cli.conftest import PROGRAM, Taskctl
from tests.process import PATIENCE, DaemonProcess

# A note stays until it is seen, however seldom a busy machine looks.
TOP = [
    PROGRAM[0],
    "-c",
    f"from taskd.cli import main; from taskd.cli.top import view; view.NOTE = {2 * PATIENCE}.0; main()",
    "top",
]

needs_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not here")


@attrs.frozen
class Tmux:
    """A terminal of 80 by 24 in which a shell runs ``top``, tells how it ended and stays."""

    folder: Path

    def __call__(self, *args: str) -> str:
        command = ["tmux", "-S", str(self.folder / "tmux"), "-f", "/dev/null", *args]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout

    def start(self, taskctl: Taskctl, *args: str) -> None:
        environment = [f"{name}={value}" for name, value in taskctl.environment().items()]
        top = shlex.join(["env", *environment, *TOP, *args])
        script = (
            f"echo before; stty -g >was; {top} 2>err; echo exit $?; stty -g | cmp - was && echo as before; cat"
        )
        self("new-session", "-d", "-x", "80", "-y", "24", "-c", str(self.folder), script)

    @property
    def screen(self) -> str:
        return self("capture-pane", "-p")

    def until(self, *texts: str, without: str = "\0") -> str:
        """The screen, when it shows all of these, and not that: top may be in the middle of writing it."""
        deadline = time.monotonic() + PATIENCE
        while not all(text in (screen := self.screen) for text in texts) or without in screen:
            assert time.monotonic() < deadline, screen
            time.sleep(0.05)
        return screen

    def press(self, *keys: str) -> None:
        self("send-keys", *keys)

    def signal(self, number: int) -> None:
        """To top itself, which is a child of the terminal's shell."""
        shell = int(self("display-message", "-p", "#{pane_pid}"))
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        os.kill(int(children[0]), number)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    tmux = Tmux(tmp_path)
    yield tmux
    tmux("kill-server")


@needs_tmux
def test_tasks_are_seen_looked_into_filtered_and_cancelled(
    tmux: Tmux, taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record]
) -> None:
    first, second = external("the first"), external("the second \x1b[2J")
    daemon.update(first.id, done=1, total=4, unit="files", log=["a line", "\x1b[31manother"])

    tmux.start(taskctl)
    tmux.until(f">{first.id[:8]} running   ━━╸───────  25 %", "the first", "the second \\x1b[2J", "by state")
    tmux.press("Enter")
    tmux.until(first.id, "1 files of 4 files", " a line", " \\x1b[31manother")
    daemon.update(first.id, done=2, log=["a third"])
    tmux.until("2 files of 4 files", " a third")
    tmux.press("Escape")
    tmux.until("the second")
    tmux("resize-window", "-x", "120", "-y", "10")
    tmux.until("OWNER    OPERATION LABEL")
    tmux.press("f", "second", "Enter")
    tmux.until(f">{second.id[:8]}", "1 with second")
    tmux.press("c")
    tmux.until(f" cancel {second.id[:8]}  the second", "? y/n")
    tmux.press("y")
    tmux.until(f"{second.id[:8]} is being cancelled", "cancel asked")
    tmux.press("q")

    tmux.until("before", "exit 0", "as before")
    assert daemon.get(second.id).cancel_requested
    assert not daemon.get(first.id).cancel_requested


@needs_tmux
@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda tmux: tmux.press("q"), 0),
        (lambda tmux: tmux.press("C-c"), 130),
        (lambda tmux: tmux.signal(signal.SIGTERM), 143),
    ],
    ids=["q", "Ctrl-C", "SIGTERM"],
)
def test_the_terminal_is_given_back_as_it_was(
    tmux: Tmux, taskctl: Taskctl, end: Callable[[Tmux], None], code: int
) -> None:
    tmux.start(taskctl)
    tmux.until("q quit")

    end(tmux)

    assert tmux.until("as before").split("\n")[:3] == ["before", f"exit {code}", "as before"]
    assert tmux("display-message", "-p", "#{alternate_on} #{cursor_flag} #{wrap_flag}") == "0 1 1\n"
    assert (tmux.folder / "err").read_text() == ""


def test_a_terminal_that_takes_nothing_does_not_keep_top_from_ending(taskctl: Taskctl) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 100, 200, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, "top"],
        env=taskctl.environment(TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        start_new_session=True,
    )
    try:
        waiting, deadline = b"", time.monotonic() + PATIENCE
        while int.from_bytes(waiting, sys.byteorder) < 4000:  # of the first frame, that is longer than a tty holds
            assert time.monotonic() < deadline
            time.sleep(0.05)
            waiting = fcntl.ioctl(ours, termios.FIONREAD, bytes(4))

        process.terminate()

        assert process.wait(PATIENCE) == 143
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


@needs_tmux
def test_top_goes_on_when_the_daemon_is_back(tmux: Tmux, tmp_path: Path) -> None:
    process = DaemonProcess(tmp_path)
    process.start()
    try:
        with process.connect() as daemon:
            stays, ends = (daemon.start("external", label=label).id for label in ("stays", "ends"))
        tmux.start(Taskctl(process.socket))
        tmux.until("2 running", "stays", "ends")
        process.kill()
        tmux.until("the daemon is away for", "stays")
        tmux.press("c", "y")
        tmux.until("? y/n")
        tmux.press("y")
        tmux.until("nothing was asked of it")
        process.start()
        with process.connect() as daemon:
            daemon.complete(ends)
        screen = tmux.until("1 running", "+1 completed", f"{ends[:8]} completed", f">{stays[:8]} running")
        assert "away for" not in screen
        process.kill()
        shutil.rmtree(tmp_path / "state")
        process.start()
        tmux.until(" 0 running", "+1 completed", without=stays[:8])
    finally:
        process.end()


def test_where_there_is_no_terminal_it_is_a_table(taskctl: Taskctl, daemon: Daemon) -> None:
    unseen = daemon.start("external", label="ended").id
    daemon.complete(unseen)
    id = daemon.start("external", label="\x1b[2J is " + "long " * 40 + "indeed").id
    daemon.update(id, done=1, total=4, unit="files")

    said = taskctl("top", "--filter", "indeed")

    first, head, *rows = said.out.splitlines()
    assert said.code == 0
    assert said.err == ""
    assert first.startswith("taskd ")
    assert first.endswith(" running")
    assert head.split() == ["ID", "STATE", "PROGRESS", "%", "DONE", "RATE", "LEFT", "OWNER", "OPERATION", "LABEL"]
    assert [row.split()[:4] for row in rows] == [[id[:8], "running", "━━╸───────", "25"]]
    assert rows[0].endswith("long indeed")
    assert unseen not in said.out


def test_with_json_it_is_one_document(taskctl: Taskctl, daemon: Daemon) -> None:
    id = daemon.start("external", label="as a document").id

    said = taskctl("top", "--json", "--filter", "document")

    assert json.loads(said.out) == [daemon.get(id).raw]


def test_of_no_daemon_there_is_a_sentence(tmp_path: Path) -> None:
    said = Taskctl(str(tmp_path / "none"))("top")

    assert said.code == 5
    assert said.err == f"taskctl: no taskd answers on {tmp_path}/none: No such file or directory\n"
