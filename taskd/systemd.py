"""What systemd and its services say to each other: inherited sockets, notifications, watchdog, journal.

The words are those of sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3), sd-daemon(3) and systemd.exec(5).

The law: without a service manager nothing here does anything. The watchdog is fed by the event loop, so that a
loop that does not turn is not fed. A socket that was handed over belongs to systemd: it is never unlinked, bound
or shut down, and whoever connects while no daemon runs waits in it for the next one. A manager that does not
listen costs the event loop ``PATIENCE`` seconds at most.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Final, TextIO

import trio

from taskd.errors import ConfigError

logger = logging.getLogger("taskd.systemd")

# The first inherited descriptor (SD_LISTEN_FDS_START).
FIRST: Final = 3

# What our socket may be called: FileDescriptorName= of the socket unit, by default the unit's own name.
NAMES: Final = ("taskd.socket", "taskd")

# Seconds that a notification may wait for room in the manager's queue.
PATIENCE: Final = 1.0

# Seconds between two lines of status.
PAUSE: Final = 1.0


def inherited(environment: MutableMapping[str, str] = os.environ, first: int = FIRST) -> tuple[socket.socket, ...]:
    """The listening sockets that were handed over to this process; none if there are none, or not for us.

    They do not block, and no child gets them; the variables that told of them are removed, for the same reason.

    Raises:
        ConfigError: names the descriptor that is not a listening Unix stream socket with one of our names.
    """
    pid, count, names = (environment.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()):
        return ()
    if not count.isdecimal():
        raise ConfigError("LISTEN_FDS", f"expected a number of descriptors, got {count!r}")
    named = names.split(":") if names else [NAMES[0]] * int(count)
    if len(named) != int(count):
        raise ConfigError("LISTEN_FDNAMES", f"expected {count} names, got {names!r}")
    return tuple(_listener(fd, name) for fd, name in enumerate(named, first))


def _listener(fd: int, name: str) -> socket.socket:
    where = f"inherited descriptor {fd} ({name})"
    try:
        os.set_inheritable(fd, False)
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise ConfigError(where, "it is no socket")
    except OSError as error:
        raise ConfigError(where, error.strerror or str(error)) from None
    if name not in NAMES:
        raise ConfigError(where, f"its name must be {' or '.join(NAMES)}")
    sock = socket.socket(fileno=fd)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise ConfigError(where, f"must be a Unix stream socket, not {sock.family.name} {sock.type.name}")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ConfigError(where, "the socket does not listen")
    sock.setblocking(False)
    return sock


def notify(*assignments: str) -> bool:
    """Tell the manager ``READY=1`` and the like; True if there is one and it was told.

    A notification that is lost is logged, not raised: there is nothing that the daemon could do better then.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(PATIENCE)
            sock.sendto("\n".join(assignments).encode(), "\0" + address[1:] if address[0] == "@" else address)
    except OSError as error:
        logger.warning("systemd was not told %s: %s", assignments[0], error)
        return False
    return True


def ready(status: str = "") -> None:
    """Calls are answered; also the end of a reload, of which ``status`` may say more."""
    notify("READY=1", *([f"STATUS={' '.join(status.split())}"] if status else ()))


def reloading() -> None:
    """Settings are being read again; ``ready`` must follow."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """No call is accepted any more."""
    notify("STOPPING=1", "STATUS=stopping")


def watchdog_s() -> float | None:
    """Seconds of silence after which the manager ends this process; None if it does not.

    Raises:
        ConfigError: WATCHDOG_USEC is no such number.
    """
    text = os.environ.get("WATCHDOG_USEC", "")
    if not text or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not text.isdecimal() or not int(text):
        raise ConfigError("WATCHDOG_USEC", f"expected a number of microseconds, got {text!r}")
    return int(text) / 1e6


async def feed_watchdog(limit_s: float | None) -> None:
    """Say twice in ``limit_s`` seconds that the event loop turns, until cancelled. None: nobody asks."""
    while limit_s is not None:
        notify("WATCHDOG=1")
        await trio.sleep(limit_s / 2)


async def keep_status(status: Callable[[], str], changed: Callable[[], Awaitable[None]]) -> None:
    """Show the newest ``status`` once a second at most, and sleep until something has ``changed``.

    Never returns; without a manager it never wakes.
    """
    if "NOTIFY_SOCKET" not in os.environ:
        await trio.sleep_forever()
    said = None
    while True:
        if (text := status()) != said:
            notify(f"STATUS={text}")
            said = text
        await changed()
        await trio.sleep(PAUSE)


def is_journal(stream: TextIO) -> bool:
    """What is written to ``stream`` goes to the journal: lines may begin with a priority, sd-daemon(3).

    JOURNAL_STREAM alone does not say so: whoever was started by a service has it, whatever its streams are.
    """
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
