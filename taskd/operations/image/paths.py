"""How a path is walked: to a folder that is open, and from there to a name in it.

The law: what is acted on is what was looked at. A folder is opened first; what is in it is named by its name
there and the folder's descriptor, so that nobody can exchange a folder or a link between a look and an act. The
kernel checks each step with the rights of the task (``runner.rights``), and two things beside:

- Nobody but an admin gets through a link of the kernel's own (``/proc/self/fd/7``), or into /proc: these lead to
  what the *daemon* has open.
- With ``roots``, a path is walked beneath one of them, and follows no symlink: whoever owns a folder there would
  say with it where somebody else's task goes. A hard link says so too, so a file with several names is none to
  be opened; and where the kernel lets anybody link to anything (fs.protected_hardlinks is 0, proc_sys_fs(5)), a
  folder that others may write to is none to work in.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress
from typing import Final

from taskd.model import Rights
from taskd.operations.image import kernel
from taskd.runner.rights import current, own, root_of

# A descriptor to name things by, which no permission to read is needed for.
FOLDER: Final = os.O_PATH | os.O_DIRECTORY

_PROTECTED: Final = "/proc/sys/fs/protected_hardlinks"
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def opened(path: str, flags: int, files: ExitStack, folder: int | None = None) -> int:
    """A descriptor that ``files`` closes; ``path`` may be a name in an open folder."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, 0o600, dir_fd=folder)
    return closed_by(files, fd)


def closed_by(files: ExitStack, fd: int) -> int:
    files.callback(_close, fd)
    return fd


def _close(fd: int) -> None:
    # What close could still report, the fsync before it has reported already.
    with suppress(OSError):
        os.close(fd)


def walk(path: str, flags: int, files: ExitStack) -> int:
    """Open what is at ``path`` with O_PATH and ``flags``: it can be asked what it is, and ``reopened``.

    Raises:
        OSError: it cannot be opened. EACCES, with a reason of ours: the task has no business there.
    """
    rights = current()
    if rights is None:
        return opened(path, flags | os.O_PATH, files)
    if rights.roots:
        fd = _beneath(path, flags | os.O_PATH, rights, files)
    else:
        fd = closed_by(files, kernel.open_resolved(path, flags | os.O_PATH, kernel.NO_MAGICLINKS))
    if kernel.is_of_the_kernel(fd):
        raise PermissionError(errno.EACCES, "what is in /proc is the daemon's")
    return fd


def _beneath(path: str, flags: int, rights: Rights, files: ExitStack) -> int:
    """``walk`` with roots: a folder from its root, and anything else from its folder."""
    root = root_of(path, rights.roots)
    if root is None:
        raise PermissionError(errno.EACCES, f"it is not beneath {' or '.join(rights.roots)}")
    if flags & os.O_DIRECTORY:
        with own():  # the way to the root is the admin's word
            top = opened(root, FOLDER, files)
        rest = path[len(root) + 1 :] or "."
    else:
        top, rest = folder_of(path, files)
    resolve = kernel.BENEATH | kernel.NO_SYMLINKS | kernel.NO_MAGICLINKS
    try:
        fd = closed_by(files, kernel.open_resolved(rest, flags, resolve, top))
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise PermissionError(errno.EACCES, f"it leads out of {root}, or through a symlink") from None
        raise
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise PermissionError(errno.EACCES, f"it has several names, of which some may not be beneath {root}")
    return fd


def folder_of(path: str, files: ExitStack) -> tuple[int, str]:
    """The open folder that ``path`` is in, and its name there.

    Raises:
        OSError: as ``walk``.
    """
    parent, name = os.path.split(path)
    folder = walk(parent, FOLDER, files)
    rights = current()
    if rights is not None and rights.roots and not _links_are_protected():
        found = os.fstat(folder)
        if found.st_uid != rights.uid or found.st_mode & _OTHERS:
            reason = f"others may write to its folder {parent}, and link to any file (fs.protected_hardlinks is 0)"
            raise PermissionError(errno.EACCES, reason)
    return folder, name


def _links_are_protected() -> bool:
    # As bytes: a codec that is needed for the first time is read from a file, with whose rights ever.
    with open(_PROTECTED, "rb") as file:
        return file.read().strip() != b"0"


def reopened(fd: int, flags: int, files: ExitStack) -> int:
    """What ``walk`` has found, open for use: that, and nothing else that has come to be at its path.

    Raises:
        OSError: it cannot be opened so.
    """
    return opened(f"/proc/self/fd/{fd}", flags & ~os.O_NOFOLLOW, files)


def lstat(path: str) -> os.stat_result:
    """What is at ``path``, a link itself and not what it leads to.

    Raises:
        OSError: as ``walk``; FileNotFoundError, NotADirectoryError: nothing is.
    """
    with ExitStack() as files:
        folder, name = folder_of(path, files)
        return os.stat(name, dir_fd=folder, follow_symlinks=False)


def real(path: str) -> str:
    """Where the links on the way lead now. Below roots no link is followed, and a path is what it says."""
    rights = current()
    return path if rights is not None and rights.roots else os.path.realpath(path)


def sync(folder: int) -> None:
    """What was made or removed in an open folder stays so after a power cut."""
    with ExitStack() as files:
        try:
            fd = reopened(folder, os.O_RDONLY | os.O_DIRECTORY, files)
        except PermissionError:
            # Who may write to a folder may be forbidden to read it, and may still want what is there to last.
            with own():
                fd = reopened(folder, os.O_RDONLY | os.O_DIRECTORY, files)
        try:
            os.fsync(fd)
        except OSError as error:
            # A folder of the kernel's own (/proc, /sys): nothing in it is on a disk.
            if error.errno != errno.EINVAL:
                raise
