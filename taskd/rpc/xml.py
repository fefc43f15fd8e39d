"""XML-RPC as XenAPI speaks it, on the standard library's codec behind defusedxml's guard.

A call is read strictly: no document type, no entities, nothing that JSON could not say, numbers of 64 bits,
nesting up to a limit; what is no call is a WireError, said by kind and place and never by content. A reply is a
struct, ``{Status: "Success", Value}`` or ``{Status: "Failure", ErrorDescription: [code, parameters…]}``;
``system.listMethods`` has a bare result, and what is no call a fault.

Integers are strings of digits, but for those in ``valid_ref_counts`` (xen-api, ocaml/doc/wire-protocol.md and
ocaml/xapi-types/event_types.ml); a ``DateTime`` is a dateTime.iso8601. Characters that XML cannot carry become
U+FFFD.
"""

from __future__ import annotations

import math
import re
import xmlrpc.client
from collections.abc import Mapping
from typing import Any, Final
from xml.parsers.expat import ExpatError

import attrs
from defusedxml import DefusedXmlException
from defusedxml.xmlrpc import DefusedExpatParser

from taskd.errors import InvalidRequest, ParseError, WireError, XenApiError
from taskd.model import JSON, DateTime

_UNSAYABLE: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# The one member of a result whose integers are <i4>.
_COUNTS: Final = "valid_ref_counts"


@attrs.frozen
class Call:
    """A method's name and its params in a row."""

    method: str
    args: tuple[JSON, ...]


def read(body: bytes, max_depth: int) -> Call:
    """The call that ``body`` is; arrays and structs may be nested ``max_depth`` deep.

    Raises:
        ParseError: it is no XML, or XML that is not to be trusted.
        InvalidRequest: it is no call, or has a value that XenAPI has no type for.
    """
    reader = _Reader(max_depth)
    try:
        parser = DefusedExpatParser(reader, forbid_dtd=True, forbid_entities=True, forbid_external=True)
        parser.feed(body)
        parser.close()
        args = reader.close()
        method = reader.getmethodname()
    except WireError:
        raise
    except DefusedXmlException:
        raise ParseError("a document type and entities are not read") from None
    except ExpatError as error:
        raise ParseError(f"no XML: {error}") from None
    except Exception:  # the codec trusts its input, and may stumble over it in any way
        raise InvalidRequest("the document is no XML-RPC call") from None
    if not isinstance(method, str) or not reader.is_call:
        raise InvalidRequest("the document is no XML-RPC call")
    return Call(method, tuple(_read(value, f"params[{place}]") for place, value in enumerate(args)))


def success(value: JSON) -> bytes:
    """The reply with a result.

    Raises:
        TypeError: the value is nothing that JSON can say.
    """
    return bare({"Status": "Success", "Value": value})


def failure(error: XenApiError) -> bytes:
    """The reply with an error."""
    return bare({"Status": "Failure", "ErrorDescription": [error.name, *error.data]})


def bare(value: JSON) -> bytes:
    """A reply that is nothing but ``value``; see ``success``."""
    return _encoded(_written(value, counts=False))


def fault(error: WireError) -> bytes:
    """The reply to what is no call."""
    return _encoded(xmlrpc.client.Fault(error.number, _sayable(str(error))))


class _Reader(xmlrpc.client.Unmarshaller):
    """The codec's reader, with a limit to its depth and a look at the outermost element."""

    _marks: list[int]  # where the arrays and structs that are open begin

    def __init__(self, max_depth: int) -> None:
        super().__init__(use_builtin_types=False)
        self.is_call = False
        self._root = True
        self._max_depth = max_depth

    def start(self, tag: str, attrs: dict[str, str]) -> None:
        if self._root:
            self._root, self.is_call = False, tag == "methodCall"
        super().start(tag, attrs)
        if len(self._marks) > self._max_depth:
            raise InvalidRequest(f"nested deeper than {self._max_depth}")


def _read(value: object, path: str) -> JSON:
    match value:
        case None | bool() | str():
            return value
        case int():
            if not -(2**63) <= value < 2**63:
                raise InvalidRequest(f"{path}: an integer must have at most 64 bits")
            return value
        case float():
            if not math.isfinite(value):
                raise InvalidRequest(f"{path}: a double must be finite")
            return value
        case xmlrpc.client.DateTime():
            return DateTime(str(value))
        case list():
            return [_read(member, f"{path}[{place}]") for place, member in enumerate(value)]
        case dict():
            if not all(isinstance(name, str) for name in value):
                raise InvalidRequest(f"{path}: the members of a struct must have names")
            return {name: _read(member, f"{path}.{name}") for name, member in value.items()}
        case _:
            raise InvalidRequest(f"{path}: XenAPI has no type for this")


def _written(value: JSON, *, counts: bool) -> object:
    """``value`` in the types that the codec writes as XenAPI has them."""
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if counts and abs(value) < 2**31 else str(value)
        case DateTime():
            return xmlrpc.client.DateTime(str(value))
        case str():
            return _sayable(value)
        case list() | tuple():
            return [_written(member, counts=counts) for member in value]
        case Mapping():
            return {
                _sayable(str(name)): _written(member, counts=counts or name == _COUNTS)
                for name, member in value.items()
            }
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON")


def _sayable(text: str) -> str:
    return _UNSAYABLE.sub("\ufffd", text)


def _encoded(value: Any) -> bytes:
    reply = value if isinstance(value, xmlrpc.client.Fault) else (value,)
    text = xmlrpc.client.dumps(reply, methodresponse=True, allow_none=True)
    # A parser reads a bare CR as a line break.
    return text.replace("\r", "&#13;").encode()
