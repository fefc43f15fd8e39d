"""``taskctl show``: everything about one task."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from taskd.cli import options, say, words
from taskd.cli.asked import connected

if TYPE_CHECKING:
    from taskd.client import Record

# How many of the last lines of a log are shown, unless somebody wants another number.
TAIL: Final = 10


@click.command("show", short_help="Show all about a task, and the end of its log.")
@options.id
@click.option(
    "-n", "--lines", "count", type=click.IntRange(min=0), default=TAIL, metavar="N", help="Of its log, the last N."
)
@options.as_json
@click.pass_obj
def command(socket: str, *, id: str, count: int, as_json: bool) -> None:
    """Show all that is known about a task, and the end of its log."""
    from taskd.cli.log import tail
    from taskd.cli.pick import pick

    with connected(socket) as daemon:
        record = daemon.get(pick(daemon, id))
        if as_json:
            say.out(words.document(record.raw))
            return
        last, said = tail(daemon, record.id, count) if count else ([], 0)
    page = [*lines(record, say.width())]
    if last:
        every = "" if len(last) == said else f" (the last {len(last)} of {said} lines; `taskctl log` has more)"
        page += [f"log{every}:", *(f"  {words.logged(line.line)}" for line in last)]
    say.out("\n".join(page))


def lines(record: Record, width: int | None = None) -> Iterator[str]:
    """A record as a page of lines; of so many characters, but for a longer word: it may be copied from there."""
    rows = [(key, text) for key, text in _facts(record) if text not in ("", "-")]
    keys = max(len(key) for key, _ in rows) + 2
    for key, text in rows:
        if width is None or keys + len(text) <= width:
            yield key.ljust(keys) + text
        else:
            yield from textwrap.wrap(
                text,
                width,
                initial_indent=key.ljust(keys),
                subsequent_indent=" " * keys,
                break_long_words=False,
                break_on_hyphens=False,
            )
    yield from words.residue(record)


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    yield "id", words.printable(record.id)
    yield "operation", words.printable(record.operation)
    yield "label", words.printable(record.label)
    yield "description", words.printable(record.description)
    yield "state", say.coloured(record.state, words.state(record))
    yield "waits for", words.printable(record.waits_for or "")
    if record.error is not None:
        yield "error", f"{words.printable(record.error.code)}: {words.printable(record.error.message)}"
    yield "progress", _progress(record)
    yield "status", words.printable(record.status or "")
    for speed in record.speeds:
        yield "speed", words.printable(f"{speed.title} {speed.speed:g} {speed.unit}")
    yield "attempt", "-" if record.attempt < 2 else str(record.attempt)
    yield "owner", words.printable(record.owner)
    if not record.processor.endswith(":"):  # which is how a daemon calls itself, and no user is called
        yield "processor", words.printable(record.processor)
    yield "created", words.moment(record.created_at)
    yield "started", words.moment(record.started_at)
    yield "ended", words.moment(record.finished_at)
    yield "took", _took(record)
    yield "on host", words.printable(record.resident_on)
    yield "debug", words.printable(record.debug_info)
    for key, each in record.params.items():
        yield f"param {words.printable(key)}", "-" if each is None else words.value(each)
    yield "result", "-" if record.result is None else words.value(record.result)


def _took(record: Record) -> str:
    if record.started_at is None:
        return ""
    if record.finished_at is None:
        return f"{words.duration(time.time() - record.started_at)} so far"
    return words.duration(record.finished_at - record.started_at)


def _progress(record: Record) -> str:
    shown = record.progress
    left = "" if not shown.eta_s or record.ended else f"{words.duration(shown.eta_s)} left"
    parts = (words.percent(shown.fraction), words.progress(shown), "" if record.ended else words.rate(shown), left)
    return ", ".join(part for part in parts if part)
