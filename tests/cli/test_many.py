"""Acts on all tasks that filters let through: what they are, and the question before many."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from taskd.cli import filters
from taskd.cli.filters import Filters
from taskd.cli.ls import some
from taskd.client import Daemon, Record
from taskd.model import JSON
from tests.cli.conftest import PROGRAM, Taskctl, ended
from tests.cli.tmux import terminal
from tests.process import PATIENCE, DaemonProcess

BIN = Path(sys.executable).parent


def test_one_that_fits_is_not_asked_about(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record]
) -> None:
    one, other = external("only one"), external("another")

    said = taskctl("cancel", "--label", "only one")

    assert (said.code, said.out, said.err) == (0, f"{one.id} is being cancelled\n", "")
    assert not daemon.get(other.id).cancel_requested


def test_many_that_fit_are_left_alone_where_nobody_can_be_asked(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record]
) -> None:
    ids = [external("crowd").id for _ in range(3)]

    refused = taskctl("cancel", "--label", "crowd")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.endswith(
        "Error: 3 tasks fit, and there is no terminal to ask on; with --yes it is all of them\n"
    )
    assert not any(daemon.get(id).cancel_requested for id in ids)

    granted = taskctl("cancel", "--label", "crowd", "--yes", "--json")
    assert granted.code == 0
    assert [record["id"] for record in json.loads(granted.out)] == ids[::-1], "the newest first"
    assert all(daemon.get(id).cancel_requested for id in ids)


def test_only_tasks_that_the_act_is_for_fit(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record]
) -> None:
    done, goes_on = external("both kinds").id, external("both kinds").id
    daemon.complete(done)

    assert taskctl("destroy", "--label", "both kinds").out == f"{done} is destroyed\n"
    assert taskctl("cancel", "--label", "both kinds").out == f"{goes_on} is being cancelled\n"
    nothing = taskctl("destroy", "--label", "both kinds")
    assert (nothing.code, nothing.err) == (0, "taskctl: no task that one could destroy fits\n")
    assert taskctl("recover", "--owner", "root").err == "taskctl: no task that one could recover fits\n"


def test_each_is_told_as_soon_as_it_is_done(taskctl: Taskctl, external: Callable[..., Record]) -> None:
    ids = [external("told").id for _ in range(2)]
    script = '"$PYTHON" -c "$MAIN" cancel "$@" 2>&1'

    done = subprocess.run(
        ["sh", "-c", script, "sh", ids[0], "none", ids[1]],
        env=taskctl.environment(PYTHON=PROGRAM[0], MAIN=PROGRAM[2]),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    said = [f"{ids[0]} is being cancelled", "taskctl: there is no task none", f"{ids[1]} is being cancelled"]
    assert (done.returncode, done.stdout.splitlines()) == (4, said)


@pytest.mark.parametrize(("where", "code"), [("> /dev/full", 6), (">&-", 6), ("| true", 0)])
def test_all_are_acted_on_where_nobody_reads_which(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record], where: str, code: int
) -> None:
    ids = [external(f"unread {where}").id for _ in range(3)]

    done = subprocess.run(
        ["sh", "-c", f'"$PYTHON" -c "$MAIN" cancel --yes --label "unread {where}" {where}'],
        env=taskctl.environment(PYTHON=PROGRAM[0], MAIN=PROGRAM[2]),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (done.returncode, done.stderr.count("cannot be written")) == (code, 1 if code else 0)
    assert all(daemon.get(id).cancel_requested for id in ids)


@pytest.mark.parametrize("command", ["cancel", "destroy", "recover"])
@pytest.mark.parametrize("args", [[], ["x", "--owner", "root"], ["--yes"]])
def test_tasks_are_named_by_ids_or_by_filters(command: str, args: list[str], taskctl: Taskctl) -> None:
    said = taskctl(command, *args)

    assert said.code == 2
    assert "name the tasks either by their ids or by filters" in said.err


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not here")
def test_on_a_terminal_many_are_shown_and_asked_about(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record], tmp_path: Path
) -> None:
    ids = [external(f"asked {n}").id for n in range(12)]
    command = f"clear; '{BIN}/taskctl' cancel --operation external --newer 1h; echo code $?"
    env = taskctl.environment(TERM="xterm-256color", NO_COLOR="1")
    with terminal(tmp_path, "sh", env) as shown:
        shown.until("#")
        shown.type(command)
        shown.press("Enter")
        screen = shown.until("tasks? [y/N]:")
        assert ids[-1][:8] in screen
        assert "asked 11" in screen
        assert "and " in screen
        shown.type("n")
        shown.press("Enter")
        shown.until("taskctl: nothing was done\ncode 130")
        for key in ("C-c", "C-d"):
            shown.type(command)
            shown.press("Enter")
            shown.until(lambda screen: screen.endswith("tasks? [y/N]:"))
            shown.press(key)
            shown.until(lambda screen: "\ntaskctl: nothing was done\ncode 130" in screen)
        assert not any(daemon.get(id).cancel_requested for id in ids)
        shown.type(command)
        shown.press("Enter")
        shown.until(lambda screen: screen.endswith("tasks? [y/N]:"))
        shown.type("y")
        shown.press("Enter")
        shown.until("code 0")
    assert all(daemon.get(id).cancel_requested for id in ids)


# What ls lists.

NO_FILTERS: Filters = {
    "states": (), "operations": (), "owner": None, "label": None, "since": None, "newer": None, "older": None,
}  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with these tasks and no others."""
    process = DaemonProcess(tmp_path)
    process.start()
    with process.connect() as daemon:
        yield daemon
    process.end()


