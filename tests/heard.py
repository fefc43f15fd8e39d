"""The daemon's log as a reader has it: lines of ``key=value``, read back."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

from taskd import logs

FIELD = re.compile(r'([a-z]+)=("(?:[^"\\]|\\.)*"|[^" =]+)(?: |$)')


def parsed(line: str) -> dict[str, str]:
    """A line in the form ``text``, read back; the whole of it must be fields."""
    fields, place = {}, 0
    while place < len(line):
        match = FIELD.match(line, place)
        assert match is not None, line[place:]
        name, value = match.groups()
        assert name not in fields
        fields[name] = json.loads(value) if value.startswith('"') else value
        place = match.end()
    return fields


@contextmanager
def heard() -> Iterator[Callable[[], list[dict[str, str]]]]:
    """In here, what is logged, as the daemon would write it."""
    stream = StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    handler.setFormatter(logs.Line("text", journal=False))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lambda: [parsed(each) for each in stream.getvalue().splitlines()]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
