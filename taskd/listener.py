"""Where connections come in: the sockets that systemd hands over, or else a socket of our own; and how many may be
open at a time.
"""

from __future__ import annotations

import errno
import grp
import logging
import os
import resource
import socket
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import trio

from taskd import systemd
from taskd.errors import ConfigError, NoConnectionLeft, TooManyConnections

logger = logging.getLogger("taskd")


@contextmanager
def listeners(path: str, mode: int, group: str = "") -> Iterator[Sequence[trio.SocketListener]]:
    """Listen on what was inherited, whatever its path and mode; where nothing was, on ``path`` with ``mode``.

    An inherited socket is only closed at the end: systemd holds it too, and whoever connects waits in it.

    Raises:
        ConfigError: see ``systemd.inherited`` and ``listening``.
    """
    with ExitStack() as open_ones:
        if inherited := systemd.inherited():
            for sock in inherited:
                open_ones.callback(sock.close)
                if sock.getsockname() != path:
                    logger.info("systemd has another socket for us; the setting, %s, is not used", path)
            yield [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in inherited]
        else:
            yield [open_ones.enter_context(listening(path, mode, group))]


def names(of: Sequence[trio.SocketListener]) -> str:
    """The paths that they listen on, for people."""
    return ", ".join(str(each.socket.getsockname()) for each in of)


@contextmanager
def listening(path: str, mode: int, group: str = "") -> Iterator[trio.SocketListener]:
    """Listen on a Unix socket; a stale socket file is taken over, a live one is not. Unlinked at the end.

    ``group`` is the name of the file's group, empty for our own.

    Raises:
        ConfigError: somebody listens there, it cannot be made, or there is no such group.
    """
    try:
        gid = grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        raise ConfigError("socket_group", f"there is no group {group!r}") from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        old = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
        finally:
            os.umask(old)
        os.chown(path, -1, gid)
        os.chmod(path, mode)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        reason = "the path is too long" if "AF_UNIX path" in str(error) else error.strerror or str(error)
        raise ConfigError(f"socket {path}", reason) from None
    made = os.stat(path)
    sock.setblocking(False)
    try:
        yield trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    finally:
        sock.close()
        try:
            there = os.stat(path)
            if (there.st_dev, there.st_ino) == (made.st_dev, made.st_ino):
                os.unlink(path)
        except FileNotFoundError:
            pass


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "the path exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "another daemon listens there")


@attrs.define(eq=False)
class Seats:
    """Who has how many connections open.

    The law: no user alone keeps another from being served, and all of them together do not keep out root and the
    daemon's own user, who look what goes on and put an end to it.
    """

    _per_user: Counter[int] = attrs.field(factory=Counter)
    _limit: int = 0
    _most: int = 0

    def go_by(self, connections_per_user: int, running_tasks: int) -> None:
        """From here on, these settings count."""
        # What the running operations and the store need is not to be had by connecting often.
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._limit, self._most = connections_per_user, max(16, soft - 64 - 12 * running_tasks)
        if (share := self._most // 2) < connections_per_user:
            logger.warning(
                "connections_per_user is %d, but RLIMIT_NOFILE, %d, and running_tasks leave %d to a user",
                connections_per_user,
                soft,
                share,
            )

    def take(self, uid: int) -> None:
        """One more connection of that user, until ``leave``.

        Raises:
            TooManyConnections: the user has as many as one user may have.
            NoConnectionLeft: all users together have.
        """
        limit, most = self._limit, self._most
        if uid not in (0, os.geteuid()):
            limit, most = min(limit, most // 2), most - most // 4
        if self._per_user[uid] >= limit:
            raise TooManyConnections(limit)
        if self.count >= most:
            raise NoConnectionLeft(most)
        self._per_user[uid] += 1

    def leave(self, uid: int) -> None:
        """One less."""
        self._per_user[uid] -= 1
        self._per_user += Counter()  # drops users that have none left

    @property
    def count(self) -> int:
        """How many connections there are."""
        return self._per_user.total()
