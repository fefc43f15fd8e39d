"""The expressions of ``get_all_where``: xapi's grammar, its precedences, and nothing else."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.dialects.xenapi.where import DEPTH, LENGTH, parse
from taskd.errors import XenApiError

RECORD = {
    "status": "pending",
    "name_label": 'a "label"',
    "progress": 0.5,
    "done": 1.0,
    "enabled": True,
    "allowed_operations": ["cancel", "destroy"],
    "other_config": {"k": "v"},
    "empty": [],
}


def holds(expression: str) -> bool:
    return parse(expression, RECORD)(RECORD)


@pytest.mark.parametrize(
    "expression",
    [
        "true",
        "not false",
        'field "status" = "pending"',
        'field"status"="pending"',
        '"pending" = field "status"',
        "field 'status' = 'pending'",
        '"x" = "x"',
        """field "name_label" = 'a "label"'""",
        'field "name__label" = field "name_label"',
        'field "progress" = "0.5"',
        'field "done" = "1"',
        'field "enabled" = "true"',
        """field "allowed_operations" = "('cancel' 'destroy')" """,
        """field "other_config" = "(('k' 'v'))" """,
        'field "empty" = "()"',
        '(field "status" = "pending") and (true or false)',
        "\n\t ( true ) ",
        '"and" = "and"',
        # and, or: alike, from left to right; not: up to the end.
        "false and true or true",
        "true or true and true",
        "not true and false",
        "not (false or false)",
        "true and not false and true",
        "not not true",
    ],
)
def test_it_holds(expression: str) -> None:
    assert holds(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "false",
        'field "status" = "success"',
        'not field "status" = "pending"',
        "true or true and false",
        "not false or true",
        "not not false",
        '"x" = "X"',
    ],
)
def test_it_does_not_hold(expression: str) -> None:
    assert not holds(expression)


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("", "where a value is expected"),
        ("and", "where a value is expected"),
        ("true true", "where the end is expected"),
        ("(true", "where ) is expected"),
        ("true)", "where the end is expected"),
        ('field "status"', "where = is expected"),
        ('field "secret" = "x"', "is no field"),
        ("field status = 'x'", "is no word of the grammar"),
        ('field = "x"', "is no field"),
        ('"x" = true', "where a value is expected"),
        ('field "status" <> "pending"', "is no word of the grammar"),
        ('"unfinished', "is no word of the grammar"),
        ("__import__('os')", "is no word of the grammar"),
        ("true and", "where a value is expected"),
        ("(" * (DEPTH + 2), "nested deeper"),
        ("not " * (DEPTH + 2) + "true", "nested deeper"),
        ("true" + " and true" * LENGTH, "longer than"),
    ],
)
def test_what_is_no_expression_is_refused_with_the_place(expression: str, fault: str) -> None:
    with pytest.raises(XenApiError) as caught:
        parse(expression, RECORD)

    assert caught.value.name == "INVALID_VALUE"
    assert caught.value.data[0] == "expr"
    assert fault in caught.value.data[1]


@given(st.text(alphabet="()='\" tfnao", max_size=60) | st.text(max_size=20))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    with suppress(XenApiError):
        assert parse(text, RECORD)(RECORD) in (True, False)
