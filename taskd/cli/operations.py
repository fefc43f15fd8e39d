"""``taskctl operations``: what can be started, and with which params."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from taskd.cli import options, say, words
from taskd.cli.asked import connected

if TYPE_CHECKING:
    from taskd.client import Offer
    from taskd.model import JSON

# The least room for a description beside its param, in characters; where there is less, it goes below.
NARROW: Final = 30


@click.command("operations", short_help="List what can be started, and its params.")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=options.completed("operations"))
@options.as_json
@click.pass_obj
def command(socket: str, names: Sequence[str], as_json: bool) -> None:
    """List the operations that this daemon can run; a star marks a param that must be given."""
    from taskd.errors import BadParams

    with connected(socket) as daemon:
        offers = daemon.operations()
        told = daemon.call("Operation.ls") if as_json else []
    known = [offer.name for offer in offers]
    for name in names:
        if name not in known:
            raise BadParams("NAME", f"there is no operation {name!r}; there are: {', '.join(known)}")
    if as_json:
        assert isinstance(told, list)
        say.out(words.document([each for each in told if not names or each["name"] in names]))
        return
    pages = ["\n".join(lines(offer, say.width())) for offer in offers if not names or offer.name in names]
    say.out("\n\n".join(pages))


def lines(offer: Offer, width: int | None) -> Iterator[str]:
    """An operation and its params in so many characters, None for as many as there are."""
    yield from _wrapped(f"{words.printable(offer.name)}: {words.printable(offer.summary)}", "", "  ", width)
    properties, required = offer.params.get("properties"), offer.params.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list) or not properties:
        return
    heads = words.padded(
        [
            (f"  {words.printable(name)}{'*' if name in required else ''}", kind(schema))
            for name, schema in properties.items()
        ]
    )
    for head, schema in zip(map("  ".join, heads), properties.values(), strict=True):
        doc = words.printable(str(schema.get("description", "")))
        if width is None or width - len(head) - 2 >= NARROW:
            yield from _wrapped(doc, head + "  ", " " * (len(head) + 2), width)
        else:
            yield head.rstrip()
            yield from _wrapped(doc, " " * 6, " " * 6, width)


def _wrapped(text: str, first: str, others: str, width: int | None) -> list[str]:
    if width is None:
        return [(first + text).rstrip()]
    return textwrap.wrap(
        text or " ", width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False
    ) or [first.rstrip()]


def kind(schema: Mapping[str, Any]) -> str:
    """The type of a param in a word or two, with its default where it says something."""
    options = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    name = " or ".join(_name(each) for each in options)
    default: JSON = schema.get("default")
    return words.printable(name) if default is None else f"{words.printable(name)} = {words.value(default)}"


def _name(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(words.value(each) for each in schema["enum"])
    return str(schema.get("type", "any"))
