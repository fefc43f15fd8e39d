"""``taskctl ls``: what is going on, and what has just ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

import click

from taskd import client
from taskd.cli import options, say, words
from taskd.client import Daemon, Record
from taskd.states import State

UNFINISHED: Final = tuple(state.value for state in State if not state.ended)
ENDED: Final = tuple(state.value for state in State if state.ended)

# How many of those that ended are listed without --all.
NEWEST: Final = 20

# The shortest start of an id that is shown.
SHORT: Final = 8

# The shortest a label becomes before other columns make room for it.
NARROW: Final = 16

# How many columns stay whatever the width.
KEPT: Final = 3

HEAD: Final = ("ID", "STATE", "DONE", "OPERATION", "OWNER", "CREATED", "LABEL")


@click.command("ls")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([*UNFINISHED, *ENDED]),
    help="Only in this state; may be repeated.",
)
@click.option(
    "--operation", "operations", multiple=True, metavar="NAME", help="Only of this operation; may be repeated."
)
@click.option("--owner", metavar="USER", help="Only of this owner.")
@click.option("--all", "everything", is_flag=True, help=f"All that ended, not just the newest {NEWEST}.")
@options.as_json
@click.pass_obj
def command(
    socket: str,
    *,
    states: Sequence[str],
    operations: Sequence[str],
    owner: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """List tasks, newest first: all unfinished ones, and the newest that ended."""
    with client.connect(socket) as daemon:
        filters = {"operations": operations or None, "owner": owner}
        unfinished = _listed(daemon, UNFINISHED, states, filters, None)
        ended = _listed(daemon, ENDED, states, filters, None if everything else NEWEST + 1)
    more = not everything and len(ended) > NEWEST
    records = sorted(unfinished + (ended[:NEWEST] if more else ended), key=lambda each: -each.seq)
    if as_json:
        say.out(words.document([record.raw for record in records]))
        return
    if records:
        _print(records)
    if more:
        say.err(f"only the newest {NEWEST} that ended are listed; --all lists every one")


def _listed(
    daemon: Daemon, group: Sequence[str], states: Sequence[str], filters: Mapping[str, object], limit: int | None
) -> list[Record]:
    wanted = [state for state in group if not states or state in states]
    if not wanted:
        return []
    size = 1000 if limit is None else limit
    return list(islice(daemon.list(states=wanted, page_size=size, **filters), limit))


def _print(records: Sequence[Record]) -> None:
    short = len({record.id[:SHORT] for record in records}) == len(records)
    rows = [
        (
            record.id[:SHORT] if short else record.id,
            words.state(record),
            words.percent(record.progress.fraction),
            words.printable(record.operation),
            words.printable(record.owner),
            words.moment(record.created_at, seconds=False),
            words.name(record),
        )
        for record in records
    ]
    head, *lines = words.columns(fitted([HEAD, *rows], say.width()))
    say.out(head)
    for record, line in zip(records, lines, strict=True):
        state = words.state(record)
        say.out(line.replace(state, say.coloured(record.state, state), 1))


def fitted(rows: Sequence[Sequence[str]], width: int | None) -> Sequence[Sequence[str]]:
    """The rows in so many characters, None for as many as there are.

    The label, the last one, gives way first, in its middle: there a copy's target is still seen. Then columns
    vanish, the last before the label first; then the label. Id, state and how far it is stay.
    """
    if width is None:
        return rows
    *rest, labels = ([*column] for column in zip(*rows, strict=True))
    longest = max(map(len, labels))
    while (room := width - sum(max(map(len, column)) + 2 for column in rest)) < min(longest, NARROW):
        if len(rest) == KEPT:
            return [*zip(*rest, strict=True)]
        rest.pop()
    return [*zip(*rest, [words.middle(label, room) for label in labels], strict=True)]
