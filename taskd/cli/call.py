"""``taskctl call``: any method of the daemon, as it is."""

from __future__ import annotations

import sys
from typing import Final

import click

from taskd.cli import options, say, values, words
from taskd.cli.asked import connected

# What is answered when something has happened.
LONG: Final = ("Task.wait", "Task.recover")


@click.command("call", short_help="Call any method of the daemon.")
@click.argument("method", type=options.named, shell_complete=options.completed("methods"))
@click.argument("given", default="{}", metavar="[JSON]")
@click.pass_obj
def command(socket: str, method: str, given: str) -> None:
    """Call METHOD with its params, one JSON object, and print the bare result as JSON.

    A - in the place of JSON reads it from stdin, in UTF-8. `taskctl call rpc.discover` describes all methods.
    """
    try:
        if given == "-":
            given = "" if sys.stdin is None else sys.stdin.buffer.read().decode()
        params = values.loads(given)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"the params are no JSON: {error}") from None
    except OSError as error:
        raise click.UsageError(f"stdin cannot be read: {error.strerror}") from None
    if not isinstance(params, dict):
        raise click.UsageError("""the params are no JSON object such as '{"id": "…"}'""")
    with connected(socket, long=method in LONG) as daemon:
        said = daemon.call(method, **params)
    say.out(words.document(said))
