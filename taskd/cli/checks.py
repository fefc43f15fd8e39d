"""What ``taskctl doctor`` looks at on this machine, with or without a daemon: files, locks, room, units.

The law: looking changes nothing. The lock of the state folder is read from the kernel's table of locks (proc(5)),
not tried: a daemon that starts at that moment would find it taken. What may not be looked at is said to be that,
and is no problem by itself.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

import attrs

from taskd import config, places
from taskd.cli import units, words
from taskd.config import Config
from taskd.errors import ConfigError

Level: TypeAlias = Literal["ok", "warning", "problem"]

# Bytes that are free beside the store: below the first it may soon not be able to write, below the second at once.
LITTLE: Final = 1 << 30
LEAST: Final = 64 << 20

# What to do where a daemon keeps another state than we think.
COMPARE: Final = "compare the settings here, and TASKD_STATE, with those that it was started with"

UNITS: Final = ("taskd.socket", "taskd.service")

# Seconds that systemctl may take.
PATIENCE: Final = 10.0


@attrs.frozen
class Finding:
    """What was found when ``check`` was made, and what to do about it, "" where that is nothing."""

    check: str
    level: Level
    found: str
    advice: str = ""


def settings(path: str) -> tuple[Config | None, Finding]:
    """The settings that a daemon on that socket is started with: this user's own, or root's for root's socket."""
    try:
        if path != places.SOCKET or os.geteuid() == 0:
            loaded = config.load()
        else:
            loaded = config.load(places.FILE if os.access(places.FILE, os.R_OK) else os.devnull, {})
            if loaded.state == places.default_state():
                loaded = attrs.evolve(loaded, state=places.STATE)
    except ConfigError as error:
        advice = "correct it; taskd --check-config says whether it is right"
        return None, Finding("settings", "problem", str(error), advice)
    return loaded, Finding("settings", "ok", "they can be read and hold no fault")


def socket(path: str) -> Iterator[Finding]:
    """The socket file: whether it is there, whose it is, who may connect."""
    try:
        found = os.stat(path)
    except PermissionError:
        advice = "ask its owner which group may connect, or ask as root"
        yield Finding("socket", "problem", f"{path} is in a folder that this user may not look into", advice)
        return
    except OSError as error:
        yield Finding("socket", "problem", f"{path}: {error.strerror}", "start the daemon, or name its --socket")
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding("socket", "problem", f"{path} is no socket", "move it away, then start the daemon")
        return
    mode, group = stat.S_IMODE(found.st_mode), _group(found.st_gid)
    said = f"{path} is {mode:04o} {_user(found.st_uid)} {group}"
    if found.st_uid not in (0, os.geteuid()):
        advice = "whoever made it hears what you ask; name the --socket of the daemon that you mean"
        yield Finding("socket", "warning", said, advice)
    elif mode & 0o002:
        advice = "everybody here may connect; where that is not meant, set SocketMode in its unit, or socket_mode"
        yield Finding("socket", "warning", said, advice)
    else:
        yield Finding("socket", "ok", said)
    folder = os.path.dirname(path) or os.curdir
    above = os.stat(folder)
    if above.st_mode & 0o002 and not above.st_mode & stat.S_ISVTX:
        advice = f"anybody could put another socket in its place: chmod o-w {folder}"
        yield Finding("socket", "problem", f"everybody may write to {folder}", advice)
    if not os.access(path, os.W_OK, effective_ids=True):
        yield Finding("permissions", "problem", f"this user may not connect to {path}", f"join the group {group}")


def state(folder: str, *, answers: bool) -> Iterator[Finding]:
    """The state folder, who holds its lock, and how much room there is."""
    try:
        found = os.stat(folder)
        inside = os.access(folder, os.R_OK | os.X_OK, effective_ids=True)
    except FileNotFoundError:
        if answers:
            advice = f"{COMPARE}; if it was removed, nothing survives a restart"
            said = f"{folder} is not there: the daemon that answers keeps another state, or its own was removed"
            yield Finding("state", "warning", said, advice)
        else:
            yield Finding("state", "ok", f"{folder} is not there yet; the first start makes it")
        return
    except OSError as error:
        yield Finding("state", "ok", f"{folder} cannot be looked at: {error.strerror}", "ask as root to know more")
        return
    mode = stat.S_IMODE(found.st_mode)
    said = f"{folder} is {mode:04o} {_user(found.st_uid)}"
    if not stat.S_ISDIR(found.st_mode):
        yield Finding("state", "problem", f"{folder} is no folder", "move it away, or set state")
        return
    if mode & 0o077:
        advice = f"params and logs of tasks are in it: chmod 0700 {folder}"
        yield Finding("state", "warning", said, advice)
    else:
        yield Finding("state", "ok", said)
    if inside:
        yield _lock(Path(folder) / "lock", answers=answers)
    else:
        yield Finding("lock", "ok", "who holds it is not this user's to see", "ask as root to know more")
    yield room(folder)


