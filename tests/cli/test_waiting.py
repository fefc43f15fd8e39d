"""The commands that wait: exit codes, logs as they come, Ctrl-C, a daemon that restarts."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from taskd.cli import exits, watch
from taskd.cli.exits import Exit
from taskd.cli.meter import Silent
from taskd.cli.values import read
from taskd.client import Daemon, NoDaemon, Record, verbs
from taskd.states import State
from tests.cli.conftest import PATIENT, PROGRAM, Said, Taskctl, ended, interrupt, masked
from tests.process import PATIENCE, DaemonProcess

# Half an hour for ``image``: no machine is so slow that it has ended before it is looked at.
SLOW = ("--rate-limit", "1K")


def begun(daemon: Daemon, label: str) -> Record:
    """The task of a ``taskctl`` that has just been started; from the task on, Ctrl-C means a cancel."""
    give_up = time.monotonic() + PATIENCE
    while not (found := [*daemon.list(label=label)]):
        assert time.monotonic() < give_up
    return found[0]


def test_a_copy_that_completes_says_so_in_one_line(taskctl: Taskctl, image: Path) -> None:
    said = taskctl("copy", "--verify", str(image), f"{image}.copy")

    assert (said.code, said.err) == (0, "")
    assert masked(said.out) == f"copy {image} to {image}.copy: completed, 2.0 MiB in <time>\n"
    assert Path(f"{image}.copy").read_bytes() == image.read_bytes()


def test_relative_paths_are_meant_from_here(taskctl: Taskctl, image: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "copy", "--label", "from here", "image", "./copy"],
        cwd=image.parent,
        env=taskctl.environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert (image.parent / "copy").read_bytes() == image.read_bytes()


def test_run_prints_what_the_program_says_and_nothing_else_on_stdout(taskctl: Taskctl) -> None:
    script = 'echo one; printf "two\\tand \\033[2Jthree\\n"; echo "$NAME in $PWD"'

    said = taskctl("run", "--env", "NAME=value", "--cwd", "/usr", "--", "sh", "-c", script)

    assert said.code == 0
    assert said.out == "one\ntwo\tand \\x1b[2Jthree\nvalue in /usr\n"
    assert masked(said.err) == "taskctl: sh: completed in <time>\n"


def test_a_program_that_fails_is_undone_and_exit_code_1(taskctl: Taskctl, tmp_path: Path) -> None:
    made = tmp_path / "made by the program"
    made.touch()

    said = taskctl("run", "--undo", f"rm '{made}'", "--", "sh", "-c", "exit 3")

    assert said.code == Exit.FAILED
    assert said.err == "taskctl: sh: failed: COMMAND_FAILED: sh ended with exit status 3\n"
    assert not made.exists()


def test_residue_is_listed_and_recover_tells_when_it_is_gone(
    taskctl: Taskctl, daemon: Daemon, tmp_path: Path
) -> None:
    fixed = tmp_path / "fixed"

    said = taskctl("run", "--label", "debtor", "--undo", f"cat {fixed}", "--", "false")

    assert said.code == Exit.FAILED
    id = begun(daemon, "debtor").id
    assert "failed (residue)" in taskctl("ls", "--state", "failed").out
    first, second, third, last = said.err.splitlines()
    assert first.startswith("taskctl: debtor: failed: UNDO_FAILED: ")
    assert second == "taskctl: left behind:"
    assert third.startswith('taskctl:   1. run_undo argv=["cat", ')
    assert last == f"taskctl: `taskctl recover {id}` tries to undo it again"
    assert (again := taskctl("recover", id)).code == Exit.FAILED
    assert "the undo failed again" in again.err
    refused = taskctl("destroy", id)
    assert (refused.code, refused.err) == (
        Exit.REFUSED,
        f"taskctl: task {id} left residue behind; `taskctl recover {id}` tries again, "
        f"`taskctl destroy --force {id}` forgets it\n",
    )
    fixed.touch()
    assert taskctl("recover", id).out == f"{id} left nothing behind any more\n"
    assert taskctl("show", id).out.endswith("\nnothing is owed any more: it has been undone since\n")
    assert taskctl("destroy", id).out == f"{id} is destroyed\n"
    assert taskctl("recover", id).err == f"taskctl: there is no task {id}\n"


def test_no_wait_prints_the_id_and_the_same_request_id_is_the_same_task(taskctl: Taskctl, daemon: Daemon) -> None:
    once = taskctl("run", "--no-wait", "--request-id", "r1", "--", "sh", "-c", "echo done")
    twice = taskctl("run", "--no-wait", "--request-id", "r1", "--json", "--", "sh", "-c", "echo done")

    assert once.code == twice.code == 0
    assert json.loads(twice.out)["id"] == once.out.strip()
    assert daemon.wait(once.out.strip()).state == "completed"
    assert taskctl("log", "--follow", once.out.strip()).out == "done\n"


def test_any_operation_is_started_with_its_params_and_waited_for(taskctl: Taskctl, image: Path) -> None:
    target = f"{image}.copy"

    said = taskctl("start", "copy", f"source={image}", f"target={target}", "verify=true", "--label", "started")

    assert (said.code, said.err) == (Exit.DONE, "")
    assert masked(said.out) == "started: completed, 2.0 MiB in <time>\n"
    assert Path(target).read_bytes() == image.read_bytes()
    failing = taskctl("start", "command", 'argv=["sh", "-c", "exit 3"]', "cwd=/", "--deadline", "60")
    assert (failing.code, failing.err) == (
        Exit.FAILED,
        "taskctl: sh: failed: COMMAND_FAILED: sh ended with exit status 3\n",
    )
    whole = json.loads(taskctl("start", "command", 'argv=["echo", "5"]', "--json").out)
    assert (whole["state"], whole["params"]["argv"]) == ("completed", ["echo", "5"])


def test_a_started_external_task_is_left_to_its_producer(taskctl: Taskctl, daemon: Daemon) -> None:
    once = taskctl("start", "external", "heartbeat_s=60.5", "--request-id", "producer")
    again = taskctl("start", "external", "--request-id", "producer", "--json")

    assert once.code == again.code == Exit.DONE
    assert json.loads(again.out)["id"] == once.out.strip()
    assert daemon.get(once.out.strip()).params == {"heartbeat_s": 60.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ('{"a": [1]}', {"a": [1]}),
        ("", ""),
        ("/a/path", "/a/path"),
        ("a=b", "a=b"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "1e999"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_value_is_json_where_it_can_be_and_else_text(text: str, value: object) -> None:
    assert read({"name": text}, {}) == {"name": value}


def test_lines_that_came_too_fast_are_counted_and_the_exit_code_is_the_tasks(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text("log_lines = 5\n")
    process = DaemonProcess(tmp_path, ("--config", str(tmp_path / "few.toml")))
    process.start()
    try:
        said = Taskctl(process.socket)("run", "--label", "fast", "--", "seq", "20000")
        with process.connect() as daemon:
            id = begun(daemon, "fast").id
        later = Taskctl(process.socket)("log", id)
    finally:
        process.end()

    assert said.code == Exit.DONE
    lost = [
        int(number) for number in re.findall(r"taskctl: (\d+) lines of the log are not kept any more", said.err)
    ]
    assert sum(lost) + len(said.out.splitlines()) == 20000
    assert said.out.endswith("19999\n20000\n")
    assert (later.out, later.err) == (
        "19996\n19997\n19998\n19999\n20000\n",
        "taskctl: 19995 lines of the log are not kept any more\n",
    )


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["copy", "only-one"],
        ["copy", "--rate-limit", "fast", "a", "b"],
        ["copy", "--rate-limit", "0", "a", "b"],
        ["run", "--env", "NAME", "true"],
        ["run", "--undo", "'", "true"],
        ["run", "--undo", "", "true"],
        ["run"],
        ["run", "--", ""],
        ["run", "--cwd", "", "true"],
        ["run", "--grace", "inf", "true"],
        ["run", "--grace", "nan", "true"],
        ["run", "--request-id", "", "true"],
        ["copy", "", "b"],
        ["copy", "a", ""],
        ["show", ""],
        ["cancel", "x", ""],
        ["start"],
        ["start", ""],
        ["start", "external", "heartbeat_s"],
        ["start", "external", "=5"],
        ["start", "external", "heartbeat_s=5", "heartbeat_s=6"],
        ["start", "external", "--deadline", "-1"],
        ["ls", "--state", "asleep"],
        ["log", "--follow", "--json", "x"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_asks_nothing(args: list[str], tmp_path: Path) -> None:
    said = Taskctl(str(tmp_path / "nobody"))(*args)

    assert said.code == Exit.USAGE
    assert "Traceback" not in said.err


def test_of_several_tasks_the_worst_code_counts(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record]
) -> None:
    good, bad, off = (external(label).id for label in ("good", "bad", "off"))
    daemon.call("Task.complete", id=good)
    daemon.call("Task.fail", id=bad, error={"code": "BAD", "message": "it is bad"})
    daemon.cancel(off)
    daemon.call("Task.fail", id=off, error={"code": "STOPPED", "message": "as asked"})

    assert taskctl("wait", good).code == Exit.DONE
    assert taskctl("wait", good, off).code == Exit.CANCELLED
    assert taskctl("wait", good, off, bad).code == Exit.FAILED
    assert taskctl("wait", good, off, bad, "0" * 36).code == Exit.REFUSED
    assert [each["id"] for each in json.loads(taskctl("wait", "--json", off, good, off).out)] == [off, good]
    assert taskctl("cancel", good, off).code == Exit.REFUSED
    destroyed = taskctl("destroy", good, "0" * 36, off)
    assert (destroyed.code, destroyed.out) == (Exit.REFUSED, f"{good} is destroyed\n{off} is destroyed\n")


def test_cancel_waits_for_the_end_where_it_is_told_to(taskctl: Taskctl, daemon: Daemon, image: Path) -> None:
    id = taskctl("copy", "--no-wait", *SLOW, str(image), f"{image}.copy").out.strip()

    said = taskctl("cancel", "--wait", id)

    assert said.code == Exit.DONE
    assert said.err.endswith(": cancelled\n")
    assert not Path(f"{image}.copy").exists()


def test_who_leaves_a_task_that_others_have_cancelled_is_told_so(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record]
) -> None:
    id = external("cancelled by somebody").id
    assert taskctl("cancel", id).code == Exit.DONE
    daemon.update(id, log=["for the one who follows"])
    follower = taskctl.start("log", "-f", id)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "for the one who follows\n"

    interrupt(follower)

    assert ended(follower) == Said(Exit.LEFT, "", f"taskctl: left task {id}; its cancel was asked for\n")


def test_the_table_of_exit_codes_is_complete() -> None:
    assert set(exits.MEANING) == set(Exit)
    assert {exit.value for exit in Exit} == {0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 141, 143}
    assert exits.worst([]) is Exit.DONE
    assert exits.worst([Exit.FAILED, Exit.CANCELLED, Exit.DONE]) is Exit.FAILED
    assert {state for state in State if state in exits.OF_STATE} == {State.COMPLETED, State.CANCELLED}


def test_ctrl_c_cancels_and_waits_for_the_end(taskctl: Taskctl, daemon: Daemon, image: Path) -> None:
    before = sorted(image.parent.iterdir())
    process = taskctl.start("copy", "--label", "once", *SLOW, str(image), f"{image}.copy")
    id = begun(daemon, "once").id

    interrupt(process)
    said = ended(process)

    assert said.code == Exit.CANCELLED
    assert said.err == "taskctl: cancelling; Ctrl-C again to leave it\ntaskctl: once: cancelled\n"
    assert daemon.get(id).state == "cancelled"
    assert sorted(image.parent.iterdir()) == before


def test_a_start_that_breaks_is_made_again_and_an_early_ctrl_c_is_not_forgotten(tmp_path: Path) -> None:
    """The daemon is played here, because a real one answers too fast for either."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(PATIENCE)
        process = Taskctl(str(tmp_path / "s")).start("run", "true")
        try:
            with listener.accept()[0] as breaks:
                first = _asked(breaks)
            peer = listener.accept()[0]
            again = _asked(peer)
            assert first["method"] == again["method"] == "Task.start"
            assert first["params"] == again["params"]
            assert first["params"]["request_id"]

            interrupt(process)
            assert process.stderr is not None
            assert [process.stderr.readline() for _ in range(2)] == [
                "taskctl: the daemon went away; waiting for it to come back\n",
                "taskctl: cancelling; Ctrl-C again to leave it\n",
            ]
            peer.sendall(json.dumps({"id": again["id"], "result": RUNNING}).encode())
            with peer.makefile() as lines:
                calls = [json.loads(lines.readline()) for _ in range(2)]
            assert {"id": "t", "must": True} in [
                call["params"] for call in calls if call["method"] == "Task.cancel"
            ]
        finally:
            peer.close()
            process.kill()
            ended(process)


