"""Plays the files in ``examples/sessions`` to a daemon, or records what it answers: ``python -m tests.sessions``.

``>`` is a line that is sent, ``<`` one that comes; the first line names the framing. Ids are others each time: the
first to come is the first of ``IDS`` in the file, and so on. Times, rates and revisions are not compared; machine
and user have the names of the file. Where a bare ``<`` stands, a reply is still to be recorded.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, Protocol

import attrs
from websockets.sync.client import ClientConnection, unix_connect

from tests.process import PATIENCE, DaemonProcess

FOLDER: Final = Path(__file__).parent.parent / "examples" / "sessions"

# Where the files lie that are spoken of; a fresh folder takes its place.
DEMO: Final = "/tmp/demo"

IDS: Final = [f"{n}4e2a0c{n}-5b1d-4c0a-9f3e-7d6c5b4a39{n}0" for n in range(1, 10)]

UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

EXCHANGE: Final = re.compile(r"((?:^>.*\n)+)((?:^<.*\n)*)", re.MULTILINE)

# What is another each time.
MASKS: Final = [
    (re.compile(pattern), mask)
    for pattern, mask in (
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME"),
        (r"\d{8}T\d\d:\d\d:\d\dZ", "TIME"),
        (r'"(ctime|duration|rate|eta_s|moved_at)":(null|"[^"]*"|[\d.e-]+)', r'"\1":NUMBER'),
        (r"\b1\d{12}\b", "MILLISECONDS"),
        (r'"revision":\d+', '"revision":NUMBER'),
        # How a copy is made is the filesystem's affair.
        (r'"method":"(reflink|copy_file_range|read_write)"', '"method":"WAY"'),
        (r'"loop_lag_s":[\d.e-]+', '"loop_lag_s":NUMBER'),
        (r"(?i)content-length: \d+", "content-length: N"),
    )
]


class Peer(Protocol):
    """One connection. ``whole``: the lines of an exchange are one message; else each is one."""

    whole: bool

    def send(self, text: str) -> None: ...

    def receive(self) -> str:
        """The next message as its text; EOFError where there is none."""


class Stream:
    """The socket itself, in one of the framings that need no handshake."""

    def __init__(self, path: str, framing: str) -> None:
        self.framing, self.whole = framing, framing in ("HTTP", "headers")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, text: str) -> None:
        ends = {"lines": "\n", "digits": ""}
        end = ends.get(self.framing, "\r\n" if text.endswith("\r\n") else "")
        self._socket.sendall((text + end).encode())

    def receive(self) -> str:
        if self.framing == "lines":
            data = self._file.readline().removesuffix(b"\n")
        elif self.framing == "digits":
            data = self._file.read(16)
            data += self._file.read(int(data or b"0"))
        else:
            data = b""
            while (line := self._file.readline()) not in (b"\r\n", b""):
                data += line
            length = re.search(rb"(?i)content-length: (\d+)", data)
            data += line + self._file.read(int(length[1]) if length else 0)
        if not data:
            raise EOFError
        return data.decode()

    def rest(self) -> str:
        """What still comes when nothing more is sent."""
        self._socket.shutdown(socket.SHUT_WR)
        return self._file.read().decode()


class WebSocket:
    """A WebSocket, for PyPI's ``websockets``."""

    whole = False

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def send(self, text: str) -> None:
        self._connection.send(text)

    def receive(self) -> str:
        return str(self._connection.recv(PATIENCE))


@attrs.define
class Names:
    """Which of ``IDS`` an id of this daemon's is, and where the files lie."""

    folder: str
    _ids: dict[str, str] = attrs.field(factory=dict)

    def said(self, text: str) -> str:
        """As it is sent."""
        for actual, id in self._ids.items():
            text = text.replace(id, actual)
        return text.replace(DEMO, self.folder)

    def heard(self, text: str) -> str:
        """As it is in the file."""
        for actual in UUID.findall(text):
            self._ids.setdefault(actual, IDS[len(self._ids)])
        text = UUID.sub(lambda match: self._ids[match[0]], text).replace(self.folder, DEMO)
        text = text.replace(f'"resident_on":"{socket.gethostname()}"', '"resident_on":"host"')
        user = pwd.getpwuid(os.getuid()).pw_name
        return text.replace(f'"{user}"', '"root"').replace(f">{user}<", ">root<")


@attrs.frozen
class Exchange:
    """What is sent, and what comes then, by lines."""

    sent: Sequence[str]
    heard: Sequence[str]


def exchanges(text: str) -> Iterator[Exchange]:
    for parts in EXCHANGE.findall(text):
        yield Exchange(*([line[2:] for line in part.splitlines()] for part in parts))


@contextmanager
def connect(text: str, path: str) -> Iterator[Stream | WebSocket]:
    """As the first line has it: ``# lines``, ``# HTTP``, ``# headers``, ``# digits`` or ``# WebSocket URI``."""
    framing, _, uri = text[2 : text.index(":")].partition(" ")
    if framing == "WebSocket":
        with unix_connect(path, f"ws://taskd{uri}", close_timeout=PATIENCE) as connection:
            yield WebSocket(connection)
    else:
        with closing(Stream(path, framing)) as stream:
            yield stream


def play(peer: Peer, exchange: Exchange, names: Names) -> list[str]:
    """Send what is to be sent; as many replies as are to come, as lines of the file."""
    if peer.whole:
        peer.send(names.said("\r\n".join(exchange.sent)))
        return names.heard(peer.receive()).replace("\r\n", "\n").rstrip("\n").split("\n")
    for line in exchange.sent:
        peer.send(names.said(line))
    return [names.heard(peer.receive()) for _ in exchange.heard]


def masked(lines: Sequence[str]) -> list[str]:
    text = "\n".join(lines)
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return text.split("\n")


def record(text: str, peer: Peer, names: Names) -> str:
    """The file with the replies that come."""

    def replied(match: re.Match[str]) -> str:
        [exchange] = exchanges(match[0])
        return match[1] + "".join(f"< {line}".rstrip() + "\n" for line in play(peer, exchange, names))

    return EXCHANGE.sub(replied, text)


def main() -> None:
    for file in sorted(FOLDER.iterdir()):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "disk.img").write_bytes(bytes(1 << 20))
            daemon = DaemonProcess(folder)
            daemon.start()
            stack.callback(daemon.end)
            text = file.read_text()
            peer = stack.enter_context(connect(text, daemon.socket))
            file.write_text(record(text, peer, Names(str(folder))))


if __name__ == "__main__":
    main()
