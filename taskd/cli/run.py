"""``taskctl run``: run a program as a task; a failure or a cancel runs its undo."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from taskd.cli import options
from taskd.cli.exits import Exit

if TYPE_CHECKING:
    from taskd.model import JSON


@click.command("run", short_help="Run a program as a task.", context_settings={"ignore_unknown_options": True})
@click.option(
    "--cwd",
    type=options.named,
    metavar="DIR",
    shell_complete=options.completed("files"),
    help="Its working folder; / unless told.",
)
@click.option(
    "--env",
    "env",
    multiple=True,
    metavar="NAME=VALUE",
    help="Added to its small, clean environment; may be repeated.",
)
@click.option(
    "--undo",
    metavar="COMMAND",
    help="What undoes it where it does not complete; split into words as a shell would, run without one.",
)
@click.option(
    "--grace",
    type=options.seconds,
    metavar="SECONDS",
    help="From SIGTERM to SIGKILL when it is cancelled.",
)
@options.label
@options.request_id
@options.no_wait
@options.as_json
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, shell_complete=options.completed("files"))
@click.pass_obj
def command(
    socket: str,
    *,
    cwd: str | None,
    env: Sequence[str],
    undo: str | None,
    grace: float | None,
    label: str | None,
    request_id: str | None,
    no_wait: bool,
    as_json: bool,
    argv: Sequence[str],
) -> Exit:
    """Run the program ARGV in the daemon, without a shell, and wait for it; what it prints is printed here.

    Write -- before ARGV. Ctrl-C cancels: the program and all its children end, then the undo runs.

    The daemon keeps the newest lines that a program prints (its setting log_lines). Where they come faster than
    they can be read here, older ones are missing and stderr says how many; the exit code is the task's all the
    same.
    """
    from taskd.cli.begin import begin
    from taskd.client import verbs

    params: dict[str, JSON] = {"argv": _program(argv), "env": _environment(env)}
    if cwd is not None:
        params["cwd"] = options.absolute(cwd)
    if undo is not None:
        params["undo_argv"] = _program(_words(undo))
    if grace is not None:
        params["grace_s"] = grace
    call = verbs.start("command", params, label=label, request_id=request_id)
    return begin(socket, call, no_wait=no_wait, as_json=as_json, lines=True)


def _program(argv: Sequence[str]) -> list[str]:
    """A program that is named by a path is meant from here."""
    first, *rest = argv
    if not first:
        raise click.UsageError("the name of the program is empty")
    return [options.absolute(first) if os.sep in first else first, *rest]


def _environment(given: Sequence[str]) -> Mapping[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.UsageError(f"--env wants NAME=VALUE, not {name!r}")
    return {name: text for name, _, text in pairs}


def _words(command: str) -> list[str]:
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--undo: {error}") from None
    if not argv:
        raise click.UsageError("--undo names no program")
    return argv