def _asked(peer: socket.socket) -> dict[str, Any]:
    call: dict[str, Any] = json.loads(peer.recv(65536))
    return call


def test_a_second_ctrl_c_leaves_a_task_that_takes_its_time_to_end(taskctl: Taskctl, daemon: Daemon) -> None:
    stubborn = "trap 'echo told' TERM; echo ready; sleep 60 & wait; exec sleep 60"
    process = taskctl.start("run", "--label", "twice", "--grace", "60", "--", "sh", "-c", stubborn)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    id = begun(daemon, "twice").id

    interrupt(process)
    assert process.stderr.readline() == "taskctl: cancelling; Ctrl-C again to leave it\n"
    assert process.stdout.readline() == "told\n"  # so the daemon has answered
    interrupt(process)
    said = ended(process)

    assert said.code == Exit.LEFT
    assert said.err == f"taskctl: left task {id}; its cancel was asked for\n"
    assert not daemon.get(id).ended


def test_ctrl_c_leaves_a_log_that_is_followed_alone(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record]
) -> None:
    id = external("followed").id
    daemon.call("Task.update", id=id, log=["first"])
    process = taskctl.start("log", "-f", id)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"

    interrupt(process)

    assert ended(process).code == Exit.LEFT
    assert not daemon.get(id).cancel_requested


