"""``Token.*``: who may come in through a proxy, and as whom. For admins.

Its secret is in the reply to ``Token.add`` and nowhere else, and a token's digest is shown to nobody.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from taskd import codec
from taskd.dialects import Method
from taskd.dialects.native import Nothing
from taskd.model import JSON, Caller, Token
from taskd.service import Service


def shown(token: Token) -> dict[str, JSON]:
    """What is told of a token: its id, user, roles and times."""
    said = codec.unstructure(token)
    assert isinstance(said, dict)
    del said["digest"]
    return said


@attrs.frozen
class AddParams:
    user: str = attrs.field(metadata={"doc": "who its holder is: the owner of the tasks that are started by it"})
    roles: tuple[Literal["admin", "service", "user"], ...] = attrs.field(
        metadata={"doc": "what its holder may do; at least one"}
    )
    expires_s: float | None = attrs.field(
        default=None, metadata={"doc": "seconds from now until it is as good as none; null: never"}
    )


async def _add(service: Service, caller: Caller, params: AddParams) -> JSON:
    token, secret = await service.tokens.add(caller, params.user, params.roles, params.expires_s)
    return {**shown(token), "token": secret}


async def _ls(service: Service, caller: Caller, params: Nothing) -> JSON:
    return [shown(token) for token in await service.tokens.list(caller)]


@attrs.frozen
class RemoveParams:
    id: str = attrs.field(metadata={"doc": "the token's id"})


async def _rm(service: Service, caller: Caller, params: RemoveParams) -> JSON:
    await service.tokens.remove(caller, params.id)
    return None


METHODS: Final = (
    Method("Token.add", AddParams, _add, "Make a token; its secret is told this once"),
    Method("Token.ls", Nothing, _ls, "All tokens, without their secrets"),
    Method("Token.rm", RemoveParams, _rm, "Remove a token, and end what goes on under it"),
)
