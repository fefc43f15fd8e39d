"""``taskctl token``: who may come in through a proxy, and as whom."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Final

import click

from taskd.cli import options, say, words
from taskd.cli.asked import connected
from taskd.cli.each import each
from taskd.cli.exits import Exit
from taskd.client import Grant

# The roles that the daemon knows.
ROLES: Final = ("admin", "service", "user")

# A whole token, with its id in it.
HELD: Final = re.compile(r"taskd_([0-9a-f]{8})_[A-Za-z0-9_-]+")

HEAD: Final = ("ID", "USER", "ROLES", "CREATED", "EXPIRES")


@click.group("token", short_help="Make, list and remove the tokens of a proxy.")
def command() -> None:
    """Make, list and remove the tokens by which others come in through a proxy. For admins.

    A proxy is a program that the daemon's setting `proxies` names; it passes on an HTTP header
    `Authorization: Bearer TOKEN`. Its holder is the token's user, with the token's roles and no others: a user
    has tasks of its own, a service starts and reports on those of others, an admin may do everything.
    """


@command.command("add")
@click.option("--user", required=True, type=options.named, metavar="NAME", help="Who its holder is.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(ROLES),
    help="What its holder may do; may be repeated.",
)
@click.option(
    "--expires",
    "expires_s",
    type=options.span,
    metavar="TIME",
    help="Good for so long: 30d, 12h, 90m, 45s or seconds; else until it is removed.",
)
@options.as_json
@click.pass_obj
def add(socket: str, *, user: str, roles: Sequence[str], expires_s: float | None, as_json: bool) -> None:
    """Make a token and print it, and nothing else, on stdout. It is shown this once."""
    with connected(socket) as daemon:
        if as_json:
            said = daemon.call("Token.add", user=user, roles=[*roles], expires_s=expires_s)
            say.out(words.document(said))
            return
        made = daemon.add_token(user, roles, expires_s)
    say.out(made.token)
    until = "until it is removed" if made.expires_at is None else f"until {words.moment(made.expires_at)}"
    say.err(f"token {made.id} is for {made.user} ({', '.join(made.roles)}), {until}; it is not shown again")


@command.command("ls")
@options.as_json
@click.pass_obj
def ls(socket: str, as_json: bool) -> None:
    """List all tokens, oldest first, also those whose time is over."""
    with connected(socket) as daemon:
        if as_json:
            say.out(words.document(daemon.call("Token.ls")))
            return
        found = daemon.tokens()
    if found:
        say.out("\n".join(words.columns([HEAD, *map(_row, found)])))


def _row(grant: Grant) -> Sequence[str]:
    expires = words.moment(grant.expires_at, seconds=False)
    over = grant.expires_at is not None and grant.expires_at <= time.time()
    return (
        words.printable(grant.id),
        words.printable(grant.user),
        words.printable(",".join(grant.roles)),
        words.moment(grant.created_at, seconds=False),
        f"{expires} (over)" if over else expires,
    )


@command.command("rm", short_help="Remove tokens, and end what goes on under them.")
@click.argument(
    "ids",
    nargs=-1,
    required=True,
    type=options.named,
    metavar="ID...",
    shell_complete=options.completed("tokens"),
)
@options.as_json
@click.pass_obj
def rm(socket: str, ids: Sequence[str], as_json: bool) -> Exit:
    """Remove tokens, by their ids or whole: nobody comes in by them any more, and what goes on under them ends.

    With --json: the ids that were removed.
    """
    named = [HELD.sub(r"\1", id) for id in ids]  # after a leak the whole of it is all that one has

    def tell(id: str) -> None:
        if not as_json:
            say.out(f"token {id} is removed")

    granted, code = each(
        socket, named, lambda daemon, whole: daemon.remove_token(whole), lambda _, whole: whole, tell
    )
    if as_json:
        say.out(words.document(granted))
    return code