def test_waiting_ends_with_the_task_and_a_late_cancel_is_refused(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record]
) -> None:
    id = external("ends while waited for").id
    waiting = taskctl.start("wait", id)
    daemon.call("Task.complete", id=id)

    assert masked(ended(waiting).out) == "ends while waited for: completed in <time>\n"
    late = taskctl("cancel", id)
    assert late.code == Exit.REFUSED
    assert late.err.endswith("it can no longer be cancelled\n")


def test_a_daemon_that_restarts_is_awaited(tmp_path: Path) -> None:
    process = DaemonProcess(tmp_path)
    process.start()
    try:
        with process.connect() as daemon:
            id = daemon.start("external", label="outlives it").id
            daemon.call("Task.update", id=id, log=["before"])
        follower = Taskctl(process.socket, PATIENT).start("log", "-f", id)
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert follower.stdout.readline() == "before\n"
        process.kill()
        assert follower.stderr.readline() == "taskctl: the daemon went away; waiting for it to come back\n"
        process.start()
        with process.connect() as daemon:
            daemon.call("Task.update", id=id, log=["after"])
            daemon.call("Task.complete", id=id)

        said = ended(follower)
        assert (said.code, said.out) == (Exit.DONE, "after\n")
    finally:
        process.end()


@pytest.fixture
def away(tmp_path: Path, image: Path) -> Iterator[tuple[DaemonProcess, subprocess.Popen[str], str]]:
    """A ``taskctl copy`` that knows that its daemon is away, and its task."""
    process = DaemonProcess(tmp_path)
    process.start()
    try:
        taskctl = Taskctl(process.socket, PATIENT)
        waiting = taskctl.start("copy", "--label", "away", *SLOW, str(image), f"{image}.copy")
        with process.connect() as daemon:
            record = begun(daemon, "away")
            while not record.progress.done:  # by then its start has been answered
                record = daemon.wait(record.id, PATIENCE, record.revision)
        process.kill()
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "taskctl: the daemon went away; waiting for it to come back\n"
        yield process, waiting, record.id
        waiting.kill()
        waiting.communicate()
    finally:
        process.end()


