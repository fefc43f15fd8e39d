#!/usr/bin/env python3
"""A garbage collector that reports on itself as XenServer's storage manager does, and that can be cancelled.

    python examples/collector.py --socket /run/taskd/taskd.sock FOLDER

removes the files in FOLDER whose names end in ``.garbage``. It speaks XenAPI through PyPI's ``xenapi``, as xapi's
own collector does (xapi-project/sm, libs/sm/cleanup.py): ``task.create``, ``other_config`` with ``applies_to``,
``set_progress`` after each piece, ``set_status`` at the end. That one never learns that somebody cancels its task;
this one asks between two pieces, stops, and says that it did.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import XenAPI


def connect(socket: str) -> Any:
    """A session on taskd's Unix socket. The kernel tells taskd who we are; name and password are not looked at.

    The client makes a path of a host name by turning each ``_`` into ``/``, so ``socket`` must have no ``_``.
    """
    session = XenAPI.Session(f"http://{socket.replace('/', '_')}/", transport=XenAPI.UDSTransport())
    session.login_with_password("root", "")
    return session


def collect(session: Any, folder: str, discard: Callable[[str], None] = os.unlink) -> str:
    """Remove the garbage in ``folder``, one file after the other; the ref of the task that tells of it.

    Each file is removed whole or not at all, so it can stop after any.
    """
    task = session.xenapi.task
    garbage = sorted(entry.path for entry in os.scandir(folder) if entry.name.endswith(".garbage"))
    ref: str = task.create("Garbage Collection", f"removes {len(garbage)} files")
    try:
        task.set_other_config(ref, {"applies_to": folder})
        for done, path in enumerate(garbage, 1):
            if "cancel" in task.get_current_operations(ref).values():
                task.set_status(ref, "cancelled")
                return ref
            discard(path)
            task.set_progress(ref, done / len(garbage))
    except OSError as error:
        task.set_error_info(ref, ["SR_BACKEND_FAILURE", str(error.filename), str(error.strerror)])
        task.set_status(ref, "failure")
    else:
        task.set_status(ref, "success")
    return ref


def main() -> None:
    parser = argparse.ArgumentParser(description="Remove FOLDER's garbage, and tell taskd how far it is.")
    parser.add_argument("--socket", default=os.environ.get("TASKD_SOCKET", "/run/taskd/taskd.sock"))
    parser.add_argument("folder")
    args = parser.parse_args()
    session = connect(os.path.abspath(args.socket))
    ref = collect(session, os.path.abspath(args.folder))
    print(ref, session.xenapi.task.get_status(ref))
    session.logout()


if __name__ == "__main__":
    main()
