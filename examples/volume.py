#!/usr/bin/env python3
"""A storage plugin in the manner of SMAPIv3, whose long work is done by taskd: volumes are files in a folder.

xapi-storage-script runs a plugin as a folder of scripts, a process for each call: the name is the method, argv is
``--json``, stdin the arguments, stdout the result. This file is all of them, by links::

    for method in Plugin.Query SR.ls Volume.stat Volume.clone Volume.destroy; do ln -s volume.py $method; done

Its first line has to name a Python that taskd is installed for, ``#!/opt/taskd/bin/python`` say.

``Volume.clone`` is what takes long. It is a copy in taskd: a volume is whole or was never there, whether this
script is told to end (the copy is cancelled), or the daemon dies and is started again (the copy is made anew, and
this script waits on); ``taskctl`` shows how far it is. What xapi asks of a *datapath* plugin, ``Data.copy`` and
the like, is done by ``taskd-smapi`` (README.rst).
"""

import json
import os
import signal
import sys
import traceback
import uuid

from taskd import client

SOCKET = os.environ.get("TASKD_SOCKET", "/run/taskd/taskd.sock")
QUERY = {
    "plugin": "example",
    "name": "Files in a folder",
    "description": "Each volume is a raw file; clones are made by taskd",
    "vendor": "taskd",
    "copyright": "MIT",
    "version": "1.0",
    "required_api_version": "5.0",
    "features": ["SR_ATTACH", "VDI_CLONE", "VDI_DESTROY"],
    "configuration": {},
    "required_cluster_stack": [],
}


def volume(sr, key):
    """A volume as SMAPIv3 has it."""
    path = os.path.join(sr, key)
    found = os.stat(path)
    return {
        "key": key,
        "uuid": key.removesuffix(".raw"),
        "name": key,
        "description": "",
        "read_write": True,
        "sharable": False,
        "virtual_size": found.st_size,
        "physical_utilisation": found.st_blocks * 512,
        "uri": [f"raw+file://{path}"],
        "keys": {},
    }


def clone(dbg, sr, key):
    """A new volume with the content of ``key``."""
    new = f"{uuid.uuid4()}.raw"
    params = {"source": os.path.join(sr, key), "target": os.path.join(sr, new)}
    with client.connect(SOCKET, patience_s=60) as daemon:
        with daemon.running("copy", params, label=f"Volume.clone {key}", dbg=dbg) as task:
            pass  # a signal raises here, and cancels
        task.record.check()
    return volume(sr, new)


METHODS = {
    "plugin.query": lambda dbg: QUERY,
    "sr.ls": lambda dbg, sr: [volume(sr, key) for key in sorted(os.listdir(sr)) if key.endswith(".raw")],
    "volume.stat": lambda dbg, sr, key: volume(sr, key),
    "volume.clone": clone,
    "volume.destroy": lambda dbg, sr, key: os.unlink(os.path.join(sr, key)),
}


class Ended(BaseException):
    """Somebody wants this script to end. (An Exception would be taken for a fault of the reply that is read.)"""


def end(*_):
    raise Ended("by SIGTERM")


def main():
    signal.signal(signal.SIGTERM, end)
    method = METHODS[os.path.basename(sys.argv[0]).lower()]
    try:
        result = method(**json.load(sys.stdin))
    except (Exception, Ended) as error:
        at = traceback.extract_tb(error.__traceback__)
        files, lines = [each.filename for each in at], [each.lineno for each in at]
        backtrace = {"error": str(error), "files": files, "lines": lines}
        params = [type(error).__name__, str(error)]
        print(json.dumps({"code": "SR_BACKEND_FAILURE", "params": params, "backtrace": backtrace}))
        sys.exit(1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
