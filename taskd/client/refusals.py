"""Refusals that a program may want to tell apart by type; any other is a plain ``Refused`` with its name.

They are the daemon's answers of the same names in ``taskd.errors``, but as they come over the wire: texts.
"""

from __future__ import annotations

from typing import Final

from taskd import errors
from taskd.errors import Refused


class DoesNotExist(Refused):
    """There is no such thing, or it is somebody else's. ``details``: its kind, its id."""


class TargetExists(Refused):
    """The target exists, and was not to be replaced. ``details``: its path."""


class SourceMissing(Refused):
    """What was to be read is not there. ``details``: its path."""


class PermissionDenied(Refused):
    """The caller's roles, or its rights, do not allow it. ``details``: what."""


class TaskInProgress(Refused):
    """The task has not ended. ``details``: its id."""


class TooLate(Refused):
    """A cancel that must be granted came after the commit, or when the task had failed. ``details``: its id."""


class AlreadyEnded(Refused):
    """A report on a task that has ended. ``details``: its id."""


class HasResidue(Refused):
    """The task left behind what an undo could not remove. ``details``: its id."""


class TooManyTasks(Refused):
    """The owner has as many unfinished tasks as are allowed. ``details``: how many."""


class StoreUnavailable(Refused):
    """The daemon cannot write now; what it knows it still tells. ``details``: why."""


class BadParams(Refused):
    """The call has params of the wrong shape. ``details``: which one, and what is wrong with it."""


BY_NAME: Final[dict[str, type[Refused]]] = {
    errors.DoesNotExist.name: DoesNotExist,
    errors.TargetExists.name: TargetExists,
    errors.SourceMissing.name: SourceMissing,
    errors.PermissionDenied.name: PermissionDenied,
    errors.TaskInProgress.name: TaskInProgress,
    errors.TooLate.name: TooLate,
    errors.AlreadyEnded.name: AlreadyEnded,
    errors.HasResidue.name: HasResidue,
    errors.TooManyTasks.name: TooManyTasks,
    errors.StoreUnavailable.name: StoreUnavailable,
    errors.BadParams.name: BadParams,
}
