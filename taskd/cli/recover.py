"""``taskctl recover``: try again what a task owes, a failed undo or the finish after its commit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Unpack

import click

from taskd.cli import exits, options, say, words
from taskd.cli.exits import Exit
from taskd.cli.filters import Filters, filtered
from taskd.cli.meant import meant
from taskd.states import State

if TYPE_CHECKING:
    from taskd.client import Daemon, Record

# In which a task may owe something.
OWING: Final = (State.COMMITTED.value, State.FAILED.value)


@click.command("recover", short_help="Try again to undo, or to finish, what tasks still owe.")
@options.some_ids
@filtered
@options.yes
@options.as_json
@click.pass_obj
def command(socket: str, /, *, ids: Sequence[str], yes: bool, as_json: bool, **filters: Unpack[Filters]) -> Exit:
    """Try again, at once, to undo what failed tasks left behind, or to finish tasks after their commit.

    They are named by their ids, or are all that owe something and that filters let through.
    """
    from taskd.cli.each import each

    ids = meant(socket, "recover", ids, filters, OWING, yes=yes, fits=lambda record: bool(record.residue))
    records: list[Record] = []

    def recover(daemon: Daemon, id: str) -> None:
        records.append(daemon.recover(id))

    def tell(_: str) -> None:
        if not as_json:
            _tell(records[-1])

    _, code = each(socket, ids, recover, tell=tell, long=True)
    if as_json:
        say.out(words.document([record.raw for record in records]))
    return exits.worst([code, *(Exit.FAILED for record in records if record.residue)])


def _tell(record: Record) -> None:
    if record.residue:
        failed = "the undo failed again" if record.ended else "it is not finished yet"
        for line in (f"{words.name(record)}: {failed}", *words.residue(record)):
            say.err(line)
    elif record.state == State.COMPLETED:
        say.out(words.ending(record))
    elif not record.ended:
        say.out(f"{record.id} is {words.state(record)}")
    else:
        say.out(f"{record.id} left nothing behind any more")
