"""What people read: sizes, times and states in words, and nothing raw on their terminal.

Every text that somebody else chose (a label, a path, a line of a log) passes ``printable`` on its way out:
it cannot move the cursor, change colours or turn the direction of writing. What a script reads comes from
``--json`` and is exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taskd.client import Record
    from taskd.model import JSON, Progress

UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# What taskd.errors.UndoFailed becomes; not imported, for `ls` does without the errors.
UNDO_FAILED: Final = "UNDO_FAILED"

# Cc controls, Cf marks that show nothing or turn the direction, Cs halves of a character, Zl and Zp line ends.
UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

# The colours of skin: none, one or two cells, as the terminal and the character before them have it.
TINTS: Final = frozenset(map(chr, range(0x1F3FB, 0x1F400)))

# Mn and Me: they are drawn on the character before them.
ACCENTS: Final = frozenset({"Mn", "Me"})


def printable(text: str, *, keep: str = "") -> str:
    """``text`` with every character that is more than a sign escaped as Python does, but those in ``keep``."""
    if text.isascii() and text.isprintable():
        return text
    import unicodedata

    return "".join(
        char.encode("unicode_escape").decode()
        if (unicodedata.category(char) in UNPRINTABLE or char in TINTS) and char not in keep
        else char
        for char in text
    )


def logged(line: str) -> str:
    """A line of a log; tabs stay."""
    return printable(line, keep="\t")


def unsure(request_id: JSON) -> str:
    """Nobody has answered a call that starts a task."""
    return f"whether the task was made is not known; the same command with --request-id {request_id} makes it once"


def lost(lines: int) -> str:
    """Why a log has a gap."""
    return f"{lines} lines of the log are not kept any more"


def value(thing: JSON) -> str:
    """A value of a record on one line."""
    return printable(thing if isinstance(thing, str) else json.dumps(thing, ensure_ascii=False))


def document(thing: JSON) -> str:
    """One JSON document in ASCII, as ``--json`` prints it."""
    return json.dumps(thing, indent=2)


def size(count: float) -> str:
    """``64.0 MiB``."""
    for unit in UNITS:
        if count < 1023.95 or unit == UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def amount(count: float, unit: str) -> str:
    """``count`` of whatever is counted; it may have no name."""
    return size(count) if unit == "bytes" else f"{count:.10g} {printable(unit)}".rstrip()


def duration(seconds: float) -> str:
    """``1.2 s``, ``42 s``, ``3 min 20 s``, ``5 h 3 min``, ``2 d 4 h``."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part} {smaller}"
    return f"{whole} s"


def moment(at: float | None, *, seconds: bool = True) -> str:
    """A time of the daemon's in the time zone of who reads it."""
    if at is None:
        return "-"
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def percent(fraction: float) -> str:
    """Rounded down: what is not done never shows as 100 %."""
    return f"{int(fraction * 100)} %"


def progress(shown: Progress) -> str:
    """``512.0 MiB of 1.0 GiB``, or what is known of it."""
    if shown.unit == "1/10000":  # only a fraction is known
        return ""
    if shown.total is None:
        return amount(shown.done, shown.unit) if shown.done else ""
    return f"{amount(shown.done, shown.unit)} of {amount(shown.total, shown.unit)}"


def rate(shown: Progress) -> str:
    """``53.3 MiB/s``, where there is one to speak of."""
    if not shown.rate or shown.unit == "1/10000":
        return ""
    return f"{amount(shown.rate, shown.unit)}/s"


def state(record: Record) -> str:
    """The state, and what is asked of it or owed by it."""
    if record.residue:
        beside = " (residue)" if record.ended else " (not finished)"
    else:
        beside = " (cancel asked)" if record.cancel_requested and not record.ended and record.cancellable else ""
    return printable(record.state) + beside


def name(record: Record) -> str:
    """What people call the task: its label, or where it has none its operation."""
    return printable(record.label or record.operation)


def residue(record: Record) -> list[str]:
    """What could not be undone, or not be finished after the commit, step by step; or that it is no longer so."""
    if not record.residue:
        undone = record.error is not None and record.error.code == UNDO_FAILED
        return ["nothing is owed any more: it has been undone since"] if undone else []
    steps = [
        f"  {i}. {_step(step.verb, step.args)}: {printable(step.reason)}"
        for i, step in enumerate(record.residue, 1)
    ]
    if record.ended:
        return ["left behind:", *steps, f"`taskctl recover {record.id}` tries to undo it again"]
    head = "still to be done after the commit; tried again by itself:"
    return [head, *steps, f"`taskctl recover {record.id}` tries it at once"]


def _step(verb: str, args: Mapping[str, JSON]) -> str:
    return " ".join([printable(verb), *(f"{printable(key)}={value(each)}" for key, each in args.items())])


def ending(record: Record) -> str:
    """How the task ended, in one line."""
    said = f"{name(record)}: {printable(record.state)}"
    if record.error is not None:
        return f"{said}: {printable(record.error.code)}: {printable(record.error.message)}"
    if record.state != "completed" or record.started_at is None or record.finished_at is None:
        return said
    took = record.finished_at - record.started_at
    match record.result:
        # Of the result, not of the progress: what is read twice is counted twice there. A copy of some blocks
        # has a target of so many bytes, and went through fewer of its source.
        case {"source_bytes": int(count)} | {"bytes": int(count)}:
            speed = f" ({size(count / took)}/s)" if took > 0 else ""
            return f"{said}, {size(count)} in {duration(took)}{speed}"
    return f"{said} in {duration(took)}"


def cells(text: str) -> int:
    """How many cells of a terminal ``text`` takes: wide characters two, accents that stand on another one none."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.category(char) in ACCENTS else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def start(text: str, width: int) -> str:
    """As many characters of the start as fit into so many cells."""
    if text.isascii():
        return text[: max(0, width)]
    used = 0
    for place, char in enumerate(text):
        used += cells(char)
        if used > width:
            return text[:place]
    return text


def middle(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells; its start and its end stay, for a path tells most at its end."""
    if cells(text) <= width:
        return text
    if width < 1:
        return ""
    head = start(text, (width - 1) // 2)
    return f"{head}…{start(text[::-1], width - 1 - cells(head))[::-1]}"


def padded(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows of texts as wide as the widest of their column."""
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    return [[text + " " * (width - cells(text)) for text, width in zip(row, widths, strict=True)] for row in rows]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines whose columns are below each other."""
    return ["  ".join(row).rstrip() for row in padded(rows)]