def asks(daemon: Daemon, after: Callable[[], object] = lambda: None) -> Callable[[str, dict[str, JSON]], JSON]:
    """As ``Asking.ask``; ``after`` happens behind each reply."""

    def ask(method: str, params: dict[str, JSON]) -> JSON:
        said = daemon.call(method, **params)
        after()
        return said

    return ask


def test_a_task_that_ends_while_ls_asks_is_listed_once_and_as_it_was_last(own: Daemon) -> None:
    """It was told as running and as completed."""
    id = own.start("external").id
    found, cut = some(asks(own, lambda: own.get(id).ended or own.complete(id)), NO_FILTERS, everything=False)

    assert ([(record.id, record.state) for record in found], cut) == ([(id, "completed")], False)


def test_ls_finds_the_newest_of_those_that_are_old_enough(own: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest twenty were looked at, and of those, none was."""
    old = [own.complete(own.start("external").id) for _ in range(22)]
    while time.time() < old[-1].created_at + 0.002:
        own.ids()
    new = [own.complete(own.start("external").id) for _ in range(25)]
    monkeypatch.setattr(filters, "time", SimpleNamespace(time=lambda: new[0].created_at + 60))

    found, cut = some(asks(own), {**NO_FILTERS, "older": 60.0}, everything=False)
    assert ([record.id for record in found], cut) == ([record.id for record in old[:1:-1]], True)

    found, cut = some(asks(own), {**NO_FILTERS, "older": 60.0}, everything=True)
    assert ([record.id for record in found], cut) == ([record.id for record in old[::-1]], False)

    found, cut = some(asks(own), {**NO_FILTERS, "newer": 0.001}, everything=False)
    assert (found, cut) == ([], False)


def test_what_is_no_list_of_tasks_comes_from_no_daemon(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        ls = Taskctl(path).start("ls")
        stranger, _ = listening.accept()
        with stranger:
            stranger.recv(4096)
            stranger.sendall(b'{"jsonrpc": "2.0", "result": [], "id": 1}\n')
            said = ended(ls)

    sentence = f"taskctl: no taskd answers on {path}: what answers does not speak as taskd does\n"
    assert (said.code, said.out, said.err) == (5, "", sentence)
