"""``taskctl log``: what a task has said."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from taskd.cli import options, say, words
from taskd.cli.asked import connected
from taskd.cli.exits import Exit

if TYPE_CHECKING:
    from taskd.client import Daemon, Lines
    from taskd.model import LogLine


@click.command("log", short_help="Print the log of a task.")
@options.id
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended; Ctrl-C leaves it alone.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="Only the last N lines there are.")
@options.as_json
@click.pass_obj
def command(socket: str, *, id: str, follow: bool, lines: int | None, as_json: bool) -> Exit:
    """Print the log of a task; control characters are escaped, --json has the lines as they are."""
    from taskd.cli.pick import pick

    if follow and as_json:
        raise click.UsageError("--follow has no end that a document could wait for; leave out --json")
    with connected(socket) as daemon:
        chosen = pick(daemon, id)
        if follow:
            start = 0 if lines is None else max(0, tail(daemon, chosen, 0)[1] - lines)
        elif as_json:
            _document(daemon, chosen, lines)
            return Exit.DONE
        else:
            _print(daemon, chosen, lines)
            return Exit.DONE
    from taskd.cli.watch import watch

    _, code = watch(socket, [chosen], lines=True, cancels=False, after=start)
    return code


def pages(daemon: Daemon, id: str) -> Iterator[Lines]:
    """What is kept of a log, at most 1000 lines at a time."""
    start = 0
    while (page := daemon.log(id, start)).lines:
        yield page
        start = page.next


def tail(daemon: Daemon, id: str, count: int) -> tuple[list[LogLine], int]:
    """The last ``count`` lines of a log, and how many there ever were."""
    last: deque[LogLine] = deque(maxlen=count)
    said = 0
    for page in pages(daemon, id):
        last += page.lines
        said = page.next
    return [*last], said


def _print(daemon: Daemon, id: str, count: int | None) -> None:
    if count is not None:
        for line in tail(daemon, id, count)[0]:
            say.out(words.logged(line.line))
        return
    start = 0
    for page in pages(daemon, id):
        if (lost := page.lines[0].n - start) > 0:
            say.err(words.lost(lost))
        start = page.next
        say.out("\n".join(words.logged(line.line) for line in page.lines))


def _document(daemon: Daemon, id: str, count: int | None) -> None:
    lines: list[object] = []
    start = 0
    while True:
        page = daemon.call("Task.log", id=id, **{"from": start})
        assert isinstance(page, dict)
        if not page["lines"]:
            break
        lines += page["lines"]
        start = page["next"]
    kept = lines if count is None else lines[len(lines) - min(count, len(lines)) :]
    say.out(words.document({"lines": kept, "next": start}))
