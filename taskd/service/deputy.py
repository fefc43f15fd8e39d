"""With whose rights a task will act: those of whoever starts it, so that nobody gets done what he could not do.

An admin's task has the rights of the daemon. A user of this machine has those that the kernel told of it when it
connected. Who comes by a token is no user here, whatever its name: its task acts beneath ``roots``, folders that
the setting of that name lists, and there with the rights of the user that they belong to.
"""

from __future__ import annotations

import os

import trio

from taskd.errors import PermissionDenied
from taskd.model import Caller, Rights
from taskd.runner import Operation, contained
from taskd.runner.rights import able, root_of, threads


async def rights_of(caller: Caller, kind: Operation, params: object, roots: tuple[str, ...]) -> Rights | None:
    """The rights of a task of ``kind`` that ``caller`` starts; None: the daemon's own.

    Raises:
        PermissionDenied: there are none that it could act with.
    """
    if kind.run is None or caller.admin:
        return None
    if caller.uid is not None and caller.gid is not None:
        rights = Rights(caller.uid, caller.gid, tuple(sorted(caller.groups)))
    else:
        # Whose rights is what this looks for: until then it has threads by the caller's name.
        rights = await trio.to_thread.run_sync(_beneath, kind, params, roots, limiter=threads(caller.user))
    if not able(rights):
        raise PermissionDenied(f"start {kind.name}: this daemon is not root, and acts only for its own user")
    return rights


def _beneath(kind: Operation, params: object, roots: tuple[str, ...]) -> Rights:
    with contained({}):
        paths = tuple(kind.paths(params)) if kind.paths is not None else ()
    if not paths:
        raise PermissionDenied(f"start {kind.name} by a token")
    used = set()
    for path in paths:
        root = root_of(path, roots)
        if root is None:
            raise PermissionDenied(f"{kind.name} by a token: {path} is not beneath one of the daemon's roots")
        used.add(root)
    owners = {_owner(root) for root in used}
    if len(owners) > 1:
        raise PermissionDenied(f"{kind.name} by a token: {' and '.join(sorted(used))} belong to different users")
    ((uid, gid),) = owners
    return Rights(uid, gid, roots=tuple(sorted(used)))


def _owner(root: str) -> tuple[int, int]:
    try:
        found = os.stat(root)
    except OSError as error:
        raise PermissionDenied(f"act beneath {root}: {error.strerror}") from None
    return found.st_uid, found.st_gid
