"""xapi-storage-script's side of the contract with a script: how it is found, what it is given, how it is read.

The facts are those of xapi-project/xen-api, ocaml/xapi-storage-script/main.ml, ``fork_exec_rpc`` and ``Script``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from taskd.model import JSON
from tests.process import PATIENCE

PROGRAM = Path(sys.executable).with_name("taskd-smapi")


@attrs.frozen
class BackendError(Exception):
    """``Backend_error_with_backtrace``."""

    code: str
    params: list[str]
    backtrace: dict[str, JSON]


@attrs.frozen
class Plugin:
    """A folder of scripts; a call is a method of SMAPIv3."""

    folder: Path
    socket: str

    def find(self, method: str) -> Path:
        """In any case; of several the first; a regular file, links followed, that may be run."""
        path = self.folder / min(name for name in os.listdir(self.folder) if name.lower() == method.lower())
        assert path.is_file()
        assert os.access(path, os.X_OK)
        return path

    def run(self, method: str, stdin: bytes, options: tuple[str, ...] = ("--json",)) -> tuple[int, str]:
        """The exit status and what is printed; nothing is, where nobody reads it."""
        done = subprocess.run(
            [self.find(method), *options],
            input=stdin,
            env=os.environ | {"TASKD_SOCKET": self.socket},
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.stderr == b""
        return done.returncode, done.stdout.decode()

    def __call__(self, method: str, **args: JSON) -> JSON:
        return taken(*self.run(method, json.dumps(args).encode()))


def taken(status: int, stdout: str) -> JSON:
    """The result of a script.

    Raises:
        BackendError: it says that there is none.
    """
    said: JSON = json.loads(stdout, parse_constant=pytest.fail)
    if status == 0:
        return said
    assert status == 1
    assert isinstance(said, dict)
    match said:
        case {"code": str(code), "params": [*params], "backtrace": dict(backtrace)}:
            assert len(said) == 3
        case _:
            pytest.fail(f"SCRIPT_FAILED: {stdout}")
    texts = [text for text in params if isinstance(text, str)]
    assert texts == params
    match backtrace:
        case {"error": str(), "files": [*files], "lines": [*lines]}:
            assert len(backtrace) == 3
        case _:
            pytest.fail(f"no backtrace: {stdout}")
    assert all(isinstance(file, str) for file in files)
    assert all(type(line) is int for line in lines)
    assert len(files) == len(lines) > 0
    raise BackendError(code, texts, backtrace)


def program(*args: str | Path, cwd: Path | None = None) -> tuple[int, str, str]:
    """``taskd-smapi`` by its own name."""
    done = subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=cwd)
    return done.returncode, done.stdout, done.stderr