def _lock(path: Path, *, answers: bool) -> Finding:
    try:
        holder, sure = _holder(path)
    except FileNotFoundError:
        holder, sure = "", True
    if holder and answers:
        return Finding("lock", "ok", f"{path} is held by {holder}")
    if holder:
        advice = "it is starting, stopping or stuck: look at its log"
        if sure:
            advice += "; kill -9 is safe, the next start recovers"
        return Finding("lock", "problem", f"{path} is held by {holder}, and no daemon answers", advice)
    if answers:
        said = f"nobody holds {path}: the daemon that answers keeps another state"
        return Finding("lock", "warning", said, COMPARE)
    return Finding("lock", "ok", "nobody holds it; a daemon can start")


def _holder(path: Path) -> tuple[str, bool]:
    """Who has locked the file, ``pid 12 (taskd)`` or "", and whether that is sure.

    The table of locks names a file by its number and a device, which on Btrfs and overlays is not the one that
    stat(2) tells. A file of another filesystem may have the number, too: the descriptors of who holds it tell.
    """
    ours = path.stat()
    perhaps = ""
    for line in Path("/proc/locks").read_text().splitlines():
        _, _, rest = line.partition(": ")
        kind, _, _, pid, place, *_ = rest.removeprefix("-> ").split()
        if kind != "FLOCK" or place.rpartition(":")[2] != str(ours.st_ino):
            continue
        try:
            if _has_locked(pid, ours):
                return f"pid {pid} ({_command(pid)})", True
        except OSError:  # it is not this user's to see, or has just gone
            perhaps = f"pid {pid} ({_command(pid)}), as it seems"
    return perhaps, not perhaps


def _has_locked(pid: str, file: os.stat_result) -> bool:
    """Whether the process has the file open, and a lock on it. Nothing else that it has open is touched: it may be
    waiting for a disk that does not answer.

    Raises:
        OSError: its descriptors cannot be looked at.
    """
    for fd in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if "FLOCK" in fd.read_text() and os.path.samestat(file, os.stat(f"/proc/{pid}/fd/{fd.name}")):
                return True
    return False


def _command(pid: str) -> str:
    try:
        return words.printable(Path(f"/proc/{pid}/comm").read_text().strip())
    except OSError:
        return "of another pid namespace"


def room(folder: str, little: int = LITTLE, least: int = LEAST) -> Finding:
    """How much of the filesystem is free, for root as for others."""
    left = shutil.disk_usage(folder).free
    said = f"{words.size(left)} are free for {folder}"
    advice = "make room: a store that cannot write takes no new task, and undoes what runs"
    if left < least:
        return Finding("space", "problem", said, advice)
    return Finding("space", "warning", said, advice) if left < little else Finding("space", "ok", said)


def installed(prefix: str | None) -> Iterator[Finding]:
    """The units below ``prefix``, None for this machine's own, of which systemd is asked too."""
    below = Path(prefix or "/")
    ours = {place: text for place, text in units.files(units.program(), (), ()).items() if place != units.SETTINGS}
    there = {place for place in ours if (below / place).exists()}
    if not there:
        yield Finding("units", "ok", "taskd is no unit here", "taskctl install-units makes it one")
        return
    shipped = units.shipped()
    for name in units.CLOSED:
        if (below / (place := f"{units.DROP_INS}/{name}.conf")).exists():
            ours[place] = (shipped / f"{name}.conf").read_text()
    again = "taskctl install-units, as root"
    for place, text in sorted(ours.items()):
        path = below / place
        if not path.exists():
            yield Finding("units", "problem", f"{path} is missing", again)
        elif path.read_text() != text:
            advice = f"{again}, makes it that again; a change of your own belongs into a drop-in"
            yield Finding("units", "warning", f"{path} is not the one of this taskctl", advice)
    if prefix is None and os.path.isdir("/run/systemd/system"):
        yield from _told()
    else:
        yield Finding("units", "ok", f"taskd is installed below {below}")


def _told() -> Iterator[Finding]:
    for unit in UNITS:
        word = _systemctl("is-enabled", unit)
        if word.startswith("enabled"):
            yield Finding("units", "ok", f"{unit} is enabled")
        else:
            advice = f"systemctl enable {unit}: until then no boot starts it, nor recovers what a crash left"
            yield Finding("units", "warning", f"{unit} is {word or 'unknown'}", advice)
        if (word := _systemctl("is-active", unit)) == "failed":
            advice = f"journalctl -u {unit} says why; then systemctl reset-failed {unit} and start it"
            yield Finding("units", "problem", f"{unit} has failed", advice)
    if _systemctl("show", "--property=NeedDaemonReload", "--value", UNITS[1]) == "yes":
        yield Finding("units", "warning", "systemd has not read the units anew", "systemctl daemon-reload")


def _systemctl(*words: str) -> str:
    """What it says; "" where it cannot be asked."""
    command: Sequence[str] = ("systemctl", *words)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
