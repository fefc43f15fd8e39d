"""Starting and stopping the real program: what it refuses, what it takes over, what it leaves."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.process import PATIENCE, DaemonProcess, listens


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.end()


def taskd(*options: str, within: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end; it must end by itself. ``within``: the command that starts it."""
    return subprocess.run(
        [*within, sys.executable, "-m", "taskd", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | environment,
        check=False,
    )


def refused(result: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """One sentence on stderr, no traceback."""
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("taskd: ")
    return line


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_daemon_on_the_same_state_folder_is_refused(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.start()
    result = taskd("--socket", str(tmp_path / "other"), "--state", str(tmp_path / "state"))

    assert "another taskd is running on the state folder" in refused(result)
    assert listens(daemon.socket)


def test_a_second_daemon_on_a_live_socket_is_refused(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.start()
    result = taskd("--socket", daemon.socket, "--state", str(tmp_path / "other"))

    assert "another daemon listens there" in refused(result, 2).splitlines()[-1]
    with daemon.connect() as connection:
        assert connection.ids() == ()


def test_a_stale_socket_is_taken_over(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.kill()
    assert Path(daemon.socket).is_socket()
    daemon.start()

    assert listens(daemon.socket)


def test_a_file_in_the_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    result = taskd("--socket", str(path), "--state", str(tmp_path / "state"))

    assert "no socket" in refused(result, 2)
    assert path.read_text() == "precious"


def test_a_stop_removes_the_socket_and_a_start_makes_it_anew(daemon: DaemonProcess) -> None:
    daemon.start()
    assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o660
    assert daemon.stop() == 0
    assert not Path(daemon.socket).exists()


def test_a_stop_does_not_wait_for_those_who_wait(daemon: DaemonProcess) -> None:
    daemon.start()
    with daemon.connect() as connection:
        record = connection.start("external", {})
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(daemon.socket)
            waiting.sendall(b'{"method": "Task.wait", "params": [{"id": "%s"}], "id": 1}\n' % record.id.encode())
            connection.ids()
            assert daemon.stop() == 0
            assert waiting.recv(1) == b""


def test_a_stop_cuts_no_reply_that_has_begun(daemon: DaemonProcess) -> None:
    """More of them than a socket takes, for a peer that reads only then."""
    daemon.start()
    assert daemon.process is not None
    with daemon.connect() as connection, socket.socket(socket.AF_UNIX) as reader:
        id = connection.start("external", {}, description="d" * 4000).id
        reader.settimeout(PATIENCE)
        reader.connect(daemon.socket)
        call = json.dumps({"method": "Task.get", "params": {"id": id}, "id": 1}).encode() + b"\n"
        for _ in range(2):
            reader.sendall(call * 40)
            until(lambda: int.from_bytes(fcntl.ioctl(reader, termios.TIOCOUTQ, bytes(4)), sys.byteorder) == 0)
        daemon.process.terminate()
        until(lambda: "stopping on" in daemon.log)
        whole = b"".join(iter(lambda: reader.recv(1 << 16), b""))
        assert daemon.process.wait(PATIENCE) == 0

    assert whole.endswith(b"\n")
    assert {json.loads(line)["id"] for line in whole.splitlines()} == {1}


def test_a_socket_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    result = taskd("--socket", str(tmp_path / ("x" * 120)), "--state", str(tmp_path / "state"))

    assert "too long" in refused(result, 2)


def test_a_state_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = taskd("--socket", str(tmp_path / "s"), "--state", str(tmp_path / "file" / "state"))

    assert "the state folder" in refused(result)


def test_a_store_that_cannot_be_written_is_a_reason_not_to_start_and_is_said(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    """It can be opened and read, but there is no room for another page."""
    daemon.start()
    daemon.kill()
    options = ("--socket", daemon.socket, "--state", str(tmp_path / "state"))

    result = taskd(*options, within=["prlimit", "--fsize=4096"])

    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("taskd: the store cannot write: ")


def test_a_database_that_is_none_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    database = tmp_path / "state" / "taskd.sqlite"
    database.write_bytes(b"this is no database" * 100)
    result = taskd("--socket", str(tmp_path / "s"), "--state", str(tmp_path / "state"))

    assert "not a database" in refused(result)
    assert database.read_bytes() == b"this is no database" * 100


def test_a_database_of_a_newer_schema_is_refused(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.start()
    assert daemon.stop() == 0
    with sqlite3.connect(tmp_path / "state" / "taskd.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    result = taskd("--socket", daemon.socket, "--state", str(tmp_path / "state"))

    assert "newer" in refused(result)
    assert "99" in result.stderr


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("UPDATE task SET doc = replace(doc, 'running', 'queued')", "task 1 in the database is damaged"),
        ("UPDATE task SET log_end = 9", "the log of task"),
        ("UPDATE token SET user = 'root'", "a token in the database is damaged"),
        ("UPDATE meta SET value = 1 WHERE key = 'next_revision'", "taskd.sqlite is damaged"),
    ],
)
def test_a_database_with_a_row_that_is_not_as_it_was_written_is_refused(
    daemon: DaemonProcess, tmp_path: Path, sql: str, sentence: str
) -> None:
    daemon.start()
    with daemon.connect() as connection:
        made = connection.start("external", {})
        connection.update(made.id, log=["one"])
        connection.add_token("ann", ["user"])
    daemon.stop()
    with closing(sqlite3.connect(tmp_path / "state" / "taskd.sqlite", isolation_level=None)) as database:
        database.execute(sql)

    assert sentence in refused(taskd("--socket", daemon.socket, "--state", str(tmp_path / "state")))


def test_the_version_and_the_settings_are_told(tmp_path: Path) -> None:
    assert taskd("--version").stdout == "taskd 0.1.0\n"
    file = tmp_path / "taskd.toml"
    file.write_text("max_batch = 7\nlog_lines = 5\n")
    told = taskd("--config", str(file), "--socket", "/x/y", "--check-config", TASKD_LOG_LINES="9").stdout

    assert "max_batch = 7\n" in told
    assert "log_lines = 9\n" in told
    assert 'socket = "/x/y"\n' in told


def test_the_settings_are_told_as_a_settings_file_has_them_whatever_they_are(tmp_path: Path) -> None:
    """A path may be no UTF-8, and tasks may be remembered for ever."""
    file = tmp_path / "taskd.toml"
    file.write_text('retention_days = inf\nadmins = ["größe"]\n')
    command = [sys.executable, "-m", "taskd", "--config", str(file), "--check-config"]
    told = subprocess.check_output(command, timeout=PATIENCE, env={**os.environb, b"TASKD_STATE": b"/x\xff"})

    assert b'state = "/x\xff"\n' in told
    assert 'admins = ["größe"]\n'.encode() in told
    assert b"retention_days = inf\n" in told


BAD_SETTINGS = [
    ("max_batch = true", "max_batch: expected an integer, got True"),
    ("max_batch = 0", "max_batch: must be at least 1, not 0"),
    ("nothing = 1", "nothing: there is no such setting"),
    ('log_level = "loud"', "log_level: must be one of debug, info, warning, error, not 'loud'"),
    ('socket_mode = "9"', "socket_mode: must be octal permissions such as 0660, not '9'"),
    ('socket = "relative"', "socket: must be an absolute path, not 'relative'"),
    ("admins = [1]", "admins: expected a list of strings"),
    ("this is no TOML", "Expected '=' after a key"),
    (f"max_batch = 1{'0' * 4400}", "Exceeds the limit (4300 digits)"),
    (f"max_batch = 0x1{'0' * 4400}", "max_batch: expected a number of 64 bits at most"),
    ("max_batch = 9223372036854775808", "max_batch: expected a number of 64 bits at most"),
    (f"retention_days = 1{'0' * 400}", "retention_days: expected a number of 64 bits at most"),
    (f"max_batch = {{x = 0x1{'0' * 4400}}}", "max_batch: expected an integer, got a table"),
    (f"admins = {'[' * 5000}{']' * 5000}", "maximum recursion depth exceeded"),
    (r'state = "/a\u0000b"', "state: the character NUL cannot be in it"),
    (r'socket_group = "a\u0000b"', "socket_group: the character NUL cannot be in it"),
]


@pytest.mark.parametrize(("text", "fault"), BAD_SETTINGS, ids=[text[:40] for text, _ in BAD_SETTINGS])
def test_a_bad_setting_is_named(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "taskd.toml"
    file.write_text(text)

    assert fault in refused(taskd("--config", str(file), "--check-config"), 2)


def test_a_config_file_that_was_named_must_be_there() -> None:
    assert "there is no such file" in refused(taskd("--config", "/nowhere/taskd.toml", "--check-config"), 2)


@pytest.mark.parametrize("descriptors", [6, 7, 8, 9, 10, 12])
def test_without_descriptors_for_its_start_it_says_so_in_a_sentence(tmp_path: Path, descriptors: int) -> None:
    command = 'ulimit -n "$1"; exec "$2" -m taskd --socket "$3/s" --state "$3/state"'
    arguments = ["sh", str(descriptors), sys.executable, str(tmp_path)]
    whole = ["sh", "-c", command, *arguments]
    done = subprocess.run(whole, capture_output=True, check=False, text=True, timeout=PATIENCE)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("taskd: ")
    assert "Traceback" not in done.stderr
