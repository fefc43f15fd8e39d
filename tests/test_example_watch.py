"""``examples/watch.py`` as a user runs it: it follows, the daemon is killed, and it goes on without a gap."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from taskd import client
from tests.process import PATIENCE, DaemonProcess

EXAMPLE = Path(__file__).parent.parent / "examples" / "watch.py"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    daemon.start()
    yield daemon
    daemon.end()


def until(lines: Iterator[str], last: str) -> list[str]:
    found = []
    for line in lines:
        found.append(line.rstrip("\n"))
        if found[-1] == last:
            return found
    raise AssertionError(found)


def made(daemon: client.Daemon, label: str) -> str:
    return daemon.start("external", label=label).id


def test_it_follows_over_a_crash_and_nothing_is_told_twice(daemon: DaemonProcess) -> None:
    with daemon.connect() as first:
        id = made(first, "one")
        watch = subprocess.Popen([sys.executable, EXAMPLE, daemon.socket], stdout=subprocess.PIPE, text=True)
        assert watch.stdout is not None
        try:
            lines = iter(watch.stdout)
            assert until(lines, "one running 0%") == ["one running 0%"]
            first.update(id, done=1, total=2, log=["half", "way"])
            assert until(lines, "one running 50%") == ["   half", "   way", "one running 50%"]
            daemon.kill()
            daemon.start()
            with daemon.connect() as second:
                second.update(id, log=["and on"])
                second.complete(id)
                told = until(lines, "one completed 100%")
                other = made(second, "two")
                told += until(lines, "two running 0%")
                second.fail(other, "X", "it broke")
                second.destroy(other)
                told += until(lines, f"destroyed {other}")
        finally:
            watch.kill()
            watch.wait()
            watch.stdout.close()
    assert [line for line in told if line.startswith("   ")] == ["   and on"]


def test_it_ends_where_nobody_reads_it_any_more(daemon: DaemonProcess) -> None:
    with daemon.connect() as ours:
        made(daemon=ours, label="one")
        made(daemon=ours, label="two")
        command = [sys.executable, str(EXAMPLE), daemon.socket]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
            assert watch.stdout is not None
            watch.stdout.readline()
            watch.stdout.close()
            made(daemon=ours, label="three")
            assert (watch.wait(PATIENCE), watch.stderr and watch.stderr.read()) == (0, b"")


def told(connection: socket.socket, **event: object) -> None:
    """One notification, as the daemon's."""
    said = {"jsonrpc": "2.0", "method": "Task.event", "params": {"subscription": "s1", **event}}
    connection.sendall(json.dumps(said).encode() + b"\n")


def test_it_comes_back_after_half_a_line_with_no_more_than_fits_into_a_call_and_ends_with_a_ctrl_c(
    tmp_path: Path,
) -> None:
    """A traceback ended it where the daemon died in the middle of a line, or a Ctrl-C came while it was away; and
    its call, with all logs that it ever heard of, became too long to be read.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        listening.settimeout(PATIENCE)
        command = ["env", "--default-signal=INT", sys.executable, str(EXAMPLE), str(tmp_path / "s")]
        watch = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        stack.callback(watch.kill)
        with listening.accept()[0] as daemon, daemon.makefile("rb") as calls:
            assert json.loads(calls.readline())["params"]["log_from"] == {}
            for number in range(10_003):
                told(daemon, event="log", id=str(number), lines=[], next=7, revision=1)
            told(daemon, event="log", id="3", lines=[], next=8, revision=1)
            told(daemon, event="destroyed", id="10002", revision=2)
            daemon.sendall(b'{"jsonrpc": "2.0", "meth')
        with listening.accept()[0] as daemon, daemon.makefile("rb") as calls:
            params = json.loads(calls.readline())["params"]
            assert params["since"] == 2
            assert params["log_from"] == {str(number): 7 for number in range(4, 10_002)} | {"3": 8}
        listening.close()
        watch.send_signal(signal.SIGINT)
        _, err = watch.communicate(timeout=PATIENCE)
        assert (watch.returncode, err) == (0, b"")
