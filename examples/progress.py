#!/usr/bin/env python3
"""Copy several images at once, and see how far each is: ``progress.py IMAGE... FOLDER``.

The client on trio: each copy, with its watch, is a child of one nursery. If one fails, or Ctrl-C is pressed, the
nursery cancels the others, and each block is left when its copy has really ended: nothing is left half done, here
or in the daemon.
"""

import os
import sys

import trio

from taskd import client
from taskd.client import on_trio

SOCKET = os.environ.get("TASKD_SOCKET", "/run/taskd/taskd.sock")


async def copy(daemon: on_trio.Daemon, source: str, target: str) -> None:
    """Copy one image and show its progress; raises NotCompleted where it fails."""
    params = {"source": source, "target": target}
    async with daemon.running("copy", params, label=os.path.basename(source)) as task:
        async with daemon.watch(task.id) as events:
            async for event in events:
                match event:
                    case client.Snapshot(record=record) | client.Changed(record=record):
                        show(record)
                        if record.ended:
                            break
    task.record.check()


def show(record: client.Record) -> None:
    progress = record.progress
    left = f", {progress.eta_s:.0f} s left" if progress.eta_s and not record.ended else ""
    print(f"{record.label}: {record.state} {progress.fraction:.0%}{left}", flush=True)


async def main(images: list[str], folder: str) -> None:
    async with client.open(SOCKET, patience_s=30) as daemon, trio.open_nursery() as nursery:
        for image in images:
            nursery.start_soon(copy, daemon, image, os.path.join(folder, os.path.basename(image)))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    status = 1
    try:
        *images, folder = map(os.path.abspath, sys.argv[1:])
        trio.run(main, images, folder)
        status = 0
    except* KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    except* (client.NoDaemon, client.NotCompleted, client.Refused) as failed:
        print(*failed.exceptions, sep="\n", file=sys.stderr)
    sys.exit(status)
