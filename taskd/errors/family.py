"""The root of all errors and their families: whose fault it is."""

from __future__ import annotations

from typing import ClassVar

import attrs


@attrs.define(auto_exc=True)
class TaskdError(Exception):
    """The root. ``data`` is the tuple of the fields' texts, in order, as XenAPI's error parameters are."""

    name: ClassVar[str] = "Internal_error"
    number: ClassVar[int] = 1
    sentence: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.sentence.format(**attrs.asdict(self, recurse=False))

    @property
    def data(self) -> tuple[str, ...]:
        return tuple(str(value) for value in attrs.astuple(self, recurse=False))

    @property
    def code(self) -> str:
        return self.name.upper()


# What a peer's bytes can do wrong. The numbers are JSON-RPC 2.0's own.


@attrs.define(auto_exc=True)
class WireError(TaskdError):
    """The peer sent what is no request."""

    reason: str
    sentence: ClassVar[str] = "{reason}"


@attrs.define(auto_exc=True)
class ParseError(WireError):
    """The bytes are no JSON."""

    name: ClassVar[str] = "Parse_error"
    number: ClassVar[int] = -32700


@attrs.define(auto_exc=True)
class InvalidRequest(WireError):
    """JSON, but no request."""

    name: ClassVar[str] = "Invalid_request"
    number: ClassVar[int] = -32600


@attrs.define(auto_exc=True)
class Refusal(TaskdError):
    """A call that cannot be granted, or a task that the world does not let be done; nothing was changed."""


@attrs.define(auto_exc=True)
class StoreError(TaskdError):
    reason: str
    sentence: ClassVar[str] = "{reason}"
