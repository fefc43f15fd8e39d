"""Which tasks an act is for: those that are named, or all that filters let through, after a question before many.

What is asked about is what is acted on: a task that comes to fit meanwhile is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

from taskd.cli import filters, say
from taskd.cli.asked import asking
from taskd.cli.filters import Filters
from taskd.cli.ls import table

if TYPE_CHECKING:
    from taskd.client import Record

# How many of the tasks a question shows.
SHOWN: Final = 10


def meant(
    socket: str,
    what: str,
    ids: Sequence[str],
    given: Filters,
    among: Sequence[str],
    *,
    yes: bool,
    fits: Callable[[Record], bool] = lambda record: True,
) -> Sequence[str]:
    """The ids, or those of all tasks that fit and are in one of the states ``among``, newest first: so no queued
    task starts because one before it was cancelled. ``what`` is the verb that is asked about.

    Raises:
        click.UsageError: tasks are named in both ways, or in none; or there are many and nobody to ask.
        click.Abort: the answer was no.
        NoDaemon: nobody answers.
        Refused: the daemon does not list them.
    """
    if bool(ids) == filters.any_of(given):
        raise click.UsageError("name the tasks either by their ids or by filters such as --operation and --owner")
    if ids:
        return ids
    with asking(socket) as daemon:
        records = [*filter(fits, filters.listed(daemon.ask, given, among)[0])]
    if not records:
        say.err(f"no task that one could {what} fits")
    elif len(records) > 1 and not yes:
        _ask(what, records)
    return [record.id for record in records]


def _ask(what: str, records: Sequence[Record]) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(
            f"{len(records)} tasks fit, and there is no terminal to ask on; with --yes it is all of them"
        )
    more = len(records) - SHOWN
    lines = [*table(records[:SHOWN]), *([f"and {more} more"] if more > 0 else [])]
    say.complain("\n".join(lines) + "\n")
    try:
        yes = click.confirm(f"{what.capitalize()} these {len(records)} tasks?", err=True)
    except click.Abort:  # Ctrl-C, or the end of the input; the question's line is still open
        say.complain("\n")
        yes = False
    if not yes:
        say.err("nothing was done")
        raise click.Abort
