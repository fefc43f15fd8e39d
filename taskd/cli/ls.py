"""``taskctl ls``: what is going on, and what has just ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Unpack

import click

from taskd.cli import options, say, words
from taskd.cli.asked import asking
from taskd.cli.filters import ENDED, PAGE, UNFINISHED, Filters, filtered, listed

if TYPE_CHECKING:
    from taskd.client import Record
    from taskd.model import JSON

# How many of those that ended are listed without --all.
NEWEST: Final = 20

# The shortest start of an id that is shown.
SHORT: Final = 8

# The shortest that a column becomes: the label before other columns make room for it.
NARROW: Final = 16

# How many columns stay whatever the width.
KEPT: Final = 3


def _took(record: Record) -> str:
    if record.started_at is None:
        return "-"
    return words.duration((record.finished_at or time.time()) - record.started_at)


def _left(record: Record) -> str:
    return "-" if record.ended or record.progress.eta_s is None else words.duration(record.progress.eta_s)


def _error(record: Record) -> str:
    if record.error is None:
        return "-"
    return words.printable(f"{record.error.code}: {record.error.message}")


# What a column says of a task; its head is its name.
COLUMNS: Final[Mapping[str, Callable[[Record], str]]] = {
    "id": lambda record: words.printable(record.id),
    "state": words.state,
    "done": lambda record: words.percent(record.progress.fraction),
    "operation": lambda record: words.printable(record.operation),
    "owner": lambda record: words.printable(record.owner),
    "created": lambda record: words.moment(record.created_at, seconds=False),
    "label": words.name,
    "started": lambda record: words.moment(record.started_at, seconds=False),
    "ended": lambda record: words.moment(record.finished_at, seconds=False),
    "took": _took,
    "progress": lambda record: words.progress(record.progress) or "-",
    "rate": lambda record: "-" if record.ended else words.rate(record.progress) or "-",
    "left": _left,
    "status": lambda record: words.printable(record.status or "-"),
    "waits": lambda record: words.printable(record.waits_for or "-"),
    "error": _error,
    "attempt": lambda record: str(record.attempt),
    "revision": lambda record: str(record.revision),
    "processor": lambda record: words.printable(record.processor),
    "host": lambda record: words.printable(record.resident_on),
}

LIKED: Final = ("id", "state", "done", "operation", "owner", "created", "label")


def _chosen(ctx: click.Context, param: click.Parameter, given: str | None) -> Sequence[str] | None:
    if given is None:
        return None
    names = [name.strip().lower() for name in given.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise click.BadParameter(f"there is no column {name!r}; there are: {', '.join(COLUMNS)}")
    return names


@click.command("ls", short_help="List tasks, newest first.")
@filtered
@click.option("--all", "everything", is_flag=True, help=f"All that ended, not just the newest {NEWEST}.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N, whatever their state.")
@click.option("--cursor", metavar="CURSOR", help="With --limit: go on there; the page before said where.")
@click.option(
    "--order", type=click.Choice(["newest", "oldest"]), default="newest", help="Which come first; else the newest."
)
@click.option(
    "--columns",
    metavar="NAME,...",
    callback=_chosen,
    shell_complete=options.completed("columns"),
    help=f"Of {', '.join(COLUMNS)}.",
)
@options.as_json
@click.pass_obj
def command(
    socket: str,
    /,
    *,
    everything: bool,
    limit: int | None,
    cursor: str | None,
    order: str,
    columns: Sequence[str] | None,
    as_json: bool,
    **filters: Unpack[Filters],
) -> None:
    """List tasks, newest first: all unfinished ones, and the newest that ended."""
    if limit is not None and everything:
        raise click.UsageError("--all and --limit exclude each other")
    if cursor is not None and limit is None:
        raise click.UsageError("--cursor goes with --limit")
    more, cut = None, False
    with asking(socket) as daemon:
        if limit is not None:
            records, more = listed(daemon.ask, filters, order=order, limit=limit, cursor=cursor)
        else:
            found, cut = some(daemon.ask, filters, everything=everything)
            records = sorted(found, key=lambda each: each.seq, reverse=order == "newest")
    if as_json:
        say.out(words.document([record.raw for record in records]))
    elif records:
        say.out("\n".join(table(records, columns)))
    if more is not None:
        say.err(f"there are more; --cursor {more} goes on there")
    elif cut and not as_json:
        say.err(f"only the newest {NEWEST} that ended are listed; --all lists every one")


def some(
    ask: Callable[[str, dict[str, JSON]], JSON], filters: Filters, *, everything: bool
) -> tuple[Sequence[Record], bool]:
    """The unfinished tasks that fit, and those that ended, only the newest unless ``everything``; and whether
    there may be more.

    Raises:
        Refused, ConnectionError: as ``filters.listed``.
    """
    unfinished, _ = listed(ask, filters, UNFINISHED)
    ended, cut = (listed(ask, filters, ENDED)[0], False) if everything else _newest(ask, filters)
    # One that ended meanwhile is in both.
    return [*{record.id: record for record in (*unfinished, *ended)}.values()], cut


def _newest(ask: Callable[[str, dict[str, JSON]], JSON], filters: Filters) -> tuple[Sequence[Record], bool]:
    """The newest that ended. Of its age the daemon knows nothing: it is asked for more until there are enough."""
    aged = filters["newer"] is not None or filters["older"] is not None
    found: list[Record] = []
    cursor: str | None = None
    while True:
        page, cursor = listed(ask, filters, ENDED, limit=PAGE if aged else NEWEST, cursor=cursor)
        found += page
        # Behind a page on which none is new enough, none is.
        if len(found) >= NEWEST or cursor is None or not (page or filters["older"]):
            return found[:NEWEST], len(found) > NEWEST or (len(found) == NEWEST and cursor is not None)


def table(records: Sequence[Record], columns: Sequence[str] | None = None) -> list[str]:
    """Records, at least one, as lines; ``columns`` that somebody chose all stay, whatever the width."""
    names = LIKED if columns is None else columns
    rows = [[COLUMNS[name](record) for name in names] for record in records]
    if "id" in names:
        at = names.index("id")
        if len({row[at][:SHORT] for row in rows}) == len(rows):
            for row in rows:
                row[at] = row[at][:SHORT]
    rows = [[name.upper() for name in names], *rows]
    rows = fitted(rows, say.width()) if columns is None else squeezed(rows, say.width())
    head, *lines = words.padded(rows)
    if "state" in names:
        at = names.index("state")
        for record, cells in zip(records, lines, strict=True):
            state = cells[at].rstrip()
            cells[at] = say.coloured(record.state, state) + cells[at][len(state) :]
    return ["  ".join(cells).rstrip() for cells in (head, *lines)]


def fitted(rows: Sequence[Sequence[str]], width: int | None) -> list[list[str]]:
    """The rows in so many cells, None for as many as there are.

    The label, the last one, gives way first, in its middle: there a copy's target is still seen. Then columns
    vanish, the last before the label first; then the label. Id, state and how far it is stay.
    """
    if width is None:
        return [[*row] for row in rows]
    *rest, labels = ([*column] for column in zip(*rows, strict=True))
    longest = max(map(words.cells, labels))
    while (room := width - sum(max(map(words.cells, column)) + 2 for column in rest)) < min(longest, NARROW):
        if len(rest) == KEPT:
            return [[*row] for row in zip(*rest, strict=True)]
        rest.pop()
    return [[*row] for row in zip(*rest, [words.middle(label, room) for label in labels], strict=True)]


def squeezed(rows: Sequence[Sequence[str]], width: int | None) -> list[list[str]]:
    """The rows, with columns that somebody chose: none vanishes, but the widest ones give way in their middle, as
    long as that leaves them ``NARROW``.
    """
    widths = [max(map(words.cells, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        while sum(widths) + 2 * len(widths) - 2 > width and max(widths) > NARROW:
            widths[widths.index(max(widths))] -= 1
    return [[words.middle(text, room) for text, room in zip(row, widths, strict=True)] for row in rows]
