"""The daemon's log: to stderr, one line an event, each a list of fields; as ``key=value`` or as JSON.

The law: an event is one line, whatever somebody else's text in it holds. Every value that is more than a word is
quoted, and what cannot be printed is escaped, so that no label, user or path can make up a second event. Nothing
secret is in it: no token, no header, no params and no environment. A mistake of a client is a sentence at most; a
traceback is for a fault of ours, and is one field, ``traceback``.

The fields, in their order: ``time`` (RFC 3339, UTC; not where the journal has its own), ``level``, ``logger``,
``message``, and where the event is about a task ``task``, its id, and ``dbg``, what its maker gave as that.
Whoever holds the task passes both on (``extra=task.about``); to the code of an operation, which holds none, they
are lent (``lent``). Where the journal reads, a priority of syslog stands before the line (sd-daemon(3)).
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

from taskd import systemd

PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}

# What may stand without quotes: no blank, no quote, no sign of equality.
WORD: Final = re.compile(r"[A-Za-z0-9_.,:;/@%+*()\[\]<>-]+")

# What a line says of a task, and how much of it, in characters; the task's record has all.
FIELDS: Final = {"task": 36, "dbg": 200}

_about: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039  # it is never changed


@contextmanager
def lent(about: Mapping[str, str]) -> Iterator[None]:
    """In here, and in the threads that are started here, every line is about that task."""
    token = _about.set(about)
    try:
        yield
    finally:
        _about.reset(token)


def quoted(value: str) -> str:
    """``value`` as it stands after a ``=``: as it is where it is a word, else as JSON has it, on one line."""
    if WORD.fullmatch(value):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    return char if char.isprintable() else json.dumps(char)[1:-1]


class Line(logging.Formatter):
    """An event as a line; ``form`` is ``text`` or ``json``, ``journal`` whether the journal reads it."""

    def __init__(self, form: str, *, journal: bool) -> None:
        super().__init__()
        self.form, self.journal = form, journal

    def format(self, record: logging.LogRecord) -> str:
        fields = self._fields(record)
        if self.form == "json":
            line = json.dumps(fields)
        else:
            line = " ".join(f"{name}={quoted(value)}" for name, value in fields.items())
        return f"<{PRIORITIES.get(record.levelno, 6)}>{line}" if self.journal else line

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        fields = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if not self.journal:
            at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
            fields = {"time": at.replace("+00:00", "Z"), **fields}
        about = _about.get()
        for name, most in FIELDS.items():
            value = getattr(record, name, about.get(name))
            if isinstance(value, str):
                fields[name] = value[:most]
        if record.exc_info and record.exc_info[0] is not None:
            fields["traceback"] = self.formatException(record.exc_info)
        return fields


class _Once(logging.Filter):
    """Of trio's complaints that no connection can be accepted (ten a second), one a minute, in one sentence."""

    said = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        due = record.created - self.said >= 60
        self.said = record.created if due else self.said
        return due


def begin(level: str, form: str) -> None:
    """Log to stderr, from here on; ``level`` and ``form`` as in the settings."""
    logging.getLogger("trio.serve_listeners").addFilter(_Once())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line(form, journal=systemd.is_journal(sys.stderr)))
    logging.basicConfig(handlers=[handler])
    go_by(level, form)


def go_by(level: str, form: str) -> None:
    """From here on, log what is of that ``level`` or worse, in that ``form``."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for handler in root.handlers:
        if isinstance(handler.formatter, Line):
            handler.formatter.form = form
