"""Moving the bytes of an image: extents, methods, chunks. All of it blocks; ``work`` drives it in threads.

A ``Transfer`` goes through pieces of its source in order, a bounded step at a time. It tries the cheapest
method first (reflink, ``copy_file_range``, read and write) and falls to the next one where the kernel refuses;
the last one meets every true error itself, and so knows whether the source or the target is at fault.
How bytes are put into the target is a function: plainly, or only where they differ from what is known to be
there; verifying is a transfer whose ``put`` compares.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final

import attrs

from taskd.errors import OsRefusal, VerifyFailed
from taskd.operations.image import Image, Ranges, blaming, kernel

# What a chunk may be: from, at first, at most. One that was quick doubles it, a slow one halves it.
_LEAST, _FIRST, _MOST = 256 << 10, 1 << 20, 16 << 20
_QUICK_S, _SLOW_S = 0.010, 0.040

# Sharing blocks moves none: it takes its time per extent, and a chunk can span more.
_SHARE_FACTOR: Final = 256

_BUFFER: Final = 1 << 20
_GRAIN: Final = 4096
_ZEROS: Final = bytes(_BUFFER)


class Method(StrEnum):
    """How bytes got into the target; the value is the word in the task's result."""

    NONE = "none"
    REFLINK = "reflink"
    KERNEL = "copy_file_range"
    READ_WRITE = "read_write"


@attrs.frozen
class Piece:
    """``length`` bytes at ``source``, to go to ``target``; all in bytes."""

    source: int
    target: int
    length: int


Put = Callable[[Image, memoryview, int], None]


def pieces_of(ranges: Ranges) -> tuple[Piece, ...]:
    """Each range to the same offset."""
    return tuple(Piece(start, start, end - start) for start, end in ranges)


def packed(ranges: Ranges) -> tuple[Piece, ...]:
    """The ranges one after the other, without what lies between them."""
    pieces, at = [], 0
    for start, end in ranges:
        pieces.append(Piece(start, at, end - start))
        at += end - start
    return tuple(pieces)


