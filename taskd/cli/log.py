"""``taskctl log``: what a task has said."""

from __future__ import annotations

import click

from taskd import client
from taskd.cli import options, say, words
from taskd.cli.exits import Exit
from taskd.cli.pick import pick


@click.command("log")
@options.id
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended; Ctrl-C leaves it alone.")
@options.as_json
@click.pass_obj
def command(socket: str, id: str, follow: bool, as_json: bool) -> Exit:
    """Print the log of a task; control characters are escaped, --json has the lines as they are."""
    if follow and as_json:
        raise click.UsageError("--follow has no end that a document could wait for; leave out --json")
    with client.connect(socket) as daemon:
        chosen = pick(daemon, id)
        if not follow:
            _print(daemon, chosen, as_json)
            return Exit.DONE
    from taskd.cli.watch import watch

    _, code = watch(socket, [chosen], lines=True, cancels=False)
    return code


def _print(daemon: client.Daemon, id: str, as_json: bool) -> None:
    lines: list[object] = []
    start = 0
    while True:
        page = daemon.call("Task.log", id=id, **{"from": start})
        assert isinstance(page, dict)
        if not page["lines"]:
            break
        if not as_json and (lost := page["lines"][0]["n"] - start) > 0:
            say.err(words.lost(lost))
        start = page["next"]
        if as_json:
            lines += page["lines"]
        else:
            for line in page["lines"]:
                say.out(words.logged(str(line["line"])))
    if as_json:
        say.out(words.document({"lines": lines, "next": start}))
