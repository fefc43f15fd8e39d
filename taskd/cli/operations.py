"""``taskctl operations``: what can be started, and with which params."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from taskd import client
from taskd.cli import options, say, words
from taskd.client import Offer
from taskd.model import JSON


@click.command("operations")
@options.as_json
@click.pass_obj
def command(socket: str, as_json: bool) -> None:
    """List the operations that this daemon can run; a star marks a param that must be given."""
    with client.connect(socket) as daemon:
        if as_json:
            say.out(words.document(daemon.call("Operation.ls")))
            return
        offers = daemon.operations()
    say.out("\n".join(line for offer in offers for line in _lines(offer)))


def _lines(offer: Offer) -> Iterator[str]:
    yield f"{words.printable(offer.name)}: {words.printable(offer.summary)}"
    properties, required = offer.params.get("properties"), offer.params.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return
    rows = [
        (
            f"  {words.printable(name)}{'*' if name in required else ''}",
            _kind(schema),
            words.printable(str(schema.get("description", ""))),
        )
        for name, schema in properties.items()
    ]
    if rows:
        yield from words.columns(rows)


def _kind(schema: Mapping[str, JSON]) -> str:
    """The type of a param in a word or two, with its default where it says something."""
    options = schema.get("anyOf")
    kinds = (
        [str(each.get("type", "any")) for each in options if each.get("type") != "null"]
        if isinstance(options, list)
        else []
    )
    kind = " or ".join(kinds) or str(schema.get("type", "any"))
    default = schema.get("default")
    return words.printable(kind) if default is None else f"{words.printable(kind)} = {words.value(default)}"
