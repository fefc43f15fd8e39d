"""``taskctl wait``: until tasks have ended."""

from __future__ import annotations

from collections.abc import Sequence

import click

from taskd.cli import options, say, words
from taskd.cli.asked import connected
from taskd.cli.exits import Exit


@click.command("wait", short_help="Wait until tasks have ended.")
@options.ids
@options.as_json
@click.pass_obj
def command(socket: str, ids: Sequence[str], as_json: bool) -> Exit:
    """Wait until the tasks have ended. Ctrl-C cancels them, a second one leaves them alone."""
    from taskd.cli.pick import pick
    from taskd.cli.watch import watch

    with connected(socket) as daemon:
        chosen = [pick(daemon, id) for id in ids]
    records, code = watch(socket, chosen, silent=as_json)
    if as_json:
        say.out(words.document([record.raw for record in records]))
    return code
