"""``taskctl cancel``: ask for a cancel; the answer is the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import click

from taskd.cli import exits, options, say, words
from taskd.cli.asked import connected
from taskd.cli.exits import Exit
from taskd.cli.filters import Filters, filtered
from taskd.cli.meant import meant
from taskd.states import CANCELLABLE, State

if TYPE_CHECKING:
    from taskd.client import Record


@click.command("cancel", short_help="Cancel tasks.")
@options.some_ids
@filtered
@options.yes
@click.option("--wait", is_flag=True, help="Wait until they have ended; cancelled is then exit code 0.")
@options.as_json
@click.pass_obj
def command(
    socket: str, /, *, ids: Sequence[str], yes: bool, wait: bool, as_json: bool, **filters: Unpack[Filters]
) -> Exit:
    """Cancel tasks, named by their ids or all that filters let through.

    Refused where it is too late: the task is past its commit, or has ended. One that is cancelled already is
    what was asked for.
    """
    from taskd.cli.each import each

    among = [state.value for state in State if state in CANCELLABLE]
    ids = meant(socket, "cancel", ids, filters, among, yes=yes)

    def tell(id: str) -> None:
        if not wait and not as_json:
            say.out(f"{id} is being cancelled")

    granted, code = each(socket, ids, lambda daemon, task: daemon.cancel(task, must=True), tell=tell)
    records: Sequence[Record] = []
    if wait and granted:
        from taskd.cli.watch import watch

        records, waited = watch(socket, granted, silent=as_json, cancels=False)
        code = exits.worst([code, Exit.DONE if waited is Exit.CANCELLED else waited])
    elif as_json:
        with connected(socket) as daemon:
            records = [daemon.get(id) for id in granted]
    if as_json:
        say.out(words.document([record.raw for record in records]))
    return code
