"""Copies: of an image, of one that is mostly holes, of one in many pieces, and by reflink.

Whoever does not put the target on the disk by itself is followed by ``fsync``: what is compared is a copy that is
there. taskd's client waits for the end of the task.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.benchmarks import clients, peers
from tests.benchmarks.measure import (
    Extent,
    Missing,
    Outcomes,
    Side,
    Skipped,
    compared,
    found,
    in_turn,
    milliseconds,
    seconds,
)

# Bytes: a stretch of data, and from one to the next, in the image of many pieces.
PIECE = 64 << 10

# In the sparse image, one in so many MiB is data.
SPARSE = 16

# The others, as they are run, and the Debian package of each. rsync's --inplace alone writes the zeros of holes.
OTHERS: Final[Mapping[str, tuple[str, str]]] = {
    "cp": ("cp --reflink=never --sparse=always", "coreutils"),
    "qemu-img": ("qemu-img convert -f raw -O raw", "qemu-utils"),
    "rsync": ("rsync --inplace --sparse", "rsync"),
}

SHARED: Final = "cp --reflink=always"


def image(path: Path, size: int, piece: int, step: int) -> Path:
    """A file of ``size`` bytes with ``piece`` bytes of data in every ``step``, on the disk."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
        for at in range(0, size, step):
            file.seek(at)
            left = min(piece, size - at)
            while left > 0:
                left -= file.write(block[: min(left, len(block))])
        file.flush()
        os.fsync(file.fileno())
    return path


def copied(command: str, source: Path, target: Path) -> Side:
    def once() -> float:
        target.unlink(missing_ok=True)
        began = time.perf_counter()
        subprocess.run([*command.split(), source, target], check=True, capture_output=True)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        return time.perf_counter() - began

    return once


def ours(path: str, source: Path, target: Path) -> Side:
    def once() -> float:
        target.unlink(missing_ok=True)
        with clients.connected(path) as sock:
            began = time.perf_counter()
            params = {"source": str(source), "target": str(target)}
            id = clients.ask(sock, "Task.start", operation="copy", params=params)["id"]
            task = clients.ask(sock, "Task.wait", id=id)
            took = time.perf_counter() - began
        assert task["state"] == "completed", task
        return took

    return once


def beside_others(name: str, extent: Extent, piece: int, step: int) -> Outcomes:
    with peers.folder() as own, peers.taskd() as daemon:
        source = image(own / "image", extent.copied, piece, step)
        sides: dict[str, Side] = {"ours": ours(daemon.socket, source, own / "ours")}
        missing: dict[str, str] = {}
        for other, (command, package) in OTHERS.items():
            try:
                peers.tool(other, package)
                sides[other] = copied(command, source, own / other)
            except Missing as error:
                missing[other] = str(error)
        said = in_turn(extent.rounds, sides)
        rows = {f"{name}-{other}": other for other in OTHERS}
        return compared(said, rows, seconds, missing, inverse=True)


def plain(extent: Extent) -> Outcomes:
    """All data."""
    return beside_others("copy", extent, extent.copied, extent.copied)


def sparse(extent: Extent) -> Outcomes:
    """One MiB in sixteen."""
    return beside_others("sparse", extent, 1 << 20, SPARSE << 20)


def pieces(extent: Extent) -> Outcomes:
    """64 KiB in every 128."""
    return beside_others("pieces", extent, PIECE, 2 * PIECE)


@contextmanager
def xfs(size: int) -> Iterator[Path]:
    """A filesystem that shares blocks. Raises Missing."""
    peers.tool("mkfs.xfs", "xfsprogs")
    if os.geteuid() != 0:
        raise Missing("only root can mount a filesystem")
    with peers.folder() as own:
        disk, folder = own / "disk", own / "xfs"
        folder.mkdir()
        with disk.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.xfs", "-q", disk], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", disk, folder], check=True, capture_output=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True, capture_output=True)


def reflink(extent: Extent) -> Outcomes:
    """Blocks that are shared: what is left is what a task costs."""
    try:
        with xfs((400 << 20) + extent.copied) as own, peers.taskd() as daemon:
            size = extent.copied // 4
            source = image(own / "image", size, size, size)
            sides = {
                "ours": ours(daemon.socket, source, own / "ours"),
                "cp": copied(SHARED, source, own / "cp"),
            }
            said = in_turn(extent.rounds, sides)
    except Missing as error:
        return {"reflink-cp": Skipped(str(error))}
    more = [(one - other) * 1000 for one, other in zip(said["ours"], said["cp"], strict=True)]
    each = {name: milliseconds(sorted(values)[len(values) // 2]) for name, values in said.items()}
    return {"reflink-cp": found(more, each["ours"], each["cp"])}
