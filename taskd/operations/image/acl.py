"""Access lists (acl(5)): what the mode of a file that has one does not say.

With a list the group's bits in the mode are its mask: the most that the users and groups that it names may, too.
They would open a file without the list to its group.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

_NAME: Final = "system.posix_acl_access"

# linux/posix_acl_xattr.h: after the version, tag, permissions and id of each entry; the tag of the group's.
_VERSION: Final = 4
_ENTRY: Final = struct.Struct("<HHI")
_GROUP: Final = 4


def mode_of(file: int | str, found: os.stat_result) -> int:
    """The permission bits of ``file``, less what would open it to its group if it had no list."""
    mode = found.st_mode & 0o777
    for tag, permissions, _ in _ENTRY.iter_unpack((_list(file) or b"")[_VERSION:]):
        if tag == _GROUP:
            mode &= ~0o070 | permissions << 3
    return mode


def carry(source: int, target: int) -> None:
    """Give ``target`` the list of ``source``; none, if it has none, whatever its folder gave it."""
    entries = _list(source)
    if entries == _list(target):
        return
    if entries is None:
        os.removexattr(target, _NAME)
    else:
        os.setxattr(target, _NAME, entries)


def _list(file: int | str) -> bytes | None:
    """As the kernel tells it; None where there is none, or none can be on its filesystem."""
    try:
        return os.getxattr(file, _NAME)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise
