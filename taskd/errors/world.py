"""What the world can refuse to an operation, before its task is made or in the middle of it."""

from __future__ import annotations

from typing import ClassVar

import attrs

from taskd.errors.family import Refusal


@attrs.define(auto_exc=True)
class PathRefusal(Refusal):
    path: str


@attrs.define(auto_exc=True)
class TargetExists(PathRefusal):
    name: ClassVar[str] = "Target_exists"
    sentence: ClassVar[str] = "{path} exists; with overwrite=true it is replaced"


@attrs.define(auto_exc=True)
class SourceMissing(PathRefusal):
    name: ClassVar[str] = "Source_missing"
    sentence: ClassVar[str] = "{path} does not exist"


@attrs.define(auto_exc=True)
class FolderMissing(PathRefusal):
    name: ClassVar[str] = "Folder_missing"
    sentence: ClassVar[str] = "{path} is no folder that exists"


@attrs.define(auto_exc=True)
class NotAnImage(PathRefusal):
    """Neither a regular file nor a block device."""

    name: ClassVar[str] = "Not_an_image"
    sentence: ClassVar[str] = "{path} is {kind}; it must be a regular file or a block device"
    kind: str


@attrs.define(auto_exc=True)
class SameFile(PathRefusal):
    name: ClassVar[str] = "Same_file"
    sentence: ClassVar[str] = "{path} and {other} are the same file"
    other: str


@attrs.define(auto_exc=True)
class SourceChanged(PathRefusal):
    name: ClassVar[str] = "Source_changed"
    sentence: ClassVar[str] = "{path} changed its size from {before} to {after} bytes while it was copied"
    before: int
    after: int


@attrs.define(auto_exc=True)
class TargetTooSmall(PathRefusal):
    name: ClassVar[str] = "Target_too_small"
    sentence: ClassVar[str] = "{path} holds {size} bytes and {needed} are needed"
    size: int
    needed: int


@attrs.define(auto_exc=True)
class TargetChanged(PathRefusal):
    name: ClassVar[str] = "Target_changed"
    sentence: ClassVar[str] = "{path} was changed by somebody else while the task prepared its new content"


@attrs.define(auto_exc=True)
class Unproven(PathRefusal):
    """Whether it is the task's own, or the one it wrote to, cannot be proven; it is left as it is."""

    name: ClassVar[str] = "Unproven"
    sentence: ClassVar[str] = "{path} is left alone: {reason}"
    reason: str


@attrs.define(auto_exc=True)
class VerifyFailed(PathRefusal):
    name: ClassVar[str] = "Verify_failed"
    sentence: ClassVar[str] = "{path} read back differs from its source at byte {offset}"
    offset: int


@attrs.define(auto_exc=True)
class OsRefusal(PathRefusal):
    """The operating system said no: ``errno`` is its symbol (``ENOSPC``), ``reason`` its sentence."""

    name: ClassVar[str] = "Os_error"
    errno: str
    reason: str

    @classmethod
    def of(cls, error: OSError, path: str) -> OsRefusal:
        """From an ``OSError``; the path is that of the error where it has one, else ``path``."""
        import errno as table

        symbol = table.errorcode.get(error.errno or 0, "EIO")
        return cls(str(error.filename or path), symbol, error.strerror or str(error))

    @property
    def code(self) -> str:
        return self.errno

    sentence: ClassVar[str] = "{path}: {reason}"


@attrs.define(auto_exc=True)
class CommandFailed(Refusal):
    """The program did not end with status 0; ``how`` says how (``exit status 3``, ``signal SIGSEGV``)."""

    name: ClassVar[str] = "Command_failed"
    sentence: ClassVar[str] = "{program} ended with {how}"
    program: str
    how: str


@attrs.define(auto_exc=True)
class CommandNotFound(PathRefusal):
    name: ClassVar[str] = "Command_not_found"
    sentence: ClassVar[str] = "{path} is no program that can be run"


@attrs.define(auto_exc=True)
class StillAlive(Refusal):
    """Not even SIGKILL ended it: it waits in the kernel, for a device as a rule."""

    name: ClassVar[str] = "Still_alive"
    sentence: ClassVar[str] = "a process of the session {session} is still alive {seconds:g} seconds after SIGKILL"
    session: int
    seconds: float


@attrs.define(auto_exc=True)
class DeadlineExceeded(Refusal):
    name: ClassVar[str] = "Deadline_exceeded"
    sentence: ClassVar[str] = "not done within {deadline_s} seconds"
    deadline_s: float


@attrs.define(auto_exc=True)
class ProducerLost(Refusal):
    name: ClassVar[str] = "Producer_lost"
    sentence: ClassVar[str] = "the producer has said nothing for {heartbeat_s} seconds"
    heartbeat_s: float


@attrs.define(auto_exc=True)
class Interrupted(Refusal):
    name: ClassVar[str] = "Interrupted"
    sentence: ClassVar[str] = (
        "the daemon stopped in the middle of it (attempt {attempts}); what it had journaled was undone"
    )
    attempts: int


@attrs.define(auto_exc=True)
class OperationMissing(Refusal):
    """The package that brought it was removed while the task waited."""

    name: ClassVar[str] = "Operation_missing"
    sentence: ClassVar[str] = "the operation {operation} is no longer installed"
    operation: str


@attrs.define(auto_exc=True)
class UndoFailed(Refusal):
    name: ClassVar[str] = "Undo_failed"
    sentence: ClassVar[str] = "the undo could not be finished: {reason}"
    reason: str


@attrs.define(auto_exc=True)
class CancelAsked(Refusal):
    """Raised inside an operation that tries to commit after a cancel was accepted."""

    name: ClassVar[str] = "Cancelled"
    sentence: ClassVar[str] = "task {id} was cancelled"
    id: str
