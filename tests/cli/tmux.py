"""A real terminal of 80 columns, by tmux: what is typed, and what is then on the screen."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.process import PATIENCE


@attrs.frozen
class Terminal:
    """One window of a tmux server of its own, whose socket is ``server``."""

    server: Path

    def tmux(self, *args: str) -> str:
        command = ["tmux", "-f", os.devnull, "-S", str(self.server), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def screen(self) -> str:
        """Its lines, without what is empty at their ends; those that were wrapped are whole."""
        return "\n".join(line.rstrip() for line in self.tmux("capture-pane", "-p", "-J").splitlines()).rstrip()

    def until(self, seen: str | Callable[[str], bool]) -> str:
        """The screen when it shows the text, or what is asked of it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            screen = self.screen()
            if seen in screen if isinstance(seen, str) else seen(screen):
                return screen
            assert time.monotonic() < deadline, f"no {seen!r} in:\n{screen}"
            time.sleep(0.05)


@contextmanager
def terminal(folder: Path, command: str, env: Mapping[str, str]) -> Iterator[Terminal]:
    """A terminal in which ``command`` runs, with ``env`` and nothing else in its environment."""
    shown = Terminal(folder / "tmux")
    settings = [each for name, value in env.items() for each in ("-e", f"{name}={value}")]
    shown.tmux("new-session", "-d", "-x", "80", "-y", "24", *settings, f"exec {command}")
    try:
        yield shown
    finally:
        shown.tmux("kill-server")