def put(target: Image, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(target.fd, data, at)
        data, at = data[written:], at + written


def put_sparse(target: Image, data: memoryview, at: int) -> None:
    """For a target that is all holes: zeros stay holes."""
    for start, end in differing(data, _ZEROS[: len(data)]):
        put(target, data[start:end], at + start)


def put_changed(target: Image, data: memoryview, at: int) -> None:
    """Only what is not there already: what was never overwritten needs no new blocks on a full disk."""
    try:
        present = os.pread(target.fd, len(data), at)
    except OSError:
        present = b""  # a sector torn by a power cut reads as an error until it is written
    for start, end in differing(data, present):
        put(target, data[start:end], at + start)


@attrs.define(eq=False)
class Digest:
    """What was put, as a SHA-256: by blocks, each with its place, but for those that are all zeros.

    So a hole and zeros are alike, and so are chunks of any size; they come in order.
    """

    _sum: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _at: int = 0
    _block: bytearray = attrs.field(factory=lambda: bytearray(_BUFFER))

    def put(self, target: Image, data: memoryview, at: int) -> None:
        """As ``put``; writes nothing."""
        while data:
            into = at % _BUFFER
            if at - into != self._at:
                self._close(at - into)
            part = data[: _BUFFER - into]
            self._block[into : into + len(part)] = part
            data, at = data[len(part) :], at + len(part)

    def _close(self, next: int) -> None:
        if self._block != _ZEROS:
            self._sum.update(self._at.to_bytes(8, "big"))
            self._sum.update(self._block)
            self._block[:] = _ZEROS
        self._at = next

    def text(self) -> str:
        """The digest, in hexadecimal digits; nothing is put after it."""
        self._close(self._at)
        return self._sum.hexdigest()


def compare(target: Image, data: memoryview, at: int) -> None:
    """
    Raises:
        VerifyFailed: the target holds something else.
    """
    present = os.pread(target.fd, len(data), at)
    for start, end in differing(data, present):
        offset = next((i for i in range(start, end) if present[i : i + 1] != data[i : i + 1]), start)
        raise VerifyFailed(target.path, at + offset)


def differing(data: memoryview, other: bytes) -> Iterator[tuple[int, int]]:
    """The runs of blocks, as offsets into ``data``, in which the two differ."""
    if data == other:
        return
    begin = None
    for at in range(0, len(data), _GRAIN):
        if data[at : at + _GRAIN] == other[at : at + _GRAIN]:
            if begin is not None:
                yield begin, at
            begin = None
        elif begin is None:
            begin = at
    if begin is not None:
        yield begin, len(data)


def data_extent(fds: Sequence[int], at: int, end: int) -> tuple[int, int]:
    """The first stretch from ``at`` on in which one of the files has data; ``(end, end)`` if there is none."""
    return min((_data_extent(fd, at, end) for fd in fds), default=(at, end))


def _data_extent(fd: int, at: int, end: int) -> tuple[int, int]:
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
        stop = os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end, end
        return at, end  # a device, or a filesystem that knows no holes
    return min(start, end), min(stop, end)


@attrs.define(eq=False)
class Writeback:
    """What was written and may not be on the disk yet, oldest first; so that the last fsync is short.

    ``behind`` is bytes that were written; the holes between them are nothing to wait for.
    """

    target: Image
    behind: int = 0
    _ranges: deque[tuple[int, int, int]] = attrs.field(factory=deque)
    _window: int = _FIRST

    def start(self, start: int, end: int, written: int) -> None:
        with blaming(self.target.path):
            kernel.start_writeback(self.target.fd, start, end - start)
        self._ranges.append((start, end, written))
        self.behind += written

    def wait(self) -> None:
        """Wait for the oldest of it, for about as long as a chunk may take."""
        start, end, written = self._ranges.popleft()
        stop, waited = end, written
        if written > self._window:
            stop, waited = start + (end - start) * self._window // written, self._window
            self._ranges.appendleft((stop, end, written - waited))
        began = time.perf_counter()
        with blaming(self.target.path):
            kernel.await_writeback(self.target.fd, start, stop - start)
        self._window = _adapted(self._window, time.perf_counter() - began)
        self.behind -= waited


def _adapted(size: int, spent: float) -> int:
    if spent < _QUICK_S:
        return min(size * 2, _MOST)
    return max(size // 2, _LEAST) if spent > _SLOW_S else size


def _queue(pieces: Iterable[Piece]) -> deque[Piece]:
    return deque(pieces)


@attrs.define(eq=False)
class Transfer:
    """``passed`` counts the bytes of the pieces that are done, ``copied`` those that really moved.

    ``sparse`` names the descriptors whose holes are left out: a stretch that is a hole in all of them is not
    touched. With none, everything is moved, holes as zeros.
    """

    source: Image
    target: Image
    pieces: deque[Piece] = attrs.field(converter=_queue)
    method: Method = Method.READ_WRITE
    put: Put = put
    sparse: Sequence[int] = ()
    writeback: Writeback | None = None
    passed: int = 0
    copied: int = 0
    used: Method = Method.NONE
    _into: int = 0  # bytes of the first piece that are done
    _data_end: int = 0
    _chunk: int = _FIRST
    _buffer: bytearray = attrs.field(factory=lambda: bytearray(_BUFFER))

    @property
    def unfinished(self) -> bool:
        return bool(self.pieces)

    def advance(self, most: int | None = None) -> int:
        """Move a chunk, at most ``most`` bytes; return how many really moved.

        Raises:
            SourceChanged: the source ended too early.
            OsRefusal: with the path of the one at fault.
            VerifyFailed: it was to be compared, and differs.
        """
        began, before, moved = time.perf_counter(), self.copied, 0
        limit = self._chunk if most is None else min(self._chunk, most)
        first = last = self.pieces[0].target + self._into
        while self.pieces and moved < limit and time.perf_counter() - began < _QUICK_S:
            piece = self.pieces[0]
            step = self._step(piece, limit - moved)
            self._into += step
            self.passed += step
            moved = self.copied - before
            last = piece.target + self._into
            if self._into == piece.length:
                self.pieces.popleft()
                self._into = 0
        if self.writeback is not None and moved:
            self.writeback.start(first, last, moved)
        self._chunk = _adapted(self._chunk, time.perf_counter() - began)
        return moved

    def _step(self, piece: Piece, limit: int) -> int:
        """One step into a piece, over a hole and into the data behind it: how many bytes of it are done."""
        at, end = piece.source + self._into, piece.source + piece.length
        if self.method is Method.REFLINK:
            shared = min(end - at, self._chunk * _SHARE_FACTOR)
            try:
                kernel.clone_range(self.source.fd, self.target.fd, at, shared)
            except OSError:
                self.method = Method.KERNEL
            else:
                self.used = Method.REFLINK
                return shared
        start, stop = at, end
        if self.sparse:
            if at >= self._data_end:
                start, self._data_end = data_extent(self.sparse, at, end)
            stop = self._data_end
        if start == end:
            return end - at
        moved = self._move(start, piece.target + start - piece.source, min(stop - start, limit))
        self.copied += moved
        return start - at + moved

    def _move(self, at: int, to: int, length: int) -> int:
        source, target = self.source.fd, self.target.fd
        if self.method is Method.KERNEL:
            try:
                moved = os.copy_file_range(source, target, length, at, to)
            except OSError:
                moved = 0
            if moved:
                self.used = Method.KERNEL
                return moved
            self.method = Method.READ_WRITE
        data = memoryview(self._buffer)[:length]
        with blaming(self.source.path):
            got = os.preadv(source, [data], at)
        if not got:
            self.source.unchanged()
            raise OsRefusal(self.source.path, "EIO", "it ends before its size")
        with blaming(self.target.path):
            self.put(self.target, data[:got], to)
        self.used = Method.READ_WRITE
        return got
