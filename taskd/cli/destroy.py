"""``taskctl destroy``: forget tasks that have ended."""

from __future__ import annotations

from collections.abc import Sequence

import click

from taskd.cli import options, say, words
from taskd.cli.each import each
from taskd.cli.exits import Exit


@click.command("destroy")
@options.ids
@click.option("--force", is_flag=True, help="Also where an undo left residue, which nothing remembers then.")
@options.as_json
@click.pass_obj
def command(socket: str, ids: Sequence[str], force: bool, as_json: bool) -> Exit:
    """Forget tasks that have ended, and their logs. With --json: the ids that were destroyed."""
    granted, code = each(socket, ids, lambda daemon, task: daemon.destroy(task, force=force))
    if as_json:
        say.out(words.document(granted))
    else:
        for id in granted:
            say.out(f"{id} is destroyed")
    return code
