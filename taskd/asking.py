"""One connection to the daemon, one call after the other: the least that speaks JSON-RPC 2.0 on its stream.

Not ``taskd.client``: to import that takes longer than a call, and more than ten times as long as this.
"""

from __future__ import annotations

import json
import socket
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from taskd.model import JSON

# Seconds that a reply may take. Nobody else ends a script whose daemon hangs: xapi-storage-script has no timeout.
PATIENCE_S: Final = 60.0

CHUNK: Final = 65536


class Asking(AbstractContextManager["Asking"]):
    """A connection to the daemon that listens on the Unix socket ``path``; closed at the end. A reply may take
    ``patience_s`` seconds.

    Raises:
        OSError: on entering and on asking, where nobody answers. After that it answers nothing more.
    """

    def __init__(self, path: str, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._patience_s = patience_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(patience_s)

    def __enter__(self) -> Asking:
        try:
            self._socket.connect(self._path)
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, method: str, params: dict[str, JSON]) -> JSON:
        """The bare result of a method.

        Raises:
            BadParams: JSON cannot say the params; nothing was asked.
            Refused: the daemon does not grant it.
            OSError: there is no reply in time, or none that a daemon would give.
        """
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
        try:
            data = json.dumps(request, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            from taskd.errors import BadParams

            raise BadParams("params", f"JSON cannot say it: {error.reason}") from None
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what the daemon said before it hung up tells more; it is read next
        match self._reply():
            case {"result": result}:
                return result
            case {"error": error}:
                from taskd.client.conversation import refusal

                raise refusal(error)
        raise ConnectionError("what answers does not speak as taskd does")

    def _reply(self) -> JSON:
        """The next value; a line break ends it, and no other is in it."""
        line = bytearray()
        while not line.endswith(b"\n"):
            try:
                chunk = self._socket.recv(CHUNK)
            except TimeoutError:
                raise TimeoutError(f"no reply within {self._patience_s:g} seconds") from None
            if not chunk:
                raise ConnectionError("the connection was closed")
            line += chunk
        try:
            return json.loads(line)
        except ValueError:
            return None
