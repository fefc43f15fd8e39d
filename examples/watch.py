"""Follow all tasks, with nothing but Python's own modules: ``python3 examples/watch.py [SOCKET]``.

Prints a line for each change and each line of a log. When the daemon goes away it comes back to where it was:
nothing is missed, and nothing told twice. Ends with Ctrl-C.
"""

import json
import os
import socket
import sys
import time

PATH = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("TASKD_SOCKET", "/run/taskd/taskd.sock")

# Where it stands: the newest revision that it has been told, and of each task the next line of its log.
since = None
log_from = {}

# Of so many logs: more would not fit into one call (max_message_bytes).
MOST = 10_000


def say(*words):
    try:
        print(*words, flush=True)
    except BrokenPipeError:  # whoever read it has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit()


def follow(lines):
    """Print what is told until the connection ends."""
    global since  # noqa: PLW0603  # an example is a script
    for line in lines:
        if not line.endswith(b"\n"):  # the daemon died in the middle of it
            return
        said = json.loads(line)
        if "error" in said:
            sys.exit(f"refused: {said['error']}")
        event = said.get("params")
        if event is None:  # the reply to the call
            continue
        if "error" in event:  # the watch cannot go on; the next one may
            return
        match event["event"]:
            case "changed" | "snapshot":
                task = event["task"]
                say(task["label"], task["state"], f"{task['progress']['fraction']:.0%}")
            case "destroyed":
                log_from.pop(event["id"], None)
                say("destroyed", event["id"])
            case "log":
                for each in event["lines"]:
                    say("  ", each["line"])
                log_from.pop(event["id"], None)
                log_from[event["id"]] = event["next"]
                if len(log_from) > MOST:
                    del log_from[next(iter(log_from))]
        if event["event"] in ("changed", "destroyed", "synced"):
            since = event["revision"]


try:
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(PATH)
                params = {"since": since, "log": True, "log_from": log_from}
                call = {"jsonrpc": "2.0", "method": "Task.watch", "params": params, "id": 1}
                connection.sendall(json.dumps(call).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    follow(lines)
        except OSError:
            pass  # it is away, or was restarted
        time.sleep(0.5)
except KeyboardInterrupt:
    pass
