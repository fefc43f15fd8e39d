"""``taskctl doctor``: what it finds on a machine that is well, and on one that is not, each in its own way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from taskd import __version__
from taskd.cli import checks, doctor, units
from taskd.cli.checks import Finding, Level
from taskd.cli.exits import Exit
from taskd.cli.sentences import sentence
from taskd.errors import NoDaemon
from tests.cli.conftest import PATIENT, Said, Taskctl
from tests.operations.conftest import mounted
from tests.process import DaemonProcess

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def ask(daemon: DaemonProcess, *options: str, **env: str) -> Said:
    """``taskctl doctor`` about this daemon; no unit of this machine is looked at."""
    state = {"TASKD_STATE": str(daemon.folder / "state"), "TASKD_CONFIG": str(daemon.folder / "toml")}
    (daemon.folder / "toml").touch()
    return Taskctl(daemon.socket, PATIENT)(
        "doctor", "--prefix", str(daemon.folder / "none"), *options, **state | env
    )


def found(daemon: DaemonProcess, **env: str) -> dict[str, tuple[Level, str]]:
    """By check, the worst level and what was found."""
    said = ask(daemon, "--json", **env)
    assert said.err == ""
    order: Sequence[Level] = ("ok", "warning", "problem")
    worst: dict[str, tuple[Level, str]] = {}
    problems = 0
    for each in (Finding(**finding) for finding in json.loads(said.out)):
        old = worst.get(each.check, ("ok", ""))
        if order.index(each.level) >= order.index(old[0]):
            worst[each.check] = each.level, each.found
        problems += each.level == "problem"
        assert each.level == "ok" or each.advice, f"nothing is to be done about {each.found}"
    assert said.code == (Exit.UNHEALTHY if problems else Exit.DONE)
    return worst


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(folder, settings=settings)
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.end()


def test_where_all_is_well_every_line_says_ok_and_the_exit_code_is_0(process: DaemonProcess) -> None:
    said = ask(process)
    state = process.folder / "state"
    pid = process.process.pid if process.process else 0
    lines = [line for line in said.out.splitlines() if " are free for " not in line]
    mode = f"{os.stat(process.socket).st_mode & 0o777:04o}"
    own, group = checks._user(os.geteuid()), checks._group(os.getegid())

    assert (said.code, said.err) == (0, "")
    assert [line.split(maxsplit=2)[:2] for line in lines] == [
        ["ok", check]
        for check in (
            *("socket", "daemon", "version", "permissions", "store", "residue", "settings", "state", "lock"),
            "units",
        )
    ]
    assert lines[0] == f"ok       socket       {process.socket} is {mode} {own} {group}"
    assert lines[-3] == f"ok       state        {state} is 0700 {own}"
    assert lines[-2].startswith(f"ok       lock         {state}/lock is held by pid {pid} (")


def test_a_socket_may_be_named_from_the_folder_that_one_is_in(
    process: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(process.folder)
    process.folder.chmod(0o777)
    try:
        assert [each.found for each in checks.socket("s")][1:] == ["everybody may write to ."]
    finally:
        process.folder.chmod(0o700)


def test_no_daemon_is_a_problem_and_the_rest_is_looked_at_all_the_same(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path)
    result = found(daemon)

    assert result["socket"] == ("problem", f"{daemon.socket}: No such file or directory")
    assert result["daemon"][0] == "problem"
    assert result["state"] == ("ok", f"{tmp_path}/state is not there yet; the first start makes it")
    assert "units" in result


def test_a_daemon_that_was_killed_left_its_socket_and_nobody_holds_its_state(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        daemon.kill()
        result = found(daemon)

    assert result["socket"][0] == "ok"
    assert result["daemon"] == ("problem", f"no taskd answers on {daemon.socket}: Connection refused")
    assert result["lock"] == ("ok", "nobody holds it; a daemon can start")


def test_what_is_no_socket_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "s").touch()

    assert found(DaemonProcess(tmp_path))["socket"] == ("problem", f"{tmp_path}/s is no socket")


def test_a_socket_for_everybody_is_a_warning_and_the_exit_code_stays_0(tmp_path: Path) -> None:
    with serving(tmp_path, socket_mode="0666") as daemon:
        assert found(daemon)["socket"][0] == "warning"
        assert ask(daemon).code == 0


def test_a_folder_where_anybody_could_put_another_socket_is_a_problem(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon:
        tmp_path.chmod(0o777)
        assert found(daemon)["socket"] == ("problem", f"everybody may write to {tmp_path}")
        tmp_path.chmod(0o1777)
        assert found(daemon)["socket"][0] == "ok"


def test_a_daemon_that_does_not_answer_and_holds_its_state_is_told_by_its_pid(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    with open(tmp_path / "state" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        level, said = found(DaemonProcess(tmp_path))["lock"]

    assert level == "problem"
    assert f"is held by pid {os.getpid()} (" in said


@as_root
def test_who_locks_a_file_of_the_same_number_elsewhere_is_not_called_the_holder(tmp_path: Path) -> None:
    """A stranger was said to be it, and that kill -9 were safe."""
    with ExitStack() as stack:
        state, other = (stack.enter_context(mounted(tmp_path / name, "-t", "tmpfs", "none")) for name in "ab")
        (state / "lock").touch()
        theirs = stack.enter_context(open(other / "theirs", "w"))
        assert os.fstat(theirs.fileno()).st_ino == (state / "lock").stat().st_ino
        fcntl.flock(theirs, fcntl.LOCK_EX)
        strangers = checks._lock(state / "lock", answers=False)
        ours = stack.enter_context(open(state / "lock"))
        fcntl.flock(ours, fcntl.LOCK_EX)
        held = checks._lock(state / "lock", answers=False)

    assert (strangers.level, strangers.found) == ("ok", "nobody holds it; a daemon can start")
    assert held.found.startswith(f"{state}/lock is held by pid {os.getpid()} (")
    assert "kill -9 is safe" in held.advice


def test_looking_leaves_the_lock_to_whoever_starts_at_that_moment(tmp_path: Path) -> None:
    """It is not even opened."""
    (tmp_path / "state").mkdir(mode=0o700)
    lock = tmp_path / "state" / "lock"
    lock.touch()
    os.utime(lock, (1, 1))
    found(DaemonProcess(tmp_path))

    assert lock.stat().st_atime == lock.stat().st_mtime == 1


def test_a_daemon_with_another_state_than_the_settings_say_is_a_warning(
    process: DaemonProcess, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir(mode=0o700)

    assert found(process, TASKD_STATE=str(tmp_path / "other"))["lock"][0] == "warning"


def test_a_state_folder_that_is_gone_is_no_place_to_write_to(tmp_path: Path) -> None:
    """All was said to be well: what the daemon went on to write, no start would have found."""
    with serving(tmp_path) as daemon:
        shutil.rmtree(tmp_path / "state")
        result = found(daemon)

    assert result["store"] == ("problem", "it cannot write")
    gone = f"{tmp_path}/state is not there: the daemon that answers keeps another state, or its own was removed"
    assert result["state"] == ("warning", gone)


def test_a_state_folder_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o755)

    assert found(DaemonProcess(tmp_path))["state"][0] == "warning"


def test_a_fault_in_the_settings_is_a_problem(process: DaemonProcess) -> None:
    assert found(process, TASKD_MAX_BATCH="0")["settings"] == (
        "problem",
        "TASKD_MAX_BATCH: must be at least 1, not 0",
    )


def test_little_room_is_a_warning_and_none_a_problem(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free

    assert checks.room(str(tmp_path), little=0, least=0).level == "ok"
    assert checks.room(str(tmp_path), little=2 * free, least=0).level == "warning"
    assert checks.room(str(tmp_path), little=2 * free, least=2 * free).level == "problem"


def test_a_daemon_of_another_version_is_a_warning_that_names_both() -> None:
    finding = doctor._version({"version": "9.9.9"})

    assert finding.level == "warning"
    assert finding.found == f"taskctl is {__version__}, the daemon is 9.9.9"


def test_a_task_that_owes_an_undo_is_a_problem_that_names_it(tmp_path: Path) -> None:
    with serving(tmp_path) as daemon, daemon.connect() as connection:
        params = {"argv": ["false"], "undo_argv": ["false"]}
        task = connection.wait(connection.start("command", params).id)
        assert task.residue

        assert found(daemon)["residue"] == (
            "problem",
            f"1 task owes an undo or a finish that failed: {task.id}",
        )
        connection.destroy(task.id, force=True)
        assert found(daemon)["residue"][0] == "ok"


def test_a_stranger_on_the_socket_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "s"))
        deaf.listen()
        (finding,) = doctor._asked(str(tmp_path / "s"))

    assert (finding.check, finding.level, finding.found) == ("daemon", "problem", "no reply within 0.05 seconds")


# Units.


def installed(prefix: Path) -> dict[str, Level]:
    """By file, or in a word, what is said of the units below a prefix."""
    return {each.found.removeprefix(f"{prefix}/").split()[0]: each.level for each in checks.installed(str(prefix))}


def test_units_are_compared_with_those_of_this_taskctl(tmp_path: Path) -> None:
    for place, text in units.files(units.program(), ["/srv/images"], ["devices"]).items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    assert installed(tmp_path) == {"taskd": "ok"}

    (tmp_path / units.SETTINGS).write_text("max_batch = 1")
    (tmp_path / units.DROP_INS / "mine.conf").write_text("[Service]\n")
    assert installed(tmp_path) == {"taskd": "ok"}, "what is the admin's to change is no finding"

    (tmp_path / units.UNITS / "taskd.service").write_text("[Unit]\n")
    (tmp_path / units.UNITS / "taskd.socket").unlink()
    (tmp_path / units.DROP_INS / "devices.conf").write_text("[Service]\n")
    assert installed(tmp_path) == {
        "taskd": "ok",
        f"{units.UNITS}/taskd.service": "warning",
        f"{units.UNITS}/taskd.socket": "problem",
        f"{units.DROP_INS}/devices.conf": "warning",
    }


def test_where_taskd_is_no_unit_nothing_is_wrong(tmp_path: Path) -> None:
    assert [each.level for each in checks.installed(str(tmp_path))] == ["ok"]


# As somebody else.


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may look into."""
    folder = Path(tempfile.mkdtemp(prefix="taskd-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@as_root
@pytest.mark.parametrize(("mode", "level"), [("0666", "ok"), ("0600", "problem")])
def test_a_user_is_told_whether_it_may_connect_and_no_more_than_it_may_see(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, level: str
) -> None:
    monkeypatch.setenv("TASKD_CONFIG", os.devnull)
    monkeypatch.setenv("TASKD_STATE", str(open_folder / "state"))
    with serving(open_folder, socket_mode=mode) as daemon:
        with as_nobody():
            told = list(doctor.findings(daemon.socket, str(open_folder / "none")))
        said = sentence(NoDaemon(daemon.socket, os.strerror(errno.EACCES)))
    by_check = {each.check: each for each in told}

    assert by_check["permissions"].level == level
    assert by_check["daemon"].level == level
    assert by_check["lock"].found == "who holds it is not this user's to see"
    assert by_check["state"].found == f"{open_folder}/state is 0700 root"
    if level == "ok":
        assert by_check["permissions"].found == "this user may connect, and sees the tasks that are its own"
    else:
        assert "start taskd" not in by_check["daemon"].advice
        closed = f"its mode is {mode}, its owner 0:0 (`taskctl doctor` tells what to do)"
        assert said == f"you may not connect to {daemon.socket}: {closed}"


@as_root
def test_who_may_not_see_what_the_holder_has_open_is_not_told_to_kill_it(open_folder: Path) -> None:
    with serving(open_folder) as daemon:
        (open_folder / "state").chmod(0o755)
        with as_nobody():
            finding = checks._lock(open_folder / "state" / "lock", answers=False)
        pid = daemon.process.pid if daemon.process else 0

    assert f"is held by pid {pid} (" in finding.found
    assert "as it seems" in finding.found
    assert "kill" not in finding.advice
