"""``taskctl top``: all tasks, live on the whole screen; where that cannot be, a table.

``tasks`` has what is known, ``row`` and ``cells`` make lines of it, ``view`` is what is seen, ``keys`` what is
pressed: all sans-IO. ``news`` brings what the daemon tells, ``screen`` is the terminal, ``live`` joins them.
"""

from __future__ import annotations

import sys
from typing import Final

import click

from taskd.cli import options, say
from taskd.cli.exits import Exit

ORDERS: Final = ("state", "progress", "rate", "left", "age", "label", "owner", "operation")


@click.command("top")
@click.option("--once", is_flag=True, help="Print one table and end; so it is, too, where there is no terminal.")
@click.option("--sort", type=click.Choice(ORDERS), default="state", help="By what they are sorted at first.")
@click.option("--filter", metavar="WORDS", default="", help="Only those with these words; see the key h.")
@options.as_json
@click.pass_obj
def command(socket: str, *, once: bool, sort: str, filter: str, as_json: bool) -> Exit:
    """Watch all tasks live: bars, rates, time left. Keys sort, filter, show one task and cancel; h tells them.

    First come the running tasks, then the queued ones, then those that ended within the last minute.
    """
    # Late: other commands do without.
    import time

    import trio

    from taskd.cli.top.live import live
    from taskd.cli.top.plain import once as printed
    from taskd.cli.top.sorts import SORTS
    from taskd.cli.top.tasks import Tasks
    from taskd.cli.top.view import View

    chosen = next(each for each in SORTS if each.name == sort)
    view = View(Tasks(time.time(), chosen, filter=filter), about="taskd")
    keyboard = sys.stdin is not None and sys.stdin.isatty()
    if once or as_json or not (keyboard and say.live()):
        return trio.run(printed, view, socket, as_json)
    return trio.run(live, view, socket)
