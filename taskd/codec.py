"""JSON in and out of the model: the one cattrs converter, strict, and the schemas that its types imply.

Nothing is coerced: a number is not taken for a text, nor a text for a number, nor ``true`` for 1; only an
integer is taken where a float is wanted. Every fault of a value is reported with the path of the field.
This is the one room where ``Any`` lives: JSON is untyped until it has been through here.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from heapq import nsmallest
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
import cattrs
import orjson
from cattrs.cols import is_mapping
from cattrs.gen import make_dict_structure_fn

from taskd.errors import BadParams
from taskd.model import JSON, Task, Time
from taskd.states import State

T = TypeVar("T")


class Fault(ValueError):
    """A value that does not fit; its text is the end of the sentence ``params.x: …``."""


@lru_cache(1024)  # the times of a task are told and stored again and again
def format_time(moment: float) -> str:
    """``2026-11-23T17:29:24.123Z``: RFC 3339 in UTC with milliseconds."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def parse_time(text: str) -> Time:
    """The reverse of ``format_time``; any RFC 3339 offset is understood.

    Raises:
        ValueError: it is no time, or names no offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset, such as Z")
    return Time(moment.timestamp())


_KINDS: Mapping[type, tuple[str, tuple[type, ...]]] = {
    str: ("a string", (str,)),
    int: ("an integer", (int,)),
    float: ("a number", (int, float)),
    bool: ("true or false", (bool,)),
}


def _scalar(kind: Any) -> Callable[[Any, Any], Any]:
    sentence, accepted = _KINDS[kind]

    def structure(value: Any, _: Any) -> Any:
        shown = value
        # bool is a subclass of int: without this line, true would pass for 1.
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise Fault(f"expected {sentence}, got {_shown(shown)}")
        return float(shown) if kind is float else shown

    return structure


def _shown(value: Any) -> str:
    return _short(orjson.dumps(value, default=repr).decode(errors="replace"))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _structure_time(value: Any, _: Any) -> Time:
    try:
        return parse_time(value)
    except (TypeError, ValueError):
        raise Fault(f"expected an RFC 3339 time, got {_shown(value)}") from None


def _structure_literal(value: Any, kind: Any) -> Any:
    # `1 == True`: the type is compared too.
    if not any(value == choice and type(value) is type(choice) for choice in get_args(kind)):
        raise Fault(f"expected one of {', '.join(map(_shown, get_args(kind)))}, got {_shown(value)}")
    return value


def _demanding(shape: type, sentence: str, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Check the JSON shape first: cattrs would happily iterate a string as a list of letters."""

    def structure(value: Any, kind: Any) -> Any:
        if not isinstance(value, shape):
            raise Fault(f"expected {sentence}, got {_shown(value)}")
        return inner(value, kind)

    return structure


def _renamed(kind: Any) -> dict[str, Any]:
    """Fields whose name on the wire is none in Python (``from``) carry it in ``metadata={"json": …}``."""
    return {
        field.name: cattrs.override(rename=field.metadata["json"])
        for field in attrs.fields(kind)
        if "json" in field.metadata
    }


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _at(key: int | str, error: Exception, kind: Any) -> cattrs.IterableValidationError:
    """The first fault among the elements of ``kind``: to gather a million would take the loop for seconds."""
    place = key if isinstance(key, int) else _short(key)
    note = cattrs.IterableValidationNote(f"at {place!r}", place, kind)
    error.__notes__ = [*getattr(error, "__notes__", []), note]
    return cattrs.IterableValidationError("in its elements", [error], kind)


