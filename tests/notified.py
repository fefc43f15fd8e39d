"""The manager's end of sd_notify(3), held by a test."""

from __future__ import annotations

import socket

import attrs


@attrs.frozen
class Notified:
    """The manager's end of NOTIFY_SOCKET."""

    sock: socket.socket

    def next(self) -> list[str]:
        """The assignments of the next datagram."""
        return self.sock.recv(4096).decode().split("\n")

    def until(self, assignment: str) -> list[list[str]]:
        """The datagrams up to the one that has ``assignment``, and that."""
        found = [self.next()]
        while assignment not in found[-1]:
            found.append(self.next())
        return found

    def all(self) -> list[list[str]]:
        """What has come so far."""
        found = []
        self.sock.setblocking(False)
        try:
            while True:
                found.append(self.next())
        except BlockingIOError:
            return found
