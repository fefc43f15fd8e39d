"""Writes README.rst's tables from the code that they are about: ``python -m tests.readme``.

A table stands between ``.. begin NAME`` and ``.. end NAME``; ``test_readme`` fails when one is out of date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import attrs

from taskd import access, dialects, errors, operations
from taskd.cli import exits
from taskd.codec import dumps, schema
from taskd.config import Config
from taskd.errors import TaskdError

README = Path(__file__).parent.parent / "README.rst"


def table(*rows: Sequence[str]) -> str:
    """A list-table; the first row is its head."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for mark, cell in zip(["   * - ", *["     - "] * (len(row) - 1)], row, strict=True):
            lines.append((mark + cell).rstrip())
    return "\n".join(lines)


def code(value: object) -> str:
    return f"``{value}``"


def methods() -> str:
    def row(method: dialects.Method) -> Sequence[str]:
        form = schema(method.params)
        properties, required = form["properties"], form["required"]
        assert isinstance(properties, dict)
        assert isinstance(required, list)
        names = [code(name) if name in required else f"[{code(name)}]" for name in properties]
        return code(method.name), " ".join(names) or "none", method.summary

    return table(("method", "params, [optional]", "what it does"), *map(row, dialects.table().values()))


def params() -> str:
    rows: list[Sequence[str]] = [("operation", "param", "default", "what it is")]
    for operation in (operations.load()[name] for name in ("copy", "command", "external")):
        for field in attrs.fields(operation.params):
            default = "required"
            if isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
                default = code("{}")
            elif field.default is not attrs.NOTHING:
                default = code(dumps(field.default).decode())
            rows.append((code(operation.name), code(field.name), default, field.metadata["doc"]))
    return table(*rows)


def errors_raised() -> Iterable[type[TaskdError]]:
    found = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, TaskdError)]
    return sorted((each for each in found if each.sentence), key=lambda each: (each.number != 1, each.name))


def error_table() -> str:
    ours = {"Conflict", "Config_error", "No_daemon", "Refused", "Illegal_move", "Store_unusable"}
    rows = [
        (code(each.name), str(each.number), code(" ".join(f.name for f in attrs.fields(each))), each.sentence)
        for each in errors_raised()
        if each.name not in ours and "name" in vars(each)
    ]
    return table(("name", "number", "data", "sentence"), *rows)


def settings() -> str:
    rows: list[Sequence[str]] = [("setting", "default", "what it is")]
    for field in attrs.fields(Config):
        default = "see above"
        if not isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
            default = code(dumps(field.default).decode())
        rows.append((code(field.name), default, field.metadata["doc"]))
    return table(*rows)


def exit_codes() -> str:
    rows = sorted((each.value, meaning) for each, meaning in exits.MEANING.items())
    return table(("code", "meaning"), *[(str(value), meaning) for value, meaning in rows])


def roles(some: Collection[str]) -> str:
    """A dash is nobody, which is said only where there is no such relation."""
    return "everyone" if some == access.EVERYONE else ", ".join(sorted(some)) or "—"


def rules() -> str:
    rows = [
        (verb, *(roles(getattr(rule, field.name)) for field in attrs.fields(access.Rule)))
        for verb, rule in access.RULES.items()
    ]
    return table(("verb", "its owner", "its producer", "anybody else"), *rows)


def calls() -> str:
    return table(("method", "roles"), *[(code(name), roles(some)) for name, some in access.CALLS.items()])


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "params": params,
    "errors": error_table,
    "settings": settings,
    "exit codes": exit_codes,
    "rules": rules,
    "calls": calls,
}


def current(text: str) -> str:
    """``text`` with every table as the code has it."""
    for name, make in TABLES.items():
        place = re.compile(rf"(\.\. begin {name}\n\n).*?(\.\. end {name}\n)", re.DOTALL)
        match = place.search(text)
        assert match is not None, f"README.rst has no place for the table of {name}"
        text = f"{text[: match.start()]}{match[1]}{make()}\n\n{match[2]}{text[match.end() :]}"
    return text


if __name__ == "__main__":
    README.write_text(current(README.read_text()))
