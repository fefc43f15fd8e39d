"""One act on each of several tasks, or tokens: a refusal of one does not keep the others from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskd.cli import exits, say
from taskd.cli.asked import connected
from taskd.cli.exits import Exit
from taskd.cli.pick import pick
from taskd.cli.sentences import sentence
from taskd.client import Daemon, Refused


def each(
    socket: str,
    ids: Sequence[str],
    act: Callable[[Daemon, str], None],
    meant: Callable[[Daemon, str], str] = pick,
    tell: Callable[[str], None] | None = None,
    *,
    long: bool = False,
) -> tuple[list[str], Exit]:
    """Call ``act`` for each; the ids where it was granted, and the worst exit. ``meant`` finds the whole id.
    A ``long`` act may take as long as it likes.

    ``tell`` is called as soon as one is granted: who leaves in the middle of many has seen which were. Where
    nobody reads what it says, the others are acted on all the same.

    Raises:
        NoDaemon: nobody answers, or not any more.
        Unheard: of ``tell``, after all.
    """
    granted, codes = [], [Exit.DONE]
    unheard: say.Unheard | None = None
    with connected(socket, long=long) as daemon:
        for start in ids:
            try:
                id = meant(daemon, start)
                act(daemon, id)
            except Refused as error:
                say.err(sentence(error))
                codes.append(exits.of_error(error))
            else:
                granted.append(id)
                try:
                    if tell is not None and unheard is None:
                        tell(id)
                except say.Unheard as error:
                    unheard = error
    if unheard is not None:
        raise unheard
    return granted, exits.worst(codes)
