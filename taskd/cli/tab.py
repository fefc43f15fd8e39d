"""What the Tab key offers, where it is more than click knows; nothing where the daemon does not answer soon."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from taskd.asking import Asking
from taskd.cli import filters, values, words
from taskd.cli.asked import glance
from taskd.places import default_socket
from taskd.states import CANCELLABLE

# Seconds that somebody who pressed a key waits for the daemon.
PATIENCE_S: Final = 1.0

# How many tasks are offered where nothing of an id is there yet.
NEWEST: Final = 50

# In which states a task is of use to a command; for the others it may be in any.
STATES: Final[Mapping[str | None, tuple[str, ...]]] = {
    "cancel": tuple(state.value for state in CANCELLABLE),
    "wait": filters.UNFINISHED,
    "destroy": filters.ENDED,
}


def _ask(ctx: click.Context, method: str, **params: object) -> Any:
    path = ctx.find_root().params.get("socket") or os.environ.get("TASKD_SOCKET") or default_socket()
    with Asking(path, PATIENCE_S) as daemon:
        return daemon.ask(method, params)


def files(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """Files, which the shell knows best."""
    yield CompletionItem(incomplete, type="file")


def ids(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """The newest tasks that the command is for, with a word on each; or every id that starts like that."""
    given = ctx.params.get("ids") or ()
    if incomplete:
        start = incomplete.lower()
        yield from (CompletionItem(id) for id in _ids(ctx) if id.startswith(start) and id not in given)
        return
    page = _ask(ctx, "Task.list", page_size=NEWEST, states=STATES.get(ctx.info_name))
    for raw in page["tasks"]:
        record = glance(raw)
        if record.id not in given:
            yield CompletionItem(record.id, help=f"{words.state(record)}, {words.name(record)}")


def _ids(ctx: click.Context) -> list[str]:
    found = _ask(ctx, "Task.ls")
    return found if isinstance(found, list) else []


def operations(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """The names of operations."""
    given = ctx.params.get("names") or ()
    for offer in _ask(ctx, "Operation.ls"):
        if offer["name"].startswith(incomplete) and offer["name"] not in given:
            yield CompletionItem(offer["name"], help=words.printable(offer["summary"]))


def params(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """NAME= of the params that are not there yet; behind it a value where there are few, else a file."""
    schemas = next(
        offer["params"]["properties"]
        for offer in _ask(ctx, "Operation.ls")
        if offer["name"] == ctx.params.get("operation")
    )
    name, equals, _ = incomplete.partition("=")
    if not equals:
        given = {each.partition("=")[0] for each in ctx.params.get("params") or ()}
        for each, schema in schemas.items():
            if each.startswith(incomplete) and each not in given:
                yield CompletionItem(f"{each}=", help=words.printable(schema.get("description", "")) or None)
        return
    few = [text for text in _few(schemas.get(name, {})) if text.startswith(incomplete.removeprefix(f"{name}="))]
    yield from (CompletionItem(f"{name}={text}") for text in few)
    if not few and not [*values.faults(schemas.get(name, {}), "")]:
        yield CompletionItem(incomplete, type="file")


def _few(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("anyOf", [schema])
    found = [words.value(each) for kind in kinds for each in kind.get("enum", ())]
    return found + ["true", "false"] * any(kind.get("type") == "boolean" for kind in kinds)


def columns(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """The next of several names with commas between them."""
    from taskd.cli.ls import COLUMNS

    before, comma, last = incomplete.rpartition(",")
    for name in COLUMNS:
        if name.startswith(last) and name not in before.split(","):
            yield CompletionItem(f"{before}{comma}{name}")


def methods(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """The daemon's methods, in any case."""
    for method in _ask(ctx, "rpc.discover")["methods"]:
        if method["name"].lower().startswith(incomplete.lower()):
            yield CompletionItem(method["name"], help=words.printable(method.get("summary", "")) or None)


def tokens(ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
    """The ids of tokens, to admins."""
    given = ctx.params.get("ids") or ()
    for raw in _ask(ctx, "Token.ls"):
        if raw["id"].startswith(incomplete) and raw["id"] not in given:
            yield CompletionItem(raw["id"], help=words.printable(raw["user"]))


OFFERS: Final[Mapping[str, Callable[[click.Context, str], Iterator[CompletionItem]]]] = {
    "files": files,
    "ids": ids,
    "operations": operations,
    "params": params,
    "columns": columns,
    "methods": methods,
    "tokens": tokens,
}