def test_a_ctrl_c_while_the_daemon_is_away_asks_for_the_cancel_when_it_is_back(
    away: tuple[DaemonProcess, subprocess.Popen[str], str], image: Path
) -> None:
    process, waiting, _ = away
    interrupt(waiting)
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == (
        "taskctl: will ask for the cancel when the daemon is back; Ctrl-C again to leave it\n"
    )

    process.start()

    assert ended(waiting) == Said(Exit.CANCELLED, "", "taskctl: away: cancelled\n")
    assert not Path(f"{image}.copy").exists()


def test_who_leaves_a_task_whose_cancel_was_not_asked_for_is_told_so(
    away: tuple[DaemonProcess, subprocess.Popen[str], str],
) -> None:
    _, waiting, id = away
    interrupt(waiting)
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("taskctl: will ask for the cancel ")

    interrupt(waiting)

    left = f"taskctl: left task {id}; its cancel was NOT asked for, it goes on when the daemon is back\n"
    assert ended(waiting) == Said(Exit.LEFT, "", left)


def test_sigterm_leaves_at_once_with_its_own_exit_code(
    away: tuple[DaemonProcess, subprocess.Popen[str], str],
) -> None:
    _, waiting, id = away
    waiting.terminate()

    left = f"taskctl: left task {id}, which goes on when the daemon is back\n"
    assert ended(waiting) == Said(Exit.TERMINATED, "", left)


