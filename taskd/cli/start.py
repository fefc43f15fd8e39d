"""``taskctl start``: start any operation, also one that a plugin brings."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Final

import click

from taskd.cli import begin, options
from taskd.cli.exits import Exit
from taskd.client import verbs
from taskd.model import JSON

# The operation that is done by somebody else: its end is not waited for.
EXTERNAL: Final = "external"


@click.command("start")
@click.argument("operation", type=options.named)
@click.argument("params", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--deadline", type=options.seconds, metavar="SECONDS", help="Fail unless it is committed by then.")
@options.label
@options.request_id
@options.no_wait
@options.as_json
@click.pass_obj
def command(
    socket: str,
    *,
    operation: str,
    params: Sequence[str],
    deadline: float | None,
    label: str | None,
    request_id: str | None,
    no_wait: bool,
    as_json: bool,
) -> Exit:
    """Start OPERATION with its params, and wait for it; Ctrl-C cancels.

    A VALUE that is JSON is taken as that (5, true, null, ["a", "b"]), any other as text; a text that looks like
    JSON is written with quotes ('"5"'). Paths must be absolute. `taskctl operations` lists what there is. An
    external task is not waited for: its id is printed at once, for whoever does the work.
    """
    call = verbs.start(operation, read(params), label=label, request_id=request_id, deadline_s=deadline)
    return begin.begin(socket, call, no_wait=no_wait or operation == EXTERNAL, as_json=as_json)


def read(given: Sequence[str]) -> dict[str, JSON]:
    """What the daemon is told.

    Raises:
        click.UsageError: one is no NAME=VALUE, or comes twice.
    """
    params: dict[str, JSON] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not name or not equals:
            raise click.UsageError(f"a param is NAME=VALUE, not {each!r}")
        if name in params:
            raise click.UsageError(f"{name} is given twice")
        params[name] = _value(text)
    return params


def _value(text: str) -> JSON:
    try:
        return json.loads(text, parse_constant=_number, parse_float=_number)
    except (ValueError, RecursionError):
        return text


def _number(text: str) -> float:
    """Python reads NaN, Infinity and 1e999 as numbers; JSON cannot say them."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