def _list(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    inner = get_args(kind)[0]
    hook = converter.get_structure_hook(inner)

    def structure(value: Any, _: Any) -> Any:
        structured: list[Any] = []
        try:
            for element in value:
                structured.append(hook(element, inner))
        except Exception as error:
            raise _at(len(structured), error, kind) from None
        return tuple(structured)

    return _demanding(list, "a list", structure)


def _object(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    inner = get_args(kind)[1]
    hook = converter.get_structure_hook(inner)

    def structure(value: Any, _: Any) -> Any:
        structured, name = {}, ""
        try:
            for name, element in value.items():
                structured[name] = hook(element, inner)
        except Exception as error:
            raise _at(name, error, kind) from None
        return structured

    return _demanding(dict, "an object", structure)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in _KINDS:
        converter.register_structure_hook(kind, _scalar(kind))
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    converter.register_structure_hook_func(lambda kind: kind is Time, _structure_time)
    converter.register_structure_hook_func(_is_literal, _structure_literal)
    converter.register_unstructure_hook_func(lambda kind: kind is object, lambda value: value)
    converter.register_unstructure_hook_func(lambda kind: kind is Time, format_time)
    # A StrEnum is a str, and would be let through as one.
    converter.register_structure_hook(State, lambda value, _: State(value))
    converter.register_unstructure_hook(State, lambda state: state.value)
    converter.register_structure_hook_factory(_is_tuple, lambda kind: _list(kind, converter))
    converter.register_structure_hook_factory(is_mapping, lambda kind: _object(kind, converter))
    converter.register_structure_hook_factory(
        attrs.has,
        lambda kind: _demanding(
            dict,
            "an object",
            make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **_renamed(kind)),
        ),
    )
    return converter


_CONVERTER = _make_converter()


def _sentence(error: BaseException, _: type | None) -> str:
    match error:
        case KeyError():
            return "required, but missing"
        case cattrs.ForbiddenExtraKeysError():
            # A message may hold a hundred thousand of them: who is told three finds the others.
            told = nsmallest(3, error.extra_fields)
            more = f" and {len(error.extra_fields) - len(told)} more" * (len(error.extra_fields) > len(told))
            return "unknown field " + ", ".join(repr(_short(name)) for name in told) + more
        case _:
            return str(error.args[0]) if error.args else "invalid"


def structure(value: JSON, kind: type[T], path: str = "params") -> T:
    """``value``, as it came from JSON, as an instance of the attrs class ``kind``.

    Raises:
        BadParams: it does not fit; the first fault's path leads, the others follow.
    """
    try:
        return _CONVERTER.structure(value, kind)
    except Fault as fault:
        raise BadParams(path, str(fault)) from None
    except cattrs.BaseValidationError as error:
        faults = cattrs.transform_error(error, path=path, format_exception=_sentence)
        first, _, where = faults[0].rpartition(" @ ")
        others = "".join(f"; {where_}: {fault}" for fault, _, where_ in (f.rpartition(" @ ") for f in faults[1:]))
        raise BadParams(where, first + others) from None


def unstructure(value: object) -> JSON:
    """``value``, an attrs instance or made of them, as JSON can say it."""
    return _CONVERTER.unstructure(value)


def dumps(value: object) -> bytes:
    """JSON text, UTF-8, no line breaks; a float always keeps its point."""
    return orjson.dumps(value)


# JSON text that is written already, as a part of a value that is still to be.
Written = orjson.Fragment


def loads(text: bytes | str) -> JSON:
    """Parse JSON strictly: no NaN, no lone surrogates, nothing after the value.

    Raises:
        ValueError: it is no JSON; the text names line and column.
    """
    parsed: JSON = orjson.loads(text)
    return parsed


def pack(task: Task) -> bytes:
    """A task as a store keeps it."""
    return dumps(unstructure(task))


def unpack(text: bytes) -> Task:
    """The reverse of ``pack``."""
    return _CONVERTER.structure(orjson.loads(text), Task)


_SCHEMAS: Mapping[Any, Mapping[str, JSON]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Time: {"type": "string", "format": "date-time"},
    types.NoneType: {"type": "null"},
    object: {},
}


def schema(kind: Any) -> dict[str, JSON]:
    """The JSON Schema (2020-12) of what ``structure`` accepts for ``kind``.

    An attrs field's ``metadata={"doc": …}`` becomes its description.
    """
    if kind in _SCHEMAS:
        return dict(_SCHEMAS[kind])
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema(arg) for arg in args]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple:
        return {"type": "array", "items": schema(args[0])}
    if is_mapping(kind):
        return {"type": "object", "additionalProperties": schema(args[1])}
    hints = get_type_hints(kind)
    properties: dict[str, JSON] = {}
    required: list[str] = []
    for field in attrs.fields(kind):
        one = schema(hints[field.name])
        name = field.metadata.get("json", field.name)
        if "doc" in field.metadata:
            one["description"] = field.metadata["doc"]
        if field.default is attrs.NOTHING:
            required.append(name)
        # attrs types its Factory as a function, though it is the class of such defaults.
        elif not isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
            one["default"] = unstructure(field.default)
        properties[name] = one
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
