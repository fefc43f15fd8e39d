"""``copy``: a disk image, or some blocks of it, into a file or onto a block device; whole, or never made.

A new file gets its name when it is complete, and never a name that is taken. With ``overwrite`` an existing file
stays byte for byte as it was until the commit and is then replaced: its owner stays, other hard links to it keep
the old content, extended attributes are not carried over. ``blocks`` go into a copy of the file that replaces it,
owner, mode and access list kept; where that cannot be (hard links, no rename, no room), and onto a device, they
are written in place, and undo puts back what was there.

All of it is done with the rights of whoever started it. What a user who is no admin cannot do, as to give a new
file somebody else's owner, is refused.

Holes stay holes. The mode is the source's, without what it would give to the group that the source's access list
does not; a new file made from a device is 0600, for a device's content is meant for those who may open its node.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

import attrs

from taskd.errors import BadParams, SameFile, TargetExists, TargetTooSmall
from taskd.operations import Handle, Operation
from taskd.operations.image import (
    Image,
    Ranges,
    Target,
    blaming,
    clipped,
    find_target,
    merged,
    open_image,
    open_source,
    require_replaceable,
)
from taskd.operations.image.device import layers, overlap, require_writable
from taskd.operations.image.owned import discard, replace, unlink
from taskd.operations.image.paths import folder_of, real
from taskd.operations.image.preimage import restore
from taskd.operations.image.ways import Copy, anew, aside, in_place
from taskd.operations.image.work import Passes, descriptors, in_thread


@attrs.frozen
class Blocklist:
    """Which blocks to copy, as SMAPIv3 says it."""

    blocksize: int = attrs.field(metadata={"doc": "bytes in a block"})
    ranges: tuple[tuple[int, ...], ...] = attrs.field(
        metadata={"doc": "pairs of first block and number of blocks; they may overlap"}
    )


@attrs.frozen
class CopyParams:
    """Params of ``copy``."""

    source: str = attrs.field(metadata={"doc": "absolute path of a regular file or block device"})
    target: str = attrs.field(metadata={"doc": "absolute path of a file, new or not, or of a block device"})
    overwrite: bool = attrs.field(
        default=False, metadata={"doc": "replace a target that exists; a block device always exists"}
    )
    blocks: Blocklist | None = attrs.field(
        default=None, metadata={"doc": "copy only these blocks, each to the same place; null: all"}
    )
    rate_limit: int | None = attrs.field(
        default=None, metadata={"doc": "bytes per second, for each pass over the bytes; null: no limit"}
    )
    verify: bool = attrs.field(
        default=False, metadata={"doc": "read back from the disk and compare before the target counts"}
    )


def check(params: CopyParams) -> None:
    """Refuse what cannot be done.

    Raises:
        BadParams, SourceMissing, NotAnImage, SameFile, TargetExists, FolderMissing, TargetTooSmall, OsRefusal.
    """
    with ExitStack() as files:
        look(params, files)


def look(params: CopyParams, files: ExitStack) -> tuple[Image, Target, Ranges]:
    """``check``, and what was found: source (open in ``files``), target, ranges of the source in bytes."""
    for name, path in (("source", params.source), ("target", params.target)):
        _check_path(f"params.{name}", path)
    if params.rate_limit is not None and params.rate_limit <= 0:
        raise BadParams("params.rate_limit", "must be more than 0 bytes per second")
    if params.blocks is not None:
        _check_blocks(params.blocks)
    source = open_source(params.source, files)
    target = find_target(params.target, overwrite=params.overwrite)
    if target.stat is not None:
        if _same(source.stat, target):
            raise SameFile(params.source, params.target)
        if not params.overwrite:
            raise TargetExists(params.target)
    ranges = merged([(0, source.size)]) if params.blocks is None else _bytes(params.blocks, source)
    if target.device:
        with blaming(target.path), ExitStack() as own:
            image = open_image(target.path, os.O_RDONLY, own)
            require_writable(image)
            size = image.size
        needed = ranges[-1][1] if ranges else 0
        if size < needed:
            raise TargetTooSmall(params.target, size, needed)
    elif target.stat is not None and params.blocks is None:
        require_replaceable(target)
    return source, target, ranges


def _check_path(where: str, path: str) -> None:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise BadParams(where, "is no path: it cannot be encoded") from None
    if not path.startswith("/"):
        raise BadParams(where, "must be an absolute path")
    if "\0" in path:
        raise BadParams(where, "must not contain NUL")
    if path.endswith("/"):
        raise BadParams(where, "must name a file, and not end in '/'")


def _check_blocks(blocks: Blocklist) -> None:
    if blocks.blocksize < 1:
        raise BadParams("params.blocks.blocksize", "must be at least 1 byte")
    for n, pair in enumerate(blocks.ranges):
        if len(pair) != 2:
            raise BadParams(f"params.blocks.ranges[{n}]", "must be a pair: first block, number of blocks")
        if min(pair) < 0:
            raise BadParams(f"params.blocks.ranges[{n}]", "must not be negative")


def _bytes(blocks: Blocklist, source: Image) -> Ranges:
    """The blocks as ranges in bytes; the source may end within its last block."""
    for n, (start, length) in enumerate(blocks.ranges):
        if length and (start + length - 1) * blocks.blocksize >= source.size:
            fault = f"goes past the end of the source, which has {source.size} bytes"
            raise BadParams(f"params.blocks.ranges[{n}]", fault)
    size = blocks.blocksize
    return clipped(merged((s * size, (s + length) * size) for s, length in blocks.ranges), source.size)


def _same(source: os.stat_result, target: Target) -> bool:
    assert target.stat is not None
    if target.device and source.st_rdev:
        return overlap(source.st_rdev, target.stat.st_rdev)
    # One of them may be the loop device that shows the other.
    return not set(layers(source)).isdisjoint(layers(target.stat))


async def run(params: CopyParams, handle: Handle) -> None:
    """Copy, and commit with the result ``{bytes, source_bytes, copied, method, way}``.

    ``bytes`` is the size of the target, ``copied`` how many really moved (none by a reflink). On cancel and on
    error the journal undoes it, and what is open is closed here.
    """
    async with descriptors() as files:
        source, target, ranges = await in_thread(look, params, files)
        passes = Passes(handle.progress, params.rate_limit)
        copy = Copy(handle, passes, source, target, ranges, params.target, params.overwrite, params.verify)
        if target.device:
            await in_place(copy, files)
        elif params.blocks is None or target.stat is None:
            await anew(copy, files, whole=params.blocks is None)
        elif not await aside(copy):
            await in_place(copy, files)


def targets(params: CopyParams) -> frozenset[str]:
    """The target as it is called, by its name in its folder, and by what is there now: a file may have several
    names, a disk its partitions, both a loop device; and at a start what is owed to it may come before its
    filesystem or device does.
    """
    keys = {f"path {os.path.normpath(params.target)}"}
    # What is not there, or cannot be looked at, is refused when the copy looks.
    with suppress(OSError, ValueError), ExitStack() as files:
        folder, name = folder_of(real(params.target), files)
        home = os.fstat(folder)
        keys.add(f"name {home.st_dev}:{home.st_ino} {name}")
        keys.update(layers(os.stat(name, dir_fd=folder, follow_symlinks=False)))
    return frozenset(keys)


OPERATION = Operation(
    name="copy",
    summary="Copy a disk image, or some blocks of it, to a file or a block device",
    params=CopyParams,
    run=run,
    verbs={"unlink": unlink, "discard": discard, "replace": replace, "restore": restore},
    check=check,
    targets=targets,
    restartable=True,
    roles=frozenset({"admin", "service", "user"}),
    paths=lambda params: (params.source, params.target),
    label=lambda params: f"copy {params.source} to {params.target}",
)
