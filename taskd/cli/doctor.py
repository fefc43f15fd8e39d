"""``taskctl doctor``: what is wrong with the daemon, or with its place on this machine, and what to do about it.

It works with a daemon and without, as root and as any user; whoever may see less is told less. Nothing is changed,
but that a daemon whose socket systemd keeps is started by being asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EACCES
from itertools import islice
from typing import Final

import attrs
import click

from taskd import __version__, client
from taskd.cli import checks, options, say, words
from taskd.cli.checks import Finding
from taskd.cli.exits import Exit
from taskd.client import Daemon
from taskd.errors import NoDaemon, Refused
from taskd.states import State

# Seconds that each call waits for its answer.
PATIENCE: Final = 10.0

# How many of the newest tasks are searched for those that owe something, and how many of these are named.
SEARCHED: Final = 10_000
NAMED: Final = 3

COLOURS: Final = {"ok": State.COMPLETED, "warning": State.UNDOING, "problem": State.FAILED}


@click.command("doctor", short_help="Look for what is wrong, and say what to do about it.")
@click.option("--prefix", type=options.named, metavar="DIR", help="Look for the units below DIR.")
@options.as_json
@click.pass_obj
def command(socket: str, *, prefix: str | None, as_json: bool) -> Exit:
    """Look for what is wrong, and say what to do about it; changes nothing.

    One line for each finding: ok, warning or problem. With --json: a list of {check, level, found, advice}.
    """
    found = list(findings(socket, prefix))
    if as_json:
        say.out(words.document([attrs.asdict(each) for each in found]))
    else:
        for each in found:
            advice = f" -> {each.advice}" if each.advice else ""
            level = say.coloured(COLOURS[each.level], f"{each.level:7}")
            say.out(f"{level}  {each.check:11}  {words.printable(each.found + advice)}")
    return Exit.UNHEALTHY if any(each.level == "problem" for each in found) else Exit.DONE


def findings(socket: str, prefix: str | None) -> Iterator[Finding]:
    """Everything, from the outside in; a daemon that does not answer is asked once."""
    yield from checks.socket(socket)
    told = list(_asked(socket))
    yield from told
    settings, finding = checks.settings(socket)
    yield finding
    if settings is not None:
        yield from checks.state(settings.state, answers=told[0].level == "ok")
    try:
        yield from checks.installed(prefix)
    except OSError as error:
        yield Finding("units", "warning", f"{error.filename}: {error.strerror}", "ask as root to know more")


def _asked(socket: str) -> Iterator[Finding]:
    """What the daemon says of itself; first, whether it says anything."""
    try:
        with client.connect(socket, PATIENCE) as daemon:
            query = daemon.call("Plugin.query")
            yield Finding("daemon", "ok", "it answers")
            yield _version(query)
            yield _rights(daemon)
            yield from _health(daemon)
    except NoDaemon as error:
        advice = "systemctl start taskd.socket where it is a unit, else start taskd; its log says why it ended"
        if error.reason == os.strerror(EACCES):
            advice = "ask as root, or as a user who may connect"
        yield Finding("daemon", "problem", str(error), advice)
    except TimeoutError as error:
        yield Finding("daemon", "problem", str(error), "it is stuck: look at its log, restart it")
    except Refused as error:
        advice = "ask as another user" if error.error == "Unauthenticated" else "see the settings and the log"
        yield Finding("daemon", "problem", f"it refuses: {error}", advice)


def _version(query: object) -> Finding:
    theirs = str(query.get("version")) if isinstance(query, dict) else "unknown"
    if theirs == __version__:
        return Finding("version", "ok", f"taskctl and taskd are {__version__}")
    advice = "restart the daemon after an upgrade: systemctl restart taskd.service; tasks are recovered"
    return Finding("version", "warning", f"taskctl is {__version__}, the daemon is {theirs}", advice)


def _rights(daemon: Daemon) -> Finding:
    try:
        daemon.tokens()
    except Refused:
        return Finding("permissions", "ok", "this user may connect, and sees the tasks that are its own")
    return Finding("permissions", "ok", "this user may connect, and is an admin")


def _health(daemon: Daemon) -> Iterator[Finding]:
    lines = str(daemon.call("Plugin.diagnostics")).splitlines()
    if "store not writable" in lines:
        advice = "look at the log and at the state folder, and make room there: no new task is taken until it can"
        yield Finding("store", "problem", "it cannot write", advice)
    else:
        yield Finding("store", "ok", "it can write")
    if "recovery running" in lines:
        advice = "new work waits until what a crash left is undone; look again, then at the log"
        yield Finding("recovery", "warning", "it is going on", advice)
    owing = [line.split()[1] for line in lines if line.startswith("taskd_tasks_with_residue ")]
    yield _residue(daemon, int(float(owing[0]))) if owing else Finding("residue", "ok", "no task owes an undo")


def _residue(daemon: Daemon, count: int) -> Finding:
    records = daemon.list(states=[State.COMMITTED, State.FAILED], page_size=1000)
    owing = [record.id for record in islice(records, SEARCHED) if record.residue]
    said = f"{count} task{'s' * (count != 1)} owe{'s' * (count == 1)} an undo or a finish that failed"
    if not owing:
        return Finding("residue", "warning", said, "none is to be seen by this user: ask an admin")
    named = ", ".join(owing[:NAMED]) + (" and others" if len(owing) > NAMED else "")
    advice = "remove what is in the way (taskctl show ID tells), then taskctl recover ID"
    return Finding("residue", "problem", f"{said}: {named}", advice)
