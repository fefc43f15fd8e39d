"""The table of methods: foreign and native names, each a thin translation to one verb of the service.

A method is its name, the frozen attrs class of its params, and the function that calls the service and gives
back the bare result. ``long`` ones may wait; the connection answers them when they are ready and does not let
them hold up the others. A new dialect is one file with a ``METHODS`` and a row here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs

from taskd import codec
from taskd.model import JSON, Caller
from taskd.service import Service


@attrs.frozen
class Method:
    """One row of the table; ``params`` names and types what the wire may say, strictly."""

    name: str
    params: type[Any]
    call: Callable[[Service, Caller, Any], Awaitable[JSON]]
    summary: str
    long: bool = False

    async def __call__(self, service: Service, caller: Caller, params: JSON) -> JSON:
        """Raises Unauthenticated and PermissionDenied when the caller may not call it at all, then BadParams when
        the params do not fit, and what the verb raises.
        """
        service.allow(caller, self.name)
        return await self.call(service, caller, codec.structure(params, self.params))


def table() -> dict[str, Method]:
    """All methods by name."""
    from taskd.dialects import native, smapi, tokens

    rows: Iterable[Method] = (*smapi.METHODS, *native.METHODS, *tokens.METHODS)
    return {method.name: method for method in rows}
