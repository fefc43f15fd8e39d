"""The expressions of ``get_all_where``: parsed by a grammar, looked up in a record, never evaluated as code.

The grammar is xapi's (xapi-project/xen-api, ocaml/database/db_filter_parse.mly and db_filter_lex.mll), with its
precedences: ``and`` and ``or`` bind alike, from left to right, and ``not`` takes all that follows it up to the
closing parenthesis. Values are compared as texts. ::

    expression = term (("and" | "or") term)*
    term       = "true" | "false" | "(" expression ")" | "not" expression | value "=" value
    value      = "field" '"name"' | '"text"'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias

import attrs

from taskd.errors import XenApiError
from taskd.model import JSON

Record: TypeAlias = Mapping[str, JSON]
Test: TypeAlias = Callable[[Record], bool]
Value: TypeAlias = Callable[[Record], str]

# Longest and deepest expression: it is looked at once for each task.
LENGTH: Final = 4096
DEPTH: Final = 50

_TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?:("|')((?:(?!\1).)*)\1|(=|\(|\)|true|false|field|and|or|not)|$)""", re.S
)


def shown(value: JSON) -> str:
    """A field's value as xapi's database has it: sets and maps as s-expressions."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.16g}"
    if isinstance(value, Mapping):
        return f"({' '.join(f'({shown_item(key)} {shown_item(each)})' for key, each in value.items())})"
    if isinstance(value, list | tuple):
        return f"({' '.join(map(shown_item, value))})"
    return str(value)


def shown_item(value: JSON) -> str:
    return f"'{shown(value)}'"


class Texts(dict[str, JSON]):
    """A record's fields as texts, each made once however often an expression names it."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self._record = record

    def __missing__(self, name: str) -> str:
        self[name] = text = shown(self._record[name])
        return text


@attrs.define
class _Words:
    """The words of an expression, one after the other."""

    text: str
    fields: Collection[str]
    at: int = 0
    kind: str = ""
    literal: str = ""
    found_at: int = 0

    def __attrs_post_init__(self) -> None:
        self.step()

    def step(self) -> str:
        """Go on to the next word; the one that was passed."""
        passed = self.kind
        self.found_at = self.at
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise self.fault("is no word of the grammar", at=self.at)
        quote, self.literal, word = match.groups()
        self.kind = "text" if quote else word or "end"
        self.at = match.end()
        return passed

    def fault(self, what: str, at: int | None = None) -> XenApiError:
        place = self.found_at if at is None else at
        rest = self.text[place:].lstrip()[:20]
        return XenApiError("INVALID_VALUE", ("expr", f"at character {place}: {rest!r} {what}"))

    def expect(self, kind: str) -> None:
        if self.kind != kind:
            raise self.fault(f"where {kind} is expected")
        self.step()


def parse(text: str, fields: Collection[str]) -> Test:
    """The test that ``text`` stands for, on records that have ``fields``.

    Raises:
        XenApiError: INVALID_VALUE ["expr", where and what is wrong].
    """
    if len(text) > LENGTH:
        raise XenApiError("INVALID_VALUE", ("expr", f"longer than {LENGTH} characters"))
    words = _Words(text, fields)
    test = _expression(words, 0)
    if words.kind != "end":
        raise words.fault("where the end is expected")
    return test


def _expression(words: _Words, depth: int) -> Test:
    if depth > DEPTH:
        raise XenApiError("INVALID_VALUE", ("expr", f"nested deeper than {DEPTH}"))
    first = _term(words, depth)
    rest: list[tuple[bool, Test]] = []
    while words.kind in ("and", "or"):
        both = words.step() == "and"
        rest.append((both, _term(words, depth)))

    def test(record: Record) -> bool:
        holds = first(record)
        for both, term in rest:
            # `x or true and y` is `(x or true) and y`: so one operator may skip its term, and the next not.
            if holds is both:
                holds = term(record)
        return holds

    return test if rest else first


def _term(words: _Words, depth: int) -> Test:
    match words.kind:
        case "true" | "false":
            always = words.step() == "true"
            return lambda record: always
        case "(":
            words.step()
            inner = _expression(words, depth + 1)
            words.expect(")")
            return inner
        case "not":
            words.step()
            denied = _expression(words, depth + 1)
            return lambda record: not denied(record)
    left = _value(words)
    words.expect("=")
    right = _value(words)
    return lambda record: left(record) == right(record)


def _value(words: _Words) -> Value:
    if words.kind == "field":
        words.step()
        # The database's own names have two underscores where the API's have one.
        name = words.literal.replace("__", "_") if words.kind == "text" else ""
        if name not in words.fields:
            raise words.fault("is no field")
        words.step()
        return lambda record: shown(record[name])
    if words.kind != "text":
        raise words.fault("where a value is expected")
    literal = words.literal
    words.step()
    return lambda record: literal
