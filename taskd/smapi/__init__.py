"""``taskd-smapi``: one SMAPIv3 call, as xapi-storage-script makes it: a process for each.

The law (xapi-project/xen-api, ocaml/xapi-storage-script/main.ml, ``fork_exec_rpc`` and ``Script``):

- the name of the file that is run is the method, in any case; a link is as good as a file;
- argv is ``--json``; stdin is the object of arguments, no envelope, without a line break, closed at its end; those
  that the method does not have are passed over (mirage/ocaml-rpc, src/lib/idl.ml): a newer xapi may say more;
- stdout is one JSON value and nothing else: with exit status 0 the bare result, with status 1 an object of
  ``code``, ``params`` and ``backtrace``. With status 0 even an error would be taken for a result.

xapi waits for a copy by asking ``Data.stat`` without a pause, and each time starts a process
(ocaml/xapi/storage_smapiv3_migrate.ml). So ``Data.stat`` of one that goes on is answered when it has ended, or
after ``WAIT_S`` seconds. Its progress is not waited for: it moves many times a second, which would be no brake.

Started so often, this imports little: of ours ``places`` and ``asking`` alone, and the rest where a call has
failed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Final

from taskd.asking import Asking
from taskd.places import default_socket

if TYPE_CHECKING:
    from taskd.model import JSON

PROGRAM: Final = "taskd-smapi"

# The arguments of each method that the daemon has. It refuses others, so that what is misspelt natively is told.
ARGUMENTS: Final = {
    "Task.stat": {"dbg", "id"},
    "Task.cancel": {"dbg", "id", "must"},
    "Task.destroy": {"dbg", "id", "force"},
    "Task.ls": {"dbg"},
    "Data.copy": {"dbg", "uri", "domain", "remote", "blocklist"},
    "Data.mirror": {"dbg", "uri", "domain", "remote"},
    "Data.stat": {"dbg", "operation"},
    "Data.cancel": {"dbg", "operation"},
    "Data.destroy": {"dbg", "operation"},
    "Data.ls": {"dbg"},
    "Plugin.query": {"dbg"},
    "Plugin.ls": {"dbg"},
    "Plugin.diagnostics": {"dbg"},
}

# As plugins have their files.
NAMES: Final = tuple("Plugin.Query" if name == "Plugin.query" else name for name in ARGUMENTS)

# The daemon's word, by the name in small letters.
METHODS: Final = {name.lower(): name for name in ARGUMENTS}

# Seconds that Data.stat waits for the end.
WAIT_S: Final = 1.0

# What xapi's own scripts say of an error that is not from a table of XenAPI's.
CODE: Final = "SR_BACKEND_FAILURE"


def main() -> None:
    """The entry point; ends the process."""
    name = os.path.basename(sys.argv[0])
    if name == PROGRAM:
        from taskd.smapi import links

        sys.exit(links.run(sys.argv[1:]))
    try:
        said, status = answer(name, sys.argv[1:]), 0
    except Exception as error:  # whatever it is, the caller reads JSON
        said, status = failure(error), 1
    try:
        # Not sys.stdout, which would try once more at the exit.
        with open(1, "wb", closefd=False) as stdout:
            stdout.write(json.dumps(said).encode() + b"\n")
    except OSError as error:
        sys.exit(f"{name}: stdout: {error.strerror}")
    sys.exit(status)


def answer(name: str, options: list[str]) -> JSON:
    """The bare result of the method that a file of this ``name`` stands for, with the arguments from stdin.

    Raises:
        UnknownMethod: there is no such name.
        BadParams: options or stdin are not as they have to be; the daemon was not asked.
        Refused: the daemon does not grant it.
        NoDaemon: nobody answers; what was asked may have been done.
    """
    method = METHODS.get(name.lower())
    if method is None:
        from taskd.errors import UnknownMethod

        raise UnknownMethod(name)
    if options not in (["--json"], ["-j"]):
        from taskd.errors import BadParams

        raise BadParams(
            "options", f"expected --json and the arguments on stdin, got {' '.join(options) or 'none'}"
        )
    args = {name: value for name, value in arguments().items() if name in ARGUMENTS[method]}
    path = os.environ.get("TASKD_SOCKET") or default_socket()
    try:
        with Asking(path) as daemon:
            return data_stat(daemon, args) if method == "Data.stat" else daemon.ask(method, args)
    except OSError as error:
        from taskd.errors import NoDaemon

        raise NoDaemon(path, error.strerror or str(error)) from None


def arguments() -> dict[str, JSON]:
    """What stdin says.

    Raises:
        BadParams: that is not one JSON object.
    """
    try:
        with open(0, "rb", closefd=False) as stdin:
            args = json.loads(stdin.read())
        if isinstance(args, dict):
            return args
        fault = f"got {json.dumps(args)[:100]}"
    except (ValueError, RecursionError) as error:
        fault = str(error)
    except OSError as error:
        fault = error.strerror or str(error)
    from taskd.errors import BadParams

    raise BadParams("stdin", f"expected the arguments as one JSON object: {fault}")


def data_stat(daemon: Asking, args: dict[str, JSON]) -> JSON:
    """The status of a data operation, of one that goes on when it has ended or the wait is over."""
    said = daemon.ask("Data.stat", args)
    match said, args:
        case {"complete": False, "failed": False}, {"operation": [_, str(id)]}:
            try:
                daemon.ask("Task.wait", {"id": id, "timeout_s": WAIT_S})
                return daemon.ask("Data.stat", args)
            except OSError:
                # A daemon that is restarted meanwhile goes on with the copy; an error would end xapi's wait.
                return said
    return said


def failure(error: Exception) -> JSON:
    """An error as xapi's own scripts print it (ocaml/xapi-storage/python/xapi, ``handle_exception``)."""
    from taskd.errors import Refused, TaskdError

    match error:
        case Refused():
            name = error.error
        case TaskdError():
            name = error.name
        case _:
            name = type(error).__name__
    files: list[JSON] = []
    lines: list[JSON] = []
    place = error.__traceback__
    while place is not None:
        files.append(place.tb_frame.f_code.co_filename)
        lines.append(place.tb_lineno)
        place = place.tb_next
    backtrace: JSON = {"error": str(error), "files": files, "lines": lines}
    return {"code": CODE, "params": [name, str(error)], "backtrace": backtrace}
