"""Acts on all tasks that filters let through: what they are, and the question before many."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskd.client import Daemon, Record
from tests.cli.conftest import Taskctl
from tests.cli.tmux import terminal

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
