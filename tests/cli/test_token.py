"""``taskctl token``, to the letter."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import click
import pytest

from taskd.cli import options
from taskd.client import Daemon
from tests.cli.conftest import Taskctl, masked

HELD = r"taskd_([0-9a-f]{8})_[A-Za-z0-9_-]{43}"


@pytest.fixture(autouse=True)
def _no_tokens(daemon: Daemon) -> Iterator[None]:
    """The daemon is the module's; what one test makes, the next does not see."""
    yield
    for each in daemon.tokens():
        daemon.remove_token(each.id)


def test_add_prints_the_token_and_nothing_else_and_tells_about_it_on_stderr(
    taskctl: Taskctl, daemon: Daemon
) -> None:
    said = taskctl("token", "add", "--user", "ann", "--role", "user", "--role", "service")

    held = re.fullmatch(HELD + "\n", said.out)
    assert held is not None
    assert said.code == 0
    assert said.err == (
        f"taskctl: token {held[1]} is for ann (service, user), until it is removed; it is not shown again\n"
    )
    (token,) = daemon.tokens()
    assert (token.id, token.user, token.roles, token.expires_at) == (held[1], "ann", ("service", "user"), None)


@pytest.mark.parametrize(
    ("expires", "seconds"), [("30d", 2592000), ("12h", 43200), ("90m", 5400), ("45s", 45), ("3600", 3600)]
)
def test_add_takes_a_length_of_time(taskctl: Taskctl, daemon: Daemon, expires: str, seconds: float) -> None:
    said = taskctl("token", "add", "--user", "ann", "--role", "user", "--expires", expires)

    (token,) = daemon.tokens()
    assert token.expires_at == pytest.approx(token.created_at + seconds)
    assert masked(said.err) == (
        f"taskctl: token {token.id} is for ann (user), until <-time->-----------; it is not shown again\n"
    )


@pytest.mark.parametrize("text", ["", "0", "-1", "1w", "5 m", "d", "1e3", "inf", "nan", "5M", "٣"])
def test_what_is_no_length_of_time_is_wrong(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no length of time such as 30d, 12h, 90m, 45s or 3600"):
        options.span(text)


def test_json_has_the_whole_reply_and_is_all_that_is_said(taskctl: Taskctl, daemon: Daemon) -> None:
    added = taskctl("token", "add", "--user", "ann", "--role", "admin", "--expires", "1h", "--json")
    reply = json.loads(added.out)

    assert (added.code, added.err) == (0, "")
    assert re.fullmatch(HELD, reply["token"])
    assert set(reply) == {"id", "user", "roles", "created_at", "expires_at", "token"}
    del reply["token"]
    listed = taskctl("token", "ls", "--json")
    assert json.loads(listed.out) == [reply] == daemon.call("Token.ls")
    removed = taskctl("token", "rm", reply["id"], "--json")
    assert (removed.code, json.loads(removed.out), removed.err) == (0, [reply["id"]], "")


def test_ls_lists_the_oldest_first_and_marks_those_whose_time_is_over(taskctl: Taskctl, daemon: Daemon) -> None:
    assert taskctl("token", "ls").out == ""
    daemon.add_token("ann", ["service", "user"])
    over = daemon.add_token("größe", ["user"], expires_s=0.001)
    daemon.add_token("bob", ["admin"], expires_s=1e6)
    assert over.expires_at is not None
    while time.time() <= over.expires_at:
        pass

    said = taskctl("token", "ls")

    assert (said.code, said.err) == (0, "")
    assert masked(said.out) == (
        "ID        USER   ROLES         CREATED           EXPIRES\n"
        "<-id8->  ann    service,user  <-time->--------  -\n"
        "<-id8->  größe  user          <-time->--------  <-time->-------- (over)\n"
        "<-id8->  bob    admin         <-time->--------  <-time->--------\n"
    )


def test_rm_removes_several_and_one_that_is_not_there_does_not_keep_it_from_the_others(
    taskctl: Taskctl, daemon: Daemon
) -> None:
    first, second, third = (daemon.add_token("ann", ["user"]).id for _ in range(3))

    said = taskctl("token", "rm", first, "00000000", third)

    assert said.code == 4
    assert said.out == f"token {first} is removed\ntoken {third} is removed\n"
    assert said.err == "taskctl: there is no token 00000000\n"
    assert [each.id for each in daemon.tokens()] == [second]


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (
            ["add", "--user", "a:b", "--role", "user"],
            4,
            "--user: must be a name without colons and control characters",
        ),
        (
            ["add", "--user", "ann", "--role", "user", "--expires", "99999d"],
            4,
            "--expires: must be more than 0 and at most 3155760000 seconds",
        ),
    ],
)
def test_a_refusal_names_the_option(taskctl: Taskctl, args: list[str], code: int, sentence: str) -> None:
    said = taskctl("token", *args)

    assert (said.code, said.out, said.err) == (code, "", f"taskctl: {sentence}\n")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["add", "--user", "ann"], "Missing option '--role'"),
        (["add", "--role", "user"], "Missing option '--user'"),
        (["add", "--user", "ann", "--role", "root"], "'root' is not one of 'admin', 'service', 'user'"),
        (["add", "--user", "", "--role", "user"], "it is empty"),
        (["add", "--user", "ann", "--role", "user", "--expires", "soon"], "'soon' is no length of time"),
        (["rm"], "Missing argument 'ID...'"),
        (["show"], "No such command 'show'"),
    ],
)
def test_a_wrong_command_line_asks_nothing(
    taskctl: Taskctl, daemon: Daemon, args: list[str], sentence: str
) -> None:
    said = taskctl("token", *args)

    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert daemon.tokens() == ()
