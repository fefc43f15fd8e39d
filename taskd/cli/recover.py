"""``taskctl recover``: try again what a task owes, a failed undo or the finish after its commit."""

from __future__ import annotations

import click

from taskd import client
from taskd.cli import options, say, words
from taskd.cli.exits import Exit
from taskd.cli.pick import pick
from taskd.states import State


@click.command("recover")
@options.id
@options.as_json
@click.pass_obj
def command(socket: str, id: str, as_json: bool) -> Exit:
    """Try again, at once, to undo what a failed task left behind, or to finish a task after its commit."""
    with client.connect(socket) as daemon:
        record = daemon.recover(pick(daemon, id))
    if as_json:
        say.out(words.document(record.raw))
    elif record.residue:
        failed = "the undo failed again" if record.ended else "it is not finished yet"
        for line in (f"{words.name(record)}: {failed}", *words.residue(record)):
            say.err(line)
    elif record.state == State.COMPLETED:
        say.out(words.ending(record))
    elif not record.ended:
        say.out(f"{record.id} is {words.state(record)}")
    else:
        say.out(f"{record.id} left nothing behind any more")
    return Exit.FAILED if record.residue else Exit.DONE
