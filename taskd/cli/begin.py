"""Starting a task and, unless told otherwise, waiting for its end."""

from __future__ import annotations

import uuid

import attrs

from taskd.cli import say, words
from taskd.cli.asked import connected
from taskd.cli.exits import Exit
from taskd.client import Call, NoDaemon, Record


def begin(socket: str, call: Call[Record], *, no_wait: bool, as_json: bool, lines: bool = False) -> Exit:
    """Make the call that starts a task, so that it may be made again. With ``no_wait`` the id (or the record)
    is all; with ``lines`` its log is shown while it runs.
    """
    call = attrs.evolve(call, params={"request_id": str(uuid.uuid4()), **call.params})
    if no_wait:
        with connected(socket) as daemon:
            try:
                record = daemon.ask(call)
            except (NoDaemon, TimeoutError, KeyboardInterrupt):
                say.err(words.unsure(call.params["request_id"]))
                raise
        say.out(words.document(record.raw) if as_json else record.id)
        return Exit.DONE
    from taskd.cli.watch import watch

    records, code = watch(socket, start=call, silent=as_json, lines=lines and not as_json)
    if as_json and records:
        say.out(words.document(records[0].raw))
    return code
