"""What the daemon and systemd say to each other, word by word; ``test_boot`` has the real one at the other end."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from taskd import server, systemd
from taskd.errors import ConfigError
from taskd.model import JSON
from taskd.operations import Operation, external
from taskd.runner import Handle
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, running
from tests.notified import Notified
from tests.process import PATIENCE, DaemonProcess


@pytest.fixture
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notified]:
    name = str(tmp_path / "notify")
    abstract = getattr(request, "param", "path") == "abstract"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name if abstract else name)
        sock.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        yield Notified(sock)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.end()


# Notifications.


@pytest.mark.parametrize("manager", ["path", "abstract"], indirect=True)
def test_ready_is_said_when_calls_are_answered_and_stopping_when_no_more_are(
    manager: Notified, daemon: DaemonProcess
) -> None:
    daemon.start()
    before = manager.until("READY=1")
    with daemon.connect() as connection:
        assert connection.ids() == ()
    daemon.stop()
    after = manager.until("STOPPING=1")

    assert before == [["STATUS=no unfinished tasks"], ["READY=1"]]
    assert after[-1] == ["STOPPING=1", "STATUS=stopping"]


@attrs.frozen
class NoParams:
    """Of an operation that only takes its time."""


async def last(_: NoParams, __: Handle) -> JSON:
    await trio.sleep(10)
    return None


async def test_the_status_counts_the_unfinished_tasks_by_state(
    manager: Notified, autojump_clock: object, tmp_path: Path
) -> None:
    kinds = {"external": external.OPERATION, "last": Operation("last", "Last", NoParams, last)}
    async with running(MemoryStore(), kinds, str(tmp_path), running_tasks=1) as service:
        registry = service.registry
        async with trio.open_nursery() as nursery:
            nursery.start_soon(systemd.keep_status, partial(server.status, registry), registry.feed.moved)
            await trio.sleep(1)
            id = (await service.start(ROOT, "external", {})).id
            await service.start(ROOT, "last", {})
            await service.start(ROOT, "last", {})
            await trio.sleep(15)
            await service.complete(ROOT, id)
            await trio.sleep(15)
            nursery.cancel_scope.cancel()
    told = ["no unfinished tasks", "1 queued, 2 running", "2 running", "1 running", "no unfinished tasks"]

    assert manager.all() == [[f"STATUS={text}"] for text in told]


async def test_the_status_is_told_once_a_second_at_most_and_only_when_it_has_changed(
    manager: Notified, autojump_clock: object
) -> None:
    number, changed = 0, trio.Event()

    async def change() -> None:
        await changed.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(systemd.keep_status, lambda: str(number // 10), change)
        await trio.sleep(100)
        assert manager.all() == [["STATUS=0"]]
        while number < 99:
            number += 1
            changed.set()
            changed = trio.Event()
            await trio.sleep(0.1)
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    told = [each for (each,) in manager.all()]

    assert told[-1] == "STATUS=9"
    assert 5 <= len(told) <= 10


async def test_the_watchdog_is_fed_twice_in_its_time_by_the_event_loop(
    manager: Notified, autojump_clock: object
) -> None:
    with trio.move_on_after(9.9):
        await systemd.feed_watchdog(2.0)
    assert manager.all() == [["WATCHDOG=1"]] * 10
    with trio.move_on_after(100):
        await systemd.feed_watchdog(None)
    assert manager.all() == []


def test_the_watchdog_is_fed_only_by_whom_it_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert systemd.watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    assert systemd.watchdog_s() == 3.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert systemd.watchdog_s() == 3.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getppid()))
    assert systemd.watchdog_s() is None


@pytest.mark.parametrize("text", ["soon", "0", "-1", "1.5"])
def test_a_watchdog_that_makes_no_sense_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", text)
    with pytest.raises(ConfigError, match="WATCHDOG_USEC: expected a number of microseconds"):
        systemd.watchdog_s()


def test_the_daemon_feeds_it(manager: Notified, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")  # no more of them than its queue has room for
    daemon.start()
    manager.until("READY=1")
    for _ in range(3):
        manager.until("WATCHDOG=1")


def test_a_reload_is_told_with_its_time_and_ends_with_ready(
    manager: Notified, daemon: DaemonProcess, tmp_path: Path
) -> None:
    file = tmp_path / "taskd.toml"
    file.write_text("max_batch = 7\n")
    daemon.options = ("--config", str(file))
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    daemon.start()
    assert daemon.process is not None
    manager.until("READY=1")

    file.write_text("max_batch = 8\n")
    daemon.process.send_signal(signal.SIGHUP)
    said = manager.until("READY=1")[-2:]
    name, _, stamp = said[0][1].partition("=")
    assert (said[0][0], name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before < int(stamp) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert said[1] == ["READY=1", "STATUS=the settings are reloaded; changed: max_batch"]

    file.write_text("max_batch = 'many'\n")
    daemon.process.send_signal(signal.SIGHUP)
    said = manager.until("READY=1")
    assert said[-1][1].startswith("STATUS=the settings stay as they were: ")
    assert "max_batch: expected an integer, got 'many'" in said[-1][1]


def test_without_a_manager_nobody_is_told() -> None:
    assert not systemd.notify("READY=1")


def test_without_a_descriptor_for_it_a_notification_is_lost_and_no_more(
    manager: Notified, caplog: pytest.LogCaptureFixture
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert not systemd.notify("WATCHDOG=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert caplog.messages == ["systemd was not told WATCHDOG=1: [Errno 24] Too many open files"]


def test_a_manager_that_does_not_listen_does_not_stop_the_daemon(
    daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    daemon.start()
    with daemon.connect() as connection:
        assert connection.ids() == ()
    assert daemon.stop() == 0
    assert "systemd was not told READY=1: " in daemon.log


# Inherited sockets.

# As systemd does it: the descriptors from 3 on, then exec.
HANDED_OVER = """
import os, sys
fds, pid, names = sys.argv[1:4]
for at, fd in enumerate(map(int, fds.split()), 3):
    os.dup2(fd, at)
