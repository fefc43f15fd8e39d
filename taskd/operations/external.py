"""``external``: work that is done elsewhere and reported by its producer.

The task is ``running`` from the start. Its producer feeds it with ``Task.update`` and ends it with
``Task.complete`` or ``Task.fail``. A cancel is shown in the record (``cancel_requested``) until the producer
answers: with ``fail`` the task ends cancelled, with ``complete`` it completed after all. A restart of the
daemon leaves it as it was. With ``heartbeat_s``, a producer that is silent for that long has lost it.
"""

from __future__ import annotations

import attrs

from taskd.operations import Operation


@attrs.frozen
class ExternalParams:
    """Params of ``external``."""

    heartbeat_s: float | None = attrs.field(
        default=None,
        metadata={"doc": "seconds of silence after which the task is lost (PRODUCER_LOST); null: never"},
    )

    @heartbeat_s.validator
    def _positive(self, _: object, value: float | None) -> None:
        if value is not None and not value > 0:
            raise ValueError("heartbeat_s must be more than 0 seconds")


OPERATION = Operation(
    name="external",
    summary="Track work that is done elsewhere and reported by its producer",
    params=ExternalParams,
    run=None,
    roles=frozenset({"admin", "service", "user"}),
)
