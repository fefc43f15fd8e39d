"""How long what callers send may be (law L10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from taskd import codec
from taskd.errors import BadParams
from taskd.model import JSON

# Most lines of a log in one report, and most characters of them together.
LINES: Final = 1000
CHARACTERS: Final = 1024 * 1024


def texts(most: int, named: Mapping[str, str | None]) -> None:
    """Raises BadParams for a text that is longer than ``most`` characters; its name is that of a param."""
    for name, text in named.items():
        if text is not None and len(text) > most:
            raise BadParams(f"params.{name}", f"is longer than {most} characters")


def result(most: int, name: str, value: JSON) -> None:
    """Raises BadParams for a result, or an error, that is longer than ``most`` bytes as JSON."""
    if len(codec.dumps(value)) > most:
        raise BadParams(f"params.{name}", f"is longer than {most} bytes as JSON")


def lines(log: Sequence[str]) -> None:
    """Raises BadParams for more than ``LINES`` lines of a log, or ``CHARACTERS`` characters in them."""
    if len(log) > LINES:
        raise BadParams("params.log", f"has more than {LINES} lines")
    if sum(map(len, log)) > CHARACTERS:
        raise BadParams("params.log", f"is longer than {CHARACTERS} characters")