os.environ |= {"LISTEN_PID": pid or str(os.getpid()), "LISTEN_FDS": str(len(fds.split())), "LISTEN_FDNAMES": names}
os.execv(sys.executable, [sys.executable, *sys.argv[4:]])
"""


def command(*argv: str, fds: list[int], names: str = "taskd.socket", pid: str = "") -> list[str]:
    return [sys.executable, "-c", HANDED_OVER, " ".join(map(str, fds)), pid, names, *argv]


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "handed"))
        sock.listen()
        yield sock


def started(tmp_path: Path, sock: socket.socket) -> subprocess.Popen[str]:
    argv = ("-m", "taskd", "--state", str(tmp_path / "state"), "--socket", str(tmp_path / "own"))
    return subprocess.Popen(
        command(*argv, fds=[sock.fileno()]), pass_fds=[sock.fileno()], stderr=subprocess.PIPE, text=True
    )


def answered(client: socket.socket) -> object:
    """The result of a call that was sent already."""
    client.settimeout(PATIENCE)
    return json.loads(client.makefile().readline())["result"]


def stopped(process: subprocess.Popen[str]) -> str:
    """What it had to say."""
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, log
    return log


def test_who_connects_while_no_daemon_runs_is_answered_by_the_next(
    tmp_path: Path, listening: socket.socket
) -> None:
    """Before the first start, between two, and the socket is the same one throughout."""
    path = tmp_path / "handed"
    inode = path.stat().st_ino
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(str(path))
            early.sendall(b'{"method": "Task.ls", "params": [{"dbg": ""}], "id": 1}\n')
            process = started(tmp_path, listening)
            try:
                assert answered(early) == []
                log = stopped(process)
            finally:
                process.kill()
                process.communicate()
        assert f'listens on {path}"\n' in log
        assert f"systemd has another socket for us; the setting, {tmp_path / 'own'}, is not used" in log
        assert path.stat().st_ino == inode
        assert not (tmp_path / "own").exists()


def told(script: str, *fds: int, names: str = "taskd.socket", pid: str = "") -> str:
    """What ``script`` prints, which has the descriptors."""
    done = subprocess.run(
        command("-c", script, fds=list(fds), names=names, pid=pid),
        pass_fds=fds,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


INHERIT = """
import os
from taskd import systemd
from taskd.errors import ConfigError
try:
    found = systemd.inherited()
except ConfigError as error:
    print(error)
