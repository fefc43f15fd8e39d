"""The floor: what trio itself costs. ``python -m tests.benchmarks.echo SOCKET (lines|json)``.

Sends every line back, by itself, as it came or as orjson writes what orjson read: the simplest server there is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import orjson
import trio


def as_it_came(line: bytes) -> bytes:
    return line + b"\n"


def through_orjson(line: bytes) -> bytes:
    return orjson.dumps(orjson.loads(line), option=orjson.OPT_APPEND_NEWLINE)


async def main(path: str, say: Callable[[bytes], bytes]) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        rest = b""
        async with stream:
            while data := await stream.receive_some(65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    await stream.send_all(say(line))

    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(path)
    listening.listen(4096)
    await trio.serve_listeners(talk, [trio.SocketListener(listening)])


if __name__ == "__main__":
    trio.run(main, sys.argv[1], {"lines": as_it_came, "json": through_orjson}[sys.argv[2]])
