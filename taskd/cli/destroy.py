"""``taskctl destroy``: forget tasks that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import click

from taskd.cli import options, say, words
from taskd.cli.exits import Exit
from taskd.cli.filters import ENDED, Filters, filtered
from taskd.cli.meant import meant


@click.command("destroy", short_help="Forget tasks that have ended, and their logs.")
@options.some_ids
@filtered
@options.yes
@click.option("--force", is_flag=True, help="Also where an undo left residue, which nothing remembers then.")
@options.as_json
@click.pass_obj
def command(
    socket: str, /, *, ids: Sequence[str], yes: bool, force: bool, as_json: bool, **filters: Unpack[Filters]
) -> Exit:
    """Forget tasks that have ended, and their logs: named by their ids, or all that filters let through.

    With --json: the ids that were destroyed.
    """
    from taskd.cli.each import each

    ids = meant(socket, "destroy", ids, filters, ENDED, yes=yes)

    def tell(id: str) -> None:
        if not as_json:
            say.out(f"{id} is destroyed")

    # By force it waits for the try of a finish that is under way, which a disk may hold up.
    granted, code = each(
        socket, ids, lambda daemon, task: daemon.destroy(task, force=force), tell=tell, long=force
    )
    if as_json:
        say.out(words.document(granted))
    return code
