"""The one pool and its one host: the least of XenAPI's ``pool`` and ``host`` that its clients ask for.

There is no pool behind it: this daemon is master of itself. ``pool.other_config`` is a slip of paper on a desk:
each user has one of their own, in memory, so that nobody's marks (npm's xen-api leaves one to see its own events
come back) are seen or rubbed out by another.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Final

import attrs

from taskd import __version__
from taskd.errors import XenApiError
from taskd.model import JSON, Caller
from taskd.service import Service, places

# The names behind the refs of what is no task: the same in each run, unlike any task's id (RFC 4122, version 5).
_SPACE: Final = uuid.UUID("6f2b5c1e-6f0c-5d0a-9a5e-7d1f0c3b2a10")

# The datamodel whose task class this is: set_result, set_error_info and resident_on are in it (XenServer 8).
API_VERSION: Final = (2, 21)

# Most characters of one user's pool.other_config.
NOTES: Final = 65536


def uuid_of(kind: str, name: str) -> str:
    """The uuid of the host called ``name``, or of its pool; one for each, on whatever machine it is asked."""
    return str(uuid.uuid5(_SPACE, f"{kind} {name}"))


def ref_of(kind: str, name: str) -> str:
    return f"OpaqueRef:{uuid_of(kind, name)}"


@attrs.define(eq=False)
class Slip:
    """What one user wrote into ``pool.other_config``, and the revisions of what they last touched, by class."""

    notes: dict[str, str] = attrs.field(factory=dict)
    touched: dict[str, int] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Desk:
    """The slips of all users, by user; what is written on one is a change in the order of all changes."""

    service: Service
    _slips: dict[str, Slip] = attrs.field(factory=dict)

    @property
    def host(self) -> str:
        """The name of the one host."""
        return self.service.host

    def slip(self, caller: Caller) -> Slip:
        return self._slips.get(caller.user) or Slip()

    def touch(self, caller: Caller, kind: str) -> int:
        """The user's ``pool`` or ``host`` counts as changed; the revision before that."""
        registry = self.service.registry
        before = registry.touch(None, places.desk(caller.user))
        slip = self._slips.setdefault(caller.user, Slip())
        slip.touched[kind] = registry.revision
        return registry.feed.revision if before is None else before

    def write(self, caller: Caller, notes: Mapping[str, str]) -> None:
        """Replace the user's notes.

        Raises:
            XenApiError: INVALID_VALUE: they are too long.
        """
        if sum(len(key) + len(value) for key, value in notes.items()) > NOTES:
            raise XenApiError("INVALID_VALUE", ("other_config", f"longer than {NOTES} characters together"))
        self._slips.setdefault(caller.user, Slip()).notes = dict(notes)
        self.touch(caller, "pool")

    def records(self, caller: Caller, kind: str) -> Mapping[str, Mapping[str, JSON]]:
        """The one ``pool`` or ``host``, by its ref."""
        name = self.host
        common: dict[str, JSON] = {
            "uuid": uuid_of(kind, name),
            "name_label": name,
            "allowed_operations": [],
            "current_operations": {},
        }
        if kind == "pool":
            common |= {
                "name_description": "One taskd and no other host",
                "master": ref_of("host", name),
                "other_config": dict(self.slip(caller).notes),
            }
        else:
            common |= {
                "name_description": "The host that this taskd runs on",
                "hostname": name,
                "address": "",
                "enabled": True,
                "other_config": {},
                "software_version": {"product_brand": "taskd", "product_version": __version__},
                "API_version_major": API_VERSION[0],
                "API_version_minor": API_VERSION[1],
                "API_version_vendor": "taskd",
                "resident_VMs": [],
            }
        return {ref_of(kind, name): common}
