"""The plain form: what there is, once, as a table or as JSON; nothing on it moves."""

from __future__ import annotations

import time

import trio

from taskd.asking import PATIENCE_S
from taskd.cli import say, words
from taskd.cli.exits import Exit
from taskd.cli.top import row
from taskd.cli.top.cells import Layout, Line
from taskd.cli.top.news import news
from taskd.cli.top.view import View
from taskd.errors import NoDaemon

# Columns where there is no terminal to say how many; enough for all there is to tell.
WIDTH = 160


async def once(view: View, path: str, as_json: bool) -> Exit:
    """Print the tasks that have not ended.

    Raises:
        NoDaemon: nobody answers, or not in time.
        Refused: the daemon's no.
    """
    try:
        with trio.fail_after(PATIENCE_S):
            async with news(path, view, patience_s=0) as told:
                await told.run(once=True)
    except trio.TooSlowError:
        raise NoDaemon(path, f"no reply within {PATIENCE_S:g} seconds") from None
    records = view.tasks.rows(0, len(view.tasks))
    if as_json:
        say.out(words.document([record.raw for record in records]))
        return Exit.DONE
    counts = view.tasks.counts
    said = ", ".join(
        f"{counts[state]} {state}" for state in sorted(counts, key=list(counts).index) if counts[state]
    )
    say.out(f"{view.about}: {said or 'no task is unfinished'}")
    if records:
        layout, now = Layout.of(say.width() or WIDTH), time.time()
        say.out("\n".join([text(layout.heading("")), *(text(row.line(each, layout, now)) for each in records)]))
    return Exit.DONE


def text(line: Line) -> str:
    """A line without styles, and without the mark that its first cell is for."""
    return "".join(cell.text for cell in line[1:]).rstrip()
