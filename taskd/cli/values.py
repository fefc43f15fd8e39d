"""NAME=VALUE, read and checked by the JSON Schema of an operation's params, before the daemon is asked.

Only what ``Operation.ls`` says is known here: types, choices, lists, objects, what is required. What a schema
says beyond that, and all that a schema cannot say, the daemon judges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from taskd.model import JSON

KINDS: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = {
    "string": ("a string", (str,)),
    "integer": ("an integer", (int,)),
    "number": ("a number", (int, float)),
    "boolean": ("true or false", (bool,)),
    "array": ("a list", (list,)),
    "object": ("an object", (dict,)),
    "null": ("null", (NoneType,)),
}


def loads(text: str) -> JSON:
    """JSON as strict as the daemon's.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    value: JSON = json.loads(text, parse_constant=_number, parse_float=_number)
    return value


def _number(text: str) -> float:
    """Python reads NaN, Infinity and 1e999 as numbers; JSON cannot say them."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that JSON can say")
    return number


def pairs(given: Sequence[str]) -> dict[str, str]:
    """The texts of each NAME=VALUE.

    Raises:
        click.UsageError: one is none, or comes twice.
    """
    texts: dict[str, str] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not name or not equals:
            raise click.UsageError(f"a param is NAME=VALUE, not {each!r}")
        if name in texts:
            raise click.UsageError(f"{name} is given twice")
        texts[name] = text
    return texts


def read(texts: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, JSON]:
    """What the daemon is told: a VALUE is JSON where that fits the param or the text does not, else the text."""
    known = schema.get("properties", {})
    return {name: _value(text, known.get(name, {})) for name, text in texts.items()}


def _value(text: str, schema: Mapping[str, Any]) -> JSON:
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        return text
    return text if [*faults(schema, value)] and not [*faults(schema, text)] else value


def faults(schema: Mapping[str, Any], value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where a value does not fit, and why."""
    if "anyOf" in schema:
        yield from _of_several(schema["anyOf"], value, path)
    elif "enum" in schema:
        if not any(value == each and type(value) is type(each) for each in schema["enum"]):
            yield path, f"expected one of {', '.join(map(_shown, schema['enum']))}, got {_shown(value)}"
    elif schema.get("type") in KINDS and not _is(value, schema["type"]):
        yield path, f"expected {KINDS[schema['type']][0]}, got {_shown(value)}"
    elif isinstance(value, list) and "items" in schema:
        for index, each in enumerate(value):
            yield from faults(schema["items"], each, f"{path}[{index}]")
    elif isinstance(value, dict) and schema.get("type") == "object":
        yield from _of_object(schema, value, path)


def _of_several(kinds: Sequence[Mapping[str, Any]], value: Any, path: str) -> Iterator[tuple[str, str]]:
    found = [[*faults(kind, value, path)] for kind in kinds]
    if all(found):
        told = [each for kind, each in zip(kinds, found, strict=True) if kind.get("type") != "null"]
        if len(told) == 1:
            yield from told[0]
        else:
            names = " or ".join(KINDS.get(kind.get("type", ""), ("another value",))[0] for kind in kinds)
            yield path, f"expected {names}, got {_shown(value)}"


def _of_object(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    within = f"{path}." if path else ""
    for name in schema.get("required", ()):
        if name not in value:
            yield within + name, "required, but missing"
    for name, each in value.items():
        if name in known:
            yield from faults(known[name], each, within + name)
        elif others is False:
            yield within + name, f"there is no such param; there are: {', '.join(known) or 'none'}"
        elif isinstance(others, dict):
            yield from faults(others, each, within + name)


def _is(value: Any, kind: str) -> bool:
    # True is an int to Python, and none to JSON.
    return isinstance(value, KINDS[kind][1]) and (kind == "boolean" or not isinstance(value, bool))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
