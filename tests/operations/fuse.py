"""A FUSE filesystem of a few files, and no library: ``python -m tests.operations.fuse FOLDER FILES [restless]``.

``FILES`` is JSON: by name, the number of the inode and the content. All are in the root, whose number is 1, as
always on FUSE. A ``restless`` one gives a file another number whenever it is looked up, as libfuse may without
``use_ino``. It prints a line when it is mounted, and ends when it is unmounted.

The messages are those of linux/fuse.h, protocol 7.31.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import struct
import sys
from enum import IntEnum


class Op(IntEnum):
    LOOKUP, FORGET, GETATTR, SETATTR, UNLINK = 1, 2, 3, 4, 10
    OPEN, READ, STATFS, RELEASE, FSYNC, FLUSH, INIT = 14, 15, 17, 18, 20, 25, 26
    OPENDIR, RELEASEDIR, FSYNCDIR, BATCH_FORGET = 27, 29, 30, 42


class Filesystem:
    def __init__(self, files: dict[str, tuple[int, str]], *, restless: bool) -> None:
        self.names = {name: ino for name, (ino, _) in files.items()}
        self.content = {ino: text.encode() for ino, text in files.values()}
        self.restless = restless

    def answer(self, op: int, node: int, body: bytes) -> bytes:
        """
        Raises:
            OSError: what the kernel is told instead.
        """
        match op:
            case Op.INIT:
                return struct.pack("<IIIIHHIIHHI", 7, 31, 1 << 16, 0, 12, 10, 1 << 16, 1, 0, 0, 0) + bytes(24)
            case Op.LOOKUP:
                ino = self.find(body)
                return struct.pack("<QQQQII", ino, 0, 0, 0, 0, 0) + self.attributes(ino)
            case Op.GETATTR | Op.SETATTR:
                return struct.pack("<QII", 0, 0, 0) + self.attributes(node)
            case Op.OPEN | Op.OPENDIR:
                return struct.pack("<QII", 1, 0, 0)
            case Op.READ:
                _, offset, size = struct.unpack_from("<QQI", body)
                return self.content[node][offset : offset + size]
            case Op.STATFS:
                return struct.pack("<QQQQQIIII", 1000, 1000, 1000, 100, 100, 4096, 255, 4096, 0) + bytes(24)
            case Op.UNLINK:
                self.find(body)
                del self.names[name_in(body)]
                return b""
            case Op.RELEASE | Op.RELEASEDIR | Op.FLUSH | Op.FSYNC | Op.FSYNCDIR:
                return b""
        raise OSError(errno.ENOSYS, "not made")

    def find(self, body: bytes) -> int:
        name = name_in(body)
        if name not in self.names:
            raise FileNotFoundError(errno.ENOENT, name)
        ino = self.names[name]
        if self.restless:
            self.names[name] = max(self.content) + 1
            self.content[self.names[name]] = self.content[ino]
        return ino

    def attributes(self, ino: int) -> bytes:
        folder = ino == 1
        mode, size = (stat.S_IFDIR | 0o755, 4096) if folder else (stat.S_IFREG | 0o600, len(self.content[ino]))
        times = (0,) * 6
        return struct.pack("<QQQ3Q3I7I", ino, size, 1, *times, mode, 1, 0, 0, 0, 4096, 0)


def name_in(body: bytes) -> str:
    return body.rstrip(b"\0").decode()


def serve(fuse: int, filesystem: Filesystem) -> None:
    """Until it is unmounted."""
    while True:
        try:
            message = os.read(fuse, 1 << 20)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.EINTR, errno.ENOENT):  # whoever asked has gone
                continue
            raise
        _, op, unique, node = struct.unpack_from("<IIQQ", message)
        if op in (Op.FORGET, Op.BATCH_FORGET):
            continue
        try:
            number, reply = 0, filesystem.answer(op, node, message[40:])
        except OSError as error:
            number, reply = error.errno or errno.EIO, b""
        os.write(fuse, struct.pack("<IiQ", 16 + len(reply), -number, unique) + reply)


def main(folder: str, files: str, *words: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"taskd-test", os.fsencode(folder), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), f"mount {folder}")
    print("mounted", flush=True)
    serve(fuse, Filesystem(json.loads(files), restless="restless" in words))


if __name__ == "__main__":
    main(*sys.argv[1:])