def test_sigterm_to_a_command_that_waits_leaves_its_task_alone(taskctl: Taskctl, daemon: Daemon) -> None:
    process = taskctl.start("run", "--label", "terminated", "--", "sh", "-c", "echo ready; exec sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    id = begun(daemon, "terminated").id

    process.terminate()

    assert ended(process) == Said(Exit.TERMINATED, "", f"taskctl: left task {id}, which goes on\n")
    assert daemon.get(id).state == "running"
    daemon.cancel(id)
    assert daemon.wait(id).state == "cancelled"


AT: Final = "2026-11-23T17:29:24.123Z"
OWED: Final = [{"verb": "replace", "args": {"path": "/x"}, "reason": "no"}]
RUNNING: Final[dict[str, object]] = {
    "id": "t",
    "revision": 1,
    "operation": "command",
    "state": "running",
    "created_at": AT,
}


@contextmanager
def silent_daemon(folder: Path) -> Iterator[tuple[subprocess.Popen[str], socket.socket, object]]:
    """A ``taskctl run``, the daemon's end of its connection, and the id of its Task.start, not answered yet."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        listener.settimeout(PATIENCE)
        process = Taskctl(str(folder / "s")).start("run", "--request-id", "r", "true")
        try:
            with listener.accept()[0] as peer:
                yield process, peer, _asked(peer)["id"]
        finally:
            process.kill()
            process.communicate()


def twice_interrupted(process: subprocess.Popen[str]) -> str:
    """What it says when it is left by a second Ctrl-C."""
    interrupt(process)
    assert process.stderr is not None
    assert process.stderr.readline() == "taskctl: cancelling; Ctrl-C again to leave it\n"
    interrupt(process)
    said = ended(process)
    assert (said.code, said.out) == (Exit.LEFT, "")
    return said.err


def test_who_leaves_before_the_start_is_answered_is_told_how_to_find_out(tmp_path: Path) -> None:
    with silent_daemon(tmp_path) as (process, _, _):
        assert twice_interrupted(process) == (
            "taskctl: whether the task was made is not known; the same command with --request-id r makes it once\n"
        )


def test_who_leaves_before_the_cancel_is_answered_is_told_that_it_is_not_known(tmp_path: Path) -> None:
    with silent_daemon(tmp_path) as (process, peer, id):
        peer.sendall(json.dumps({"id": id, "result": RUNNING}).encode())
        assert _asked(peer)["method"] == "Task.get"
        assert twice_interrupted(process) == (
            "taskctl: left task t; its cancel was asked for, but whether the daemon heard it is not known\n"
        )


def test_a_finish_that_cannot_be_done_is_told_while_it_is_waited_for(tmp_path: Path) -> None:
    """Past the commit nothing is undone any more: it is tried again until it is done."""
    with silent_daemon(tmp_path) as (process, peer, id):
        peer.sendall(json.dumps({"id": id, "result": RUNNING}).encode())
        committed = RUNNING | {"state": "committed", "residue": OWED}
        peer.sendall(json.dumps({"id": _asked(peer)["id"], "result": committed}).encode())
        call = _asked(peer)  # the log
        peer.sendall(json.dumps({"id": call["id"], "result": {"lines": [], "next": 0}}).encode())

        assert process.stderr is not None
        assert [process.stderr.readline() for _ in range(4)] == [
            "taskctl: command: committed\n",
            "taskctl: still to be done after the commit; tried again by itself:\n",
            "taskctl:   1. replace path=/x: no\n",
            "taskctl: `taskctl recover t` tries it at once\n",
        ]


@pytest.mark.parametrize(
    ("now", "code", "out", "err"),
    [
        ({"state": "completed", "finished_at": AT}, Exit.DONE, "command: completed\n", []),
        ({"state": "failed", "finished_at": AT}, Exit.DONE, "t left nothing behind any more\n", []),
        (
            {"state": "committed", "residue": OWED},
            Exit.FAILED,
            "",
            [
                "taskctl: command: it is not finished yet",
                "taskctl: still to be done after the commit; tried again by itself:",
                "taskctl:   1. replace path=/x: no",
                "taskctl: `taskctl recover t` tries it at once",
            ],
        ),
    ],
)
def test_recover_tells_what_is_still_owed(
    tmp_path: Path, now: dict[str, object], code: Exit, out: str, err: list[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(PATIENCE)
        process = Taskctl(str(tmp_path / "s")).start("recover", "t" * 36)
        with listener.accept()[0] as peer:
            call = _asked(peer)
            peer.sendall(json.dumps({"id": call["id"], "result": RUNNING | now}).encode())
            said = ended(process)

    assert (call["method"], call["params"]) == ("Task.recover", {"id": "t" * 36})
    assert (said.code, said.out, said.err.splitlines()) == (code, out, err)


async def test_patience_with_a_daemon_that_stays_away_has_an_end(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    link = watch.Link(str(tmp_path / "s"), Silent())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(link.path)
        listener.listen()
        await link.connect()
    (tmp_path / "s").unlink()
    began = trio.current_time()

    with pytest.raises(NoDaemon):
        await link.ask(verbs.ids())
    link.close()

    assert watch.PATIENCE <= trio.current_time() - began < watch.PATIENCE + 1
    assert link.away
    assert capsys.readouterr().err == "taskctl: the daemon went away; waiting for it to come back\n"


async def test_the_first_connection_is_not_waited_for(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()

    with pytest.raises(NoDaemon):
        await watch.Link(str(tmp_path / "s"), Silent()).connect()

    assert trio.current_time() == began
