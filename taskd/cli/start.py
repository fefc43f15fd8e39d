"""``taskctl start``: start any operation, also one that a plugin brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from taskd.cli import options, values, words
from taskd.cli.asked import connected
from taskd.cli.exits import Exit

if TYPE_CHECKING:
    from taskd.client import Offer

# The operation that is done by somebody else: its end is not waited for.
EXTERNAL: Final = "external"

# Under which name a context has the operation that was typed.
NAMED: Final = "taskd.cli.start.operation"


class Start(click.Command):
    """Whose help tells of the operation that stands before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # --help is answered before the arguments are taken.
        ctx.meta[NAMED] = self.make_parser(ctx).parse_args([*args])[0].get("operation")
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        name = ctx.meta.get(NAMED)
        if not isinstance(name, str):
            return
        from taskd.cli.operations import lines
        from taskd.cli.sentences import sentence
        from taskd.errors import TaskdError

        try:
            told = [*lines(_offer(_offers(ctx.obj), name), formatter.width)]
        except TaskdError as error:
            told = [words.printable(sentence(error))]
        formatter.write("\n" + "\n".join(told) + "\n")


@click.command("start", short_help="Start any operation, with its params.", cls=Start)
@click.argument("operation", type=options.named, shell_complete=options.completed("operations"))
@click.argument("params", nargs=-1, metavar="[NAME=VALUE]...", shell_complete=options.completed("params"))
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

    `taskctl start OPERATION --help` tells its params, `taskctl operations` what there is. A VALUE that is JSON is
    taken as that (5, true, null, ["a", "b"]), any other as text, and so is one that the param wants as text. Paths
    must be absolute. An external task is not waited for: its id is printed at once, for whoever does the work.
    """
    from taskd.cli.begin import begin
    from taskd.client import verbs

    texts = values.pairs(params)
    offer = _offer(_offers(socket), operation)
    given = values.read(texts, offer.params)
    check(offer, given)
    call = verbs.start(operation, given, label=label, request_id=request_id, deadline_s=deadline)
    return begin(socket, call, no_wait=no_wait or operation == EXTERNAL, as_json=as_json)


def _offers(socket: str) -> Sequence[Offer]:
    with connected(socket) as daemon:
        return daemon.operations()


def _offer(offers: Sequence[Offer], name: str) -> Offer:
    """The operation of that name.

    Raises:
        BadParams: there is none.
    """
    from taskd.errors import BadParams

    for offer in offers:
        if offer.name == name:
            return offer
    names = ", ".join(offer.name for offer in offers)
    raise BadParams("OPERATION", f"there is no operation {name!r}; there are: {names}")


def check(offer: Offer, params: dict[str, object]) -> None:
    """Whether the params fit the operation's schema.

    Raises:
        BadParams: they do not; every fault is named.
    """
    from taskd.errors import BadParams

    if found := [*values.faults(offer.params, params)]:
        (path, first), *others = found
        rest = "".join(f"; {path}: {fault}" for path, fault in others)
        raise BadParams(path or "NAME=VALUE", f"{first}{rest} (`taskctl operations {offer.name}` tells more)")
