"""One act on each of several tasks, or tokens: a refusal of one does not keep the others from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskd import client
from taskd.cli import exits, say
from taskd.cli.exits import Exit
from taskd.cli.pick import pick
from taskd.cli.sentences import sentence
from taskd.client import Daemon, Refused


def each(
    socket: str,
    ids: Sequence[str],
    act: Callable[[Daemon, str], None],
    meant: Callable[[Daemon, str], str] = pick,
) -> tuple[list[str], Exit]:
    """Call ``act`` for each; the ids where it was granted, and the worst exit. ``meant`` finds the whole id.

    Raises:
        NoDaemon: nobody answers, or not any more.
    """
    granted, codes = [], [Exit.DONE]
    with client.connect(socket) as daemon:
        for start in ids:
            try:
                id = meant(daemon, start)
                act(daemon, id)
            except Refused as error:
                say.err(sentence(error))
                codes.append(exits.of_error(error))
            else:
                granted.append(id)
    return granted, exits.worst(codes)
