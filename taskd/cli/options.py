"""Options that several commands have, and the ids, paths, sizes and times in them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

LENGTHS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
SUFFIXES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def named(text: str) -> str:
    """An id, or a path: something rather than nothing, which is what a forgotten variable of a shell gives.

    Raises:
        click.BadParameter: it is empty.
    """
    if not text:
        raise click.BadParameter("it is empty")
    return text


def size(text: str) -> int:
    """Bytes, with a suffix K, M, G or T for powers of 1024.

    Raises:
        click.BadParameter: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text, re.ASCII | re.IGNORECASE)
    count = float(match[1]) * SUFFIXES[match[2].upper()] if match else 0.0
    if not 1 <= count < 1 << 63:
        raise click.BadParameter(f"{text!r} is no size such as 500000, 64K, 10M or 1.5G")
    return int(count)


def seconds(text: str) -> float:
    """A number of seconds that JSON can say.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        count = float(text)
    except ValueError:
        count = math.nan
    if not 0 <= count < math.inf:
        raise click.BadParameter(f"{text!r} is no number of seconds such as 0.5 or 60")
    return count


def span(text: str) -> float:
    """Seconds, or with a suffix s, m, h or d of so many seconds, minutes, hours or days.

    Raises:
        click.BadParameter: it is no length of time, or none at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text, re.ASCII)
    count = float(match[1]) * LENGTHS[match[2]] if match else 0.0
    if not 0 < count < math.inf:
        raise click.BadParameter(f"{text!r} is no length of time such as 30d, 12h, 90m, 45s or 3600")
    return count


def absolute(path: str) -> str:
    """``path`` as seen from here: the daemon is somewhere else. Symlinks stay what they are.

    Raises:
        click.UsageError: it is relative to a folder that is gone.
    """
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except OSError as error:
        raise click.UsageError(f"where {path} is, cannot be told from here: {error.strerror}") from None


def completed(what: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What the Tab key offers there: one of ``tab.OFFERS``, which is imported only for that."""

    def offered(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from taskd.cli import tab

        return list(tab.OFFERS[what](ctx, incomplete))

    return offered


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
no_wait = click.option("--no-wait", is_flag=True, help="Print the task's id and leave it running.")
label = click.option("--label", metavar="TEXT", help="What people read instead of the id.")
request_id = click.option(
    "--request-id",
    type=named,
    metavar="ID",
    help="Asked again with the same ID, the same task is waited for.",
)
id = click.argument("id", type=named, shell_complete=completed("ids"))
ids = click.argument("ids", nargs=-1, required=True, type=named, metavar="ID...", shell_complete=completed("ids"))
some_ids = click.argument("ids", nargs=-1, type=named, metavar="[ID]...", shell_complete=completed("ids"))
yes = click.option("--yes", is_flag=True, help="Do not ask whether all that the filters let through are meant.")