else:
    print([(sock.fileno(), sock.getblocking(), sock.get_inheritable()) for sock in found])
    print([name for name in os.environ if name.startswith("LISTEN_")])
"""


@pytest.mark.parametrize("name", ["taskd", "taskd.socket"])
def test_no_child_gets_the_socket_nor_hears_of_it(listening: socket.socket, name: str) -> None:
    assert told(INHERIT, listening.fileno(), names=name) == "[(3, False, False)]\n[]\n"


def test_there_may_be_several(listening: socket.socket) -> None:
    with closing(listening.dup()) as other:
        said = told(INHERIT, listening.fileno(), other.fileno(), names="taskd:taskd")

    assert said == "[(3, False, False), (4, False, False)]\n[]\n"


def test_what_was_handed_to_another_process_is_not_ours(listening: socket.socket) -> None:
    """A shell in a service may start a daemon by hand."""
    assert told(INHERIT, listening.fileno(), pid="1") == "[]\n[]\n"


def test_what_is_not_our_socket_is_refused_by_its_name(listening: socket.socket, tmp_path: Path) -> None:
    good = listening.fileno()
    assert told(INHERIT, good, names="other") == (
        "inherited descriptor 3 (other): its name must be taskd.socket or taskd\n"
    )
    with open(tmp_path / "file", "w") as file:
        assert told(INHERIT, good, file.fileno(), names="taskd:taskd") == (
            "inherited descriptor 4 (taskd): it is no socket\n"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        assert told(INHERIT, datagrams.fileno()) == (
            "inherited descriptor 3 (taskd.socket): must be a Unix stream socket, not AF_UNIX SOCK_DGRAM\n"
        )
    with socket.socket(socket.AF_INET) as internet:
        assert told(INHERIT, internet.fileno()) == (
            "inherited descriptor 3 (taskd.socket): must be a Unix stream socket, not AF_INET SOCK_STREAM\n"
        )
    with socket.socket(socket.AF_UNIX) as deaf:
        assert told(INHERIT, deaf.fileno()) == (
            "inherited descriptor 3 (taskd.socket): the socket does not listen\n"
        )
    assert told(INHERIT, good, names="taskd:taskd") == "LISTEN_FDNAMES: expected 1 names, got 'taskd:taskd'\n"


def test_a_wrong_socket_is_a_reason_not_to_start(tmp_path: Path, listening: socket.socket) -> None:
    argv = ("-m", "taskd", "--state", str(tmp_path / "state"))
    done = subprocess.run(
        command(*argv, fds=[listening.fileno()], names="web"),
        pass_fds=[listening.fileno()],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "taskd: inherited descriptor 3 (web): its name must be taskd.socket or taskd"
    )


# The journal.


def test_a_line_for_the_journal_begins_with_its_priority(tmp_path: Path) -> None:
    log = logged(tmp_path, journal=True)

    assert [line[:3] for line in log] == ["<6>", "<3>", "<6>"]
    assert log[0].startswith('<6>level=info logger=taskd message="taskd ')
    assert log[1].startswith('<3>level=error logger=taskd message="the settings stay as they were: ')


def test_a_line_for_anything_else_begins_with_the_time(tmp_path: Path) -> None:
    """Also where a service has started the shell that started us: JOURNAL_STREAM is of another stream."""
    for line in logged(tmp_path, journal=False):
        assert re.match(
            r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(info|error) logger=taskd message=", line
        )


def logged(tmp_path: Path, *, journal: bool) -> list[str]:
    """The log of a daemon that starts, is told settings that cannot be, and stops."""
    file = tmp_path / "taskd.toml"
    file.write_text("")
    reader, writer = os.pipe()
    stream = os.fstat(writer) if journal else os.stat("/dev/null")
    with open(reader) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskd", "--state", str(tmp_path / "state"), "--socket", str(tmp_path / "s")],
            env=os.environ | {"JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}", "TASKD_CONFIG": str(file)},
            stderr=writer,
        )
        os.close(writer)
        try:
            lines = [log.readline()]
            file.write_text("max_batch = 0")
            process.send_signal(signal.SIGHUP)
            lines.append(log.readline())
            process.terminate()
            lines += log.readlines()
        finally:
            process.kill()
            process.wait()
    return lines
