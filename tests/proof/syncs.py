"""Each sync of the package left out, and the power cut: ``python -m tests.proof.syncs [NAME…]``.

A row of ``SYNCS`` names a passage with a sync, what stands there instead, and on which disks which scenario loses
something then. It is made in a copy of the package, and there the power is cut, moment by moment, until something
is wrong. A sync that nobody misses is not needed: it is taken out, or ``SPARED`` says why it stays. Exit status
0: each was missed.
"""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from tests.breakage import ROOT, copied, noticed, run
from tests.proof import Outcome, Proof, Sample, Verdict
from tests.proof.disks import EXT4, XFS_UNSHARED, Filesystem
from tests.proof.power import (
    AHEAD,
    APART,
    IN_PLACE_CANCELLED,
    NEW_CANCELLED,
    Layout,
    cut,
    undisturbed,
    worlds,
)
from tests.proof.scenarios import BLOCKS_DEVICE, BLOCKS_IN_PLACE, COPY_NEW, COPY_OVER, DIGEST, Scenario

# Seconds in which a sync that is left out is missed, on a busy machine.
LONGEST: Final = 300


@attrs.frozen
class Sync:
    """``passage`` is in ``file`` once, with a sync in it, and without one ``instead``."""

    name: str
    file: str
    passage: str
    instead: str
    scenario: Scenario
    filesystem: Filesystem = EXT4
    layout: Layout = APART

    def __str__(self) -> str:
        return self.name


OWNED: Final = "taskd/operations/image/owned.py"
PREIMAGE: Final = "taskd/operations/image/preimage.py"
EXAMPLE: Final = "examples/operations/taskd_digest.py"

SYNCS: Final = (
    Sync(
        "what was copied",
        OWNED,
        "        os.fsync(owned.fd)\n",
        "",
        COPY_OVER,
        XFS_UNSHARED,
    ),
    Sync(
        "the name of a new file",
        OWNED,
        "            raise TargetExists(target) from None\n        paths.sync(folder)\n",
        "            raise TargetExists(target) from None\n",
        COPY_NEW,
    ),
    Sync(
        "the name of a file that is replaced",
        OWNED,
        '            raise Unproven(target, f"its new content is gone from {part}")\n        paths.sync(folder)\n',
        '            raise Unproven(target, f"its new content is gone from {part}")\n',
        COPY_OVER,
    ),
    Sync(
        "that a file was removed",
        OWNED,
        "        paths.sync(at)\n",
        "",
        NEW_CANCELLED,
    ),
    Sync(
        "any folder",
        "taskd/operations/image/paths.py",
        "            os.fsync(fd)\n",
        "            pass\n",
        COPY_NEW,
    ),
    Sync(
        "the pre-image",
        PREIMAGE,
        "    settle(owned, None, _PRIVATE, owned.path)\n",
        "",
        IN_PLACE_CANCELLED,
        layout=AHEAD,
    ),
    Sync(
        "what was put back",
        PREIMAGE,
        "        await in_thread(image.sync)\n",
        "",
        IN_PLACE_CANCELLED,
        XFS_UNSHARED,
    ),
    Sync(
        "what was written in place",
        "taskd/operations/image/ways.py",
        "    await in_thread(image.sync)\n",
        "",
        BLOCKS_IN_PLACE,
    ),
    Sync(
        "any image",
        "taskd/operations/image/__init__.py",
        "            os.fsync(self.fd)\n",
        "            pass\n",
        BLOCKS_DEVICE,
    ),
    Sync(
        "a transaction of the store",
        "taskd/store/schema.py",
        '"PRAGMA synchronous = FULL"',
        '"PRAGMA synchronous = NORMAL"',
        COPY_NEW,
    ),
    Sync(
        "the example's content",
        EXAMPLE,
        "        os.fsync(file.fileno())\n",
        "",
        DIGEST,
        XFS_UNSHARED,
    ),
    Sync(
        "the example's new name",
        EXAMPLE,
        "        raise DigestExists(target) from None\n    _sync_folder(part)\n",
        "        raise DigestExists(target) from None\n",
        DIGEST,
    ),
    Sync(
        "that the example's part is gone",
        EXAMPLE,
        "    except FileNotFoundError:\n        pass\n    _sync_folder(part)\n",
        "    except FileNotFoundError:\n        pass\n",
        DIGEST,
    ),
    Sync(
        "any folder of the example",
        EXAMPLE,
        "        os.fsync(fd)\n",
        "        pass\n",
        DIGEST,
    ),
)

# Passages with a sync that nobody misses on the filesystems that we have, and why it is there.
SPARED: Final = {
    (
        OWNED,
        "        folder, _ = _home(owned.path, owned.home, files)\n        paths.sync(folder)\n",
    ): "ext4, XFS and Btrfs keep the name of a new file with its content; fsync(2) promises it only of the folder",
}

# How a sync is called, of a descriptor or of a folder, in Python and in SQL.
CALLED: Final = frozenset({"fsync", "fdatasync", "sync", "syncfs", "_sync_folder"})
PRAGMA: Final = "synchronous"


def syncs_of(file: Path) -> Iterator[int]:
    """The lines of a module on which something is synced."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Attribute(attr=name, lineno=line) if name in CALLED:
                yield line
            case ast.Call(func=ast.Name(id=name), lineno=line) if name in CALLED:
                yield line
            case ast.Constant(value=str(text), lineno=line) if text.startswith("PRAGMA") and PRAGMA in text:
                yield line


def lines_of(file: str, passage: str) -> range:
    """The lines that a passage is on."""
    before, _, _ = (ROOT / file).read_text().partition(passage)
    first = before.count("\n") + 1
    return range(first, first + passage.rstrip("\n").count("\n") + 1)


def wrong(sync: Sync) -> str | None:
    """What is wrong first, where its scenario is cut at every moment; None if nothing is."""
    with worlds(sync.scenario, sync.filesystem, sync.layout) as world:
        for moment in undisturbed(world):
            with world.forgetting():
                outcome = cut(world, moment)
                # What is wrong by chance, on a busy machine, is not wrong again.
                if outcome.verdict is Verdict.WRONG and cut(world, moment).verdict is Verdict.WRONG:
                    return outcome.what
    return None


def missed(sync: Sync) -> str | None:
    """``wrong``, without this sync."""
    with copied() as folder:
        path = folder / sync.file
        text = path.read_text()
        assert text.count(sync.passage) == 1, f"{sync}: the passage is no longer in {sync.file}, or not once"
        path.write_text(text.replace(sync.passage, sync.instead))
        done = run(folder, "tests.proof.syncs", "--here", sync.name, limit_s=LONGEST)
        assert done.returncode == 0, done.stderr
    return done.stdout.strip() or None


def proven(sample: Sample) -> Iterator[Outcome]:
    """Each is one run."""
    return (noticed(sync.name, partial(missed, sync)) for n, sync in enumerate(SYNCS, 1) if sample.takes(n))


PROOFS: Final = (Proof("copies, blocks, a plugin's operation", "a sync left out, then power cuts", proven),)


def main(args: list[str]) -> int:
    if args[:1] == ["--here"]:
        (sync,) = (each for each in SYNCS if each.name == args[1])
        print(wrong(sync) or "")
        return 0
    survivors = 0
    for sync in SYNCS:
        if args and not any(name in sync.name for name in args):
            continue
        began = time.monotonic()
        what = missed(sync)
        survivors += what is None
        print(
            f"{'missed' if what else 'NOT MISSED':10} {sync}, {time.monotonic() - began:.0f} s: {what}", flush=True
        )
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
