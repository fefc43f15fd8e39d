"""The messages of one step of a listener: the log from where it stands, up to a revision.

Beyond what is in memory only the store can tell, and it knows no revisions: there may be some of a later change
already. None is told twice, and none that memory still has is told early: so who comes back can be told what it
has missed, or is seen to be one of whom that cannot be known (``follow``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from taskd.dialects.ucloud.follow import Step, run_here
from taskd.dialects.ucloud.parts import LINES, fitting, whole_changes
from taskd.errors import DoesNotExist
from taskd.model import Caller, LogLine
from taskd.service import Kept, Service

# The most characters of what was posted before somebody came; CUT is in front where it was more.
TAIL: Final = 65536
CUT: Final = "[…]\n"


@attrs.define(eq=False)
class Messages:
    """``more`` says whether others follow up to the revision last asked for; ``reached`` is the revision up to
    which all are told, 0 where that is not known.
    """

    service: Service
    caller: Caller
    step: Step
    more: bool = True
    reached: int = 0

    async def some(self, revision: int) -> str | None:
        """The next that go in one frame, as one text, None where there are none."""
        said, cut = await self._next(revision)
        return CUT + (said or "") if cut else said

    async def all(self, revision: int) -> str | None:
        """All there are, of which the end if they are long, as one text."""
        told, any_cut, found, self.more = "", False, False, True
        while self.more:
            said, cut = await self._next(revision)
            told += said or ""
            found, any_cut = found or said is not None, any_cut or cut or len(told) > TAIL
            told = told[-TAIL:]
        return (CUT if any_cut else "") + told if found else None

    async def _next(self, revision: int) -> tuple[str | None, bool]:
        """The next text, and whether some before it are gone."""
        known, cut = self.step.known, False
        self.reached, self.more = 0, False
        if known.live is not None and known.live.log_kept <= known.line:
            return None, False
        kept = self._kept(revision)
        if kept is None:
            lines, cut = await self._stored()
            kept = self._kept(revision) or ()
            if lines:
                taken = lines[: fitting(lines)]
                known.line = taken[-1].n + 1
                self.more = len(taken) < len(lines) or bool(self._kept(revision))
                return self._text(taken), cut
        some = whole_changes(kept)
        if not some:
            return None, cut
        known.line = some[-1].line.n + 1
        self.more = len(some) < len(kept)
        if not self.more or kept[len(some)].revision != some[-1].revision:
            self.reached = some[-1].revision
        return self._text([each.line for each in some]), cut

    def _kept(self, revision: int) -> Sequence[Kept] | None:
        return self.service.registry.logs.kept(self.step.task.id, self.step.known.line, revision)

    def _text(self, lines: Sequence[LogLine]) -> str:
        # A producer here breaks its lines itself; what taskd runs says one at a time.
        end = "\n" if run_here(self.step.task) else ""
        return "".join(line.line + end for line in lines)

    async def _stored(self) -> tuple[Sequence[LogLine], bool]:
        """The next that memory has not, a frame of them and one if there are as many; none left: step to those
        that it has. And whether some before them are gone.
        """
        known, id = self.step.known, self.step.task.id
        lines: Sequence[LogLine] = ()
        first: int | None = None
        try:
            lines = await self.service.log(self.caller, id, known.line, LINES + 1)
            if lines and lines[0].n > known.line:  # or has the store lost those between?
                oldest = await self.service.log(self.caller, id, 0, 1)
                first = oldest[0].n if oldest else None
        except DoesNotExist:
            first = self.service.registry.logs.begin(id)
        cut = first is not None and first > known.line
        begin = self.service.registry.logs.begin(id)
        if begin is not None and begin > known.line:
            lines = [line for line in lines if line.n < begin]
            known.line = known.line if lines else begin
        return lines, cut
