"""A client that does nothing wrong: ``python -m tests.well_behaved SOCKET ID LABEL FRESH``.

It asks for one task, ``Task.get`` and ``Task.stat`` in turn, and looks at each answer: the right one, in the right
order. With FRESH every twentieth question goes over a new connection. On stdout it marks every ten answers with a
line; when its stdin ends, the last line is what it found: seconds of the worst and the median answer, and how many
there were. An answer that is wrong, or has not come in ``PATIENCE`` seconds, ends it with a traceback.
"""

from __future__ import annotations

import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRWPair
from typing import Any, Final

import attrs

# Seconds after which an answer is as good as none. A right program never comes near.
PATIENCE: Final = 30.0

# Seconds between two questions.
PACE: Final = 0.002

# Seconds in which the first question of a connection is asked.
PROMPT: Final = 1.0

FRESH: Final = 20
MARK: Final = 10


@attrs.frozen
class Found:
    """Seconds, and how many answers they were told from."""

    worst: float
    median: float
    answers: int


@attrs.define(eq=False)
class WellBehaved:
    """The process, as those see it who run it."""

    process: subprocess.Popen[bytes]
    _said: bytes = b""

    def goes_on(self, answers: int = 100) -> None:
        """Wait until so many more answers have come."""
        assert self.process.stdout is not None
        out = self.process.stdout.fileno()
        while select.select([out], [], [], 0)[0]:
            self._hear(out)
        self._said = b""
        while self._said.count(b".") < answers // MARK:
            self._hear(out)

    def _hear(self, out: int) -> None:
        said = os.read(out, 65536)
        assert said, "the other client had a wrong answer, or none"
        self._said += said

    def end(self) -> Found:
        said, _ = self.process.communicate()
        assert self.process.returncode == 0, "the other client had a wrong answer, or none"
        return Found(**json.loads(said.splitlines()[-1]))


@contextmanager
def well_behaved(path: str, id: str, label: str, *, fresh: bool = True) -> Iterator[WellBehaved]:
    """One that asks for the task ``id`` meanwhile, whose label is ``label`` and which runs."""
    command = [sys.executable, "-m", "tests.well_behaved", path, id, label, str(int(fresh))]
    process = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        client = WellBehaved(process)
        client.goes_on(MARK)
        yield client
    finally:
        process.kill()
        process.communicate()


def _connected(path: str) -> BufferedRWPair:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)  # waits in the daemon's queue
    sock.settimeout(PATIENCE)
    with sock:
        return sock.makefile("rwb")


def _asks_anew(path: str, question: bytes) -> BufferedRWPair:
    """A new connection, on which it is asked at once. Whom the machine keeps from that is not well-behaved: where
    a daemon gives its peers two seconds for their first message, that one may have been refused.
    """
    while True:
        began, stream = time.monotonic(), _connected(path)
        with suppress(BrokenPipeError):
            stream.write(question)
            stream.flush()
        if time.monotonic() - began < PROMPT:
            return stream


def _answer(stream: BufferedRWPair, number: int) -> Any:
    reply = json.loads(stream.readline())
    assert reply["id"] == number, reply
    assert "result" in reply, reply
    return reply["result"]


def main(path: str, id: str, label: str, fresh: str) -> None:
    stream = None
    took: list[float] = []
    while not select.select([sys.stdin], [], [], PACE)[0]:
        number = len(took)
        method = "Task.get" if number % 2 else "Task.stat"
        asked = {"jsonrpc": "2.0", "method": method, "params": {"id": id}, "id": number}
        question = json.dumps(asked).encode() + b"\n"
        began = time.monotonic()
        if stream is not None and fresh == "1" and number % FRESH == FRESH - 1:
            stream.close()
            stream = None
        if stream is None:
            stream = _asks_anew(path, question)
        else:
            stream.write(question)
            stream.flush()
        got = _answer(stream, number)
        if number % 2:
            assert (got["id"], got["label"], got["state"]) == (id, label, "running"), got
        else:
            assert (got["id"], got["state"]) == (id, ["Pending", 0.0]), got
        took.append(time.monotonic() - began)
        assert took[-1] < PATIENCE, took[-1]
        if len(took) % MARK == 0:
            print(".", flush=True)
    found = Found(max(took), statistics.median(took), len(took))
    print(json.dumps(attrs.asdict(found)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
