"""Where the daemon listens, keeps its state and reads its settings when nothing else is said.

A room of its own, of nothing but ``os``: ``config`` has these as its defaults, and a program that is started for
every call finds the socket without what ``config`` needs.
"""

from __future__ import annotations

import os
from typing import Final

# Root's.
SOCKET: Final = "/run/taskd/taskd.sock"
STATE: Final = "/var/lib/taskd"
FILE: Final = "/etc/taskd/taskd.toml"


def _default_path(root: str, variable: str, fallback: str, name: str) -> str:
    if os.geteuid() == 0:
        return root
    return os.path.join(os.environ.get(variable) or os.path.expanduser(fallback), "taskd", name)


def default_socket() -> str:
    """Where the daemon listens and clients look when nothing else is said; no underscore of ours in it.

    Never in a folder where others may make files: whoever is there first would be taken for the daemon.
    """
    return _default_path(SOCKET, "XDG_RUNTIME_DIR", "~/.local/state", "taskd.sock")


def default_state() -> str:
    """The folder of the store and of what tasks save."""
    return _default_path(STATE, "XDG_STATE_HOME", "~/.local/state", "").rstrip("/")


def default_file() -> str:
    """The settings file."""
    return _default_path(FILE, "XDG_CONFIG_HOME", "~/.config", "taskd.toml")
