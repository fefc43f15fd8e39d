"""``examples/watch.py`` as a user runs it: it follows, the daemon is killed, and it goes on without a gap."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskd import client
from tests.process import DaemonProcess

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
