"""``taskctl show``: everything about one task."""

from __future__ import annotations

from collections.abc import Iterator

import click

from taskd import client
from taskd.cli import options, say, words
from taskd.cli.pick import pick
from taskd.client import Record


@click.command("show")
@options.id
@options.as_json
@click.pass_obj
def command(socket: str, id: str, as_json: bool) -> None:
    """Show all that is known about a task."""
    with client.connect(socket) as daemon:
        record = daemon.get(pick(daemon, id))
    say.out(words.document(record.raw) if as_json else "\n".join(lines(record)))


def lines(record: Record) -> Iterator[str]:
    """A record as a page of lines."""
    rows = [(key, text) for key, text in _facts(record) if text not in ("", "-")]
    width = max(len(key) for key, _ in rows)
    for key, text in rows:
        yield f"{key.ljust(width)}  {text}"
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
    yield "on host", words.printable(record.resident_on)
    yield "debug", words.printable(record.debug_info)
    for key, each in record.params.items():
        yield f"param {words.printable(key)}", "-" if each is None else words.value(each)
    yield "result", "-" if record.result is None else words.value(record.result)


def _progress(record: Record) -> str:
    shown = record.progress
    left = "" if not shown.eta_s or record.ended else f"{words.duration(shown.eta_s)} left"
    parts = (words.percent(shown.fraction), words.progress(shown), "" if record.ended else words.rate(shown), left)
    return ", ".join(part for part in parts if part)
