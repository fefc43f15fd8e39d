"""Which tasks are meant, where they are not named: the filters of ``Task.list``, and two more on their age.

Listing is newest first unless told otherwise, page by page; a cursor is the daemon's word for where a listing
goes on, so what is made meanwhile neither shifts nor repeats a page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

import click

from taskd.cli import options
from taskd.cli.asked import glance
from taskd.states import State

if TYPE_CHECKING:
    from taskd.client import Record
    from taskd.model import JSON

F = TypeVar("F", bound=Callable[..., Any])

UNFINISHED: Final = tuple(state.value for state in State if not state.ended)
ENDED: Final = tuple(state.value for state in State if state.ended)

# The most that the daemon puts on a page.
PAGE: Final = 1000


class Filters(TypedDict):
    """What was said of tasks; all of it must fit. ``newer`` and ``older``: seconds since it was made."""

    states: Sequence[str]
    operations: Sequence[str]
    owner: str | None
    label: str | None
    since: int | None
    newer: float | None
    older: float | None


OPTIONS: Final = (
    click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice([*UNFINISHED, *ENDED]),
        help="Only in this state; may be repeated.",
    ),
    click.option(
        "--operation",
        "operations",
        multiple=True,
        metavar="NAME",
        shell_complete=options.completed("operations"),
        help="Only of this operation; may be repeated.",
    ),
    click.option("--owner", metavar="USER", help="Only of this owner."),
    click.option("--label", metavar="TEXT", help="Only with exactly this label."),
    click.option(
        "--newer", type=options.span, metavar="TIME", help="Only made at most so long ago: 30d, 12h, 90m, 45s."
    ),
    click.option("--older", type=options.span, metavar="TIME", help="Only made longer ago than that."),
    click.option(
        "--since",
        type=click.IntRange(min=0),
        metavar="REVISION",
        help="Only unfinished, or changed after this revision.",
    ),
)


def filtered(command: F) -> F:
    """The options, as ``**filters`` of a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def any_of(filters: Filters) -> bool:
    """Whether anything was said."""
    return any(value not in ((), None) for value in filters.values())


def listed(
    ask: Callable[[str, dict[str, JSON]], JSON],
    filters: Filters,
    among: Sequence[str] = (*UNFINISHED, *ENDED),
    *,
    order: str = "newest",
    limit: int | None = None,
    cursor: str | None = None,
) -> tuple[list[Record], str | None]:
    """The tasks that fit, in one of the states ``among``; at most ``limit`` of those that the daemon lists, and
    then where to go on.

    Raises:
        Refused: the daemon does not list them.
        ConnectionError: what it answers is no list.
    """
    states = [state for state in among if not filters["states"] or state in filters["states"]]
    if not states:
        return [], None
    query = {
        "states": states,
        "operations": [*filters["operations"]] or None,
        "owner": filters["owner"],
        "label": filters["label"],
        "since": filters["since"],
        "order": order,
    }
    made = _made(filters)
    found: list[Record] = []
    left = limit
    while left is None or left > 0:
        page = ask("Task.list", {**query, "page_size": min(PAGE, left or PAGE), "cursor": cursor})
        match page:
            case {"tasks": [*tasks], "next_cursor": None | str() as cursor}:
                records = [glance(task) for task in tasks if isinstance(task, dict)]
            case _:
                raise ConnectionError("what answers does not speak as taskd does")
        found += filter(made, records)
        if cursor is None:
            break
        left = None if left is None else left - len(tasks)
    return found, cursor


def _made(filters: Filters) -> Callable[[Record], bool]:
    """Whether a task was made when it should have been."""
    now = time.time()
    first = -float("inf") if filters["newer"] is None else now - filters["newer"]
    last = float("inf") if filters["older"] is None else now - filters["older"]
    return lambda record: first <= record.created_at < last
