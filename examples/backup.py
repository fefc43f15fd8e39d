#!/usr/bin/env python3
"""Copy disk images into a folder, one after the other: ``backup.py IMAGE... FOLDER``.

The blocking client, in the form that most scripts want: a copy that fails is told, and the others are made all
the same; an image that has its copy already is left out; a daemon that restarts meanwhile is waited for; Ctrl-C
cancels the copy that runs, and leaves when nothing of it is left.
"""

import os
import sys

from taskd import client

SOCKET = os.environ.get("TASKD_SOCKET", "/run/taskd/taskd.sock")


def back_up(daemon: client.Daemon, source: str, target: str) -> bool:
    """Copy one image; whether its copy is there afterwards."""
    name = os.path.basename(source)
    params = {"source": source, "target": target, "verify": True}
    try:
        with daemon.running("copy", params, label=f"backup of {name}") as task:
            pass  # the end of the block waits for the end of the copy
        task.record.check()
    except client.TargetExists:
        print(f"{name}: there already")
    except (client.Refused, client.NotCompleted) as error:
        print(f"{name}: {error}")
        return False
    else:
        print(f"{name}: {task.record.result['bytes']} bytes, verified")
    return True


def main() -> int:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    *images, folder = map(os.path.abspath, sys.argv[1:])
    try:
        with client.connect(SOCKET, patience_s=30) as daemon:
            done = [back_up(daemon, each, os.path.join(folder, os.path.basename(each))) for each in images]
    except client.NoDaemon as error:
        sys.exit(str(error))
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
