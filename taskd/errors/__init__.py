"""Every exception that taskd raises on purpose, on one page.

Each has a stable ``name`` (the word on the wire), a JSON-RPC 2.0 ``number``, and fields whose texts are the
``data`` of the reply; the sentence for a person is a template over the fields, filled in by ``__str__``.
Whose fault it is follows from the family: ``Refusal`` is the caller's or the state of the world,
``StoreError`` is ours, ``WireError`` is the peer's bytes.

A task that ends ``failed`` with one of these carries ``code``: the name in capitals, ``Target_exists`` ->
``TARGET_EXISTS``.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from taskd.errors.family import *  # noqa: F403  # the page goes on there
from taskd.errors.family import Refusal, StoreError, TaskdError
from taskd.errors.world import *  # noqa: F403  # and there
from taskd.errors.xenapi import XenApiError as XenApiError


@attrs.define(auto_exc=True)
class UnknownMethod(Refusal):
    """``Unimplemented`` is the one error that SMAPIv3 declares (xen-api, ocaml/xapi-storage, common.ml)."""

    name: ClassVar[str] = "Unimplemented"
    number: ClassVar[int] = -32601
    sentence: ClassVar[str] = "there is no method {method}"
    method: str


@attrs.define(auto_exc=True)
class BadParams(Refusal):
    """Params of the wrong shape; ``path`` names the field (``params.source``), ``fault`` what is wrong."""

    name: ClassVar[str] = "Bad_params"
    number: ClassVar[int] = -32602
    sentence: ClassVar[str] = "{path}: {fault}"
    path: str
    fault: str


@attrs.define(auto_exc=True)
class NeedsStream(Refusal):
    """A method that opens a stream, called where none can be carried: a request over HTTP has one reply."""

    name: ClassVar[str] = "Needs_stream"
    sentence: ClassVar[str] = "{method} needs a stream: JSON on the socket itself, or a WebSocket"
    method: str


@attrs.define(auto_exc=True)
class InternalError(TaskdError):
    """A fault of ours. The text of what went wrong goes to the log only; the peer gets the task's id."""

    name: ClassVar[str] = "Internal_error"
    number: ClassVar[int] = -32603
    task: str = ""

    def __str__(self) -> str:
        return "internal error" + (f" in task {self.task}" if self.task else "")

    @property
    def data(self) -> tuple[str, ...]:
        return (self.task,) if self.task else ()


# What the registry of tasks can refuse.


@attrs.define(auto_exc=True)
class DoesNotExist(Refusal):
    """Unknown, or somebody else's: the answer is the same (law L11)."""

    name: ClassVar[str] = "Does_not_exist"
    sentence: ClassVar[str] = "there is no {kind} {id}"
    kind: str
    id: str


@attrs.define(auto_exc=True)
class TaskInProgress(Refusal):
    """The task has not ended; destroy wants it ended."""

    name: ClassVar[str] = "Task_in_progress"
    sentence: ClassVar[str] = "task {id} is in progress; cancel it or wait for its end"
    id: str


@attrs.define(auto_exc=True)
class TooLate(Refusal):
    """Cancel with ``must`` came when the task was committed, or had ended otherwise than cancelled."""

    name: ClassVar[str] = "Too_late"
    sentence: ClassVar[str] = "task {id} is past its commit or has ended; it can no longer be cancelled"
    id: str


@attrs.define(auto_exc=True)
class AlreadyEnded(Refusal):
    """A report on an external task that has ended: the first terminal state stays."""

    name: ClassVar[str] = "Already_ended"
    sentence: ClassVar[str] = "task {id} has ended; its state does not change any more"
    id: str


@attrs.define(auto_exc=True)
class NotExternal(Refusal):
    """Task.update, Task.complete and Task.fail are for tasks that are done elsewhere."""

    name: ClassVar[str] = "Not_external"
    sentence: ClassVar[str] = "task {id} is run by taskd itself; only an external task is reported on"
    id: str


@attrs.define(auto_exc=True)
class HasResidue(Refusal):
    """Destroy would forget what an undo could not remove."""

    name: ClassVar[str] = "Residue"
    sentence: ClassVar[str] = (
        "task {id} left residue behind; Task.recover tries again, destroy with force forgets it"
    )
    id: str


@attrs.define(auto_exc=True)
class NoResidue(Refusal):
    """Task.recover on a task that has nothing to recover."""

    name: ClassVar[str] = "No_residue"
    sentence: ClassVar[str] = "task {id} left nothing behind that could be recovered"
    id: str


@attrs.define(auto_exc=True)
class PermissionDenied(Refusal):
    """The caller's roles do not allow it."""

    name: ClassVar[str] = "Permission_denied"
    sentence: ClassVar[str] = "permission denied: {what}"
    what: str


@attrs.define(auto_exc=True)
class Unauthenticated(Refusal):
    """Nobody is known to call: a proxy without a good token, or a token from whom no proxy is."""

    name: ClassVar[str] = "Unauthenticated"
    sentence: ClassVar[str] = "not authenticated: {why}"
    why: str


@attrs.define(auto_exc=True)
class LimitReached(Refusal):
    """One of the numbers of law L10; ``limit`` is it."""

    limit: int


@attrs.define(auto_exc=True)
class TooManyTasks(LimitReached):
    name: ClassVar[str] = "Too_many_tasks"
    sentence: ClassVar[str] = "the owner already has {limit} unfinished tasks, or fewer that hold much"


@attrs.define(auto_exc=True)
class ReplyTooLong(LimitReached):
    name: ClassVar[str] = "Reply_too_long"
    sentence: ClassVar[str] = "not called: the replies of this batch have come to {limit} bytes"


@attrs.define(auto_exc=True)
class TooManySubscriptions(LimitReached):
    name: ClassVar[str] = "Too_many_subscriptions"
    sentence: ClassVar[str] = "this connection already has {limit} subscriptions"


@attrs.define(auto_exc=True)
class TooManyConnections(LimitReached):
    name: ClassVar[str] = "Too_many_connections"
    sentence: ClassVar[str] = "this user already has {limit} connections open"


@attrs.define(auto_exc=True)
class NoConnectionLeft(LimitReached):
    """All users together have as many as there may be; root, and the daemon's own, have a few more."""

    name: ClassVar[str] = "No_connection_left"
    sentence: ClassVar[str] = (
        "all {limit} connections that RLIMIT_NOFILE and running_tasks leave for such callers are taken"
    )


# What is ours.


@attrs.define(auto_exc=True)
class NotServed(TaskdError):
    """A connection that is closed at once: the system has nothing left to look its caller up with."""

    name: ClassVar[str] = "Not_served"
    sentence: ClassVar[str] = "this connection cannot be served now: {reason}"
    reason: str


@attrs.define(auto_exc=True)
class StoreUnavailable(StoreError):
    """The store cannot write now; reads are still answered."""

    name: ClassVar[str] = "Store_unavailable"
    sentence: ClassVar[str] = "the store cannot write: {reason}"


@attrs.define(auto_exc=True)
class StoreUnusable(StoreError):
    """The store cannot be opened at all: no database, a newer schema, a folder in use."""

    name: ClassVar[str] = "Store_unusable"


@attrs.define(auto_exc=True)
class Conflict(StoreError):
    """A compare-and-set found another state than it was told to expect: a second writer."""

    name: ClassVar[str] = "Conflict"


@attrs.define(auto_exc=True)
class IllegalMove(TaskdError):
    """The table of states has no such move (law L1)."""

    name: ClassVar[str] = "Illegal_move"
    sentence: ClassVar[str] = "a task that is {state} cannot be {event}"
    state: str
    event: str


@attrs.define(auto_exc=True)
class ConfigError(TaskdError):
    """A setting, flag or environment variable is wrong; ``where`` names it."""

    name: ClassVar[str] = "Config_error"
    sentence: ClassVar[str] = "{where}: {fault}"
    where: str
    fault: str


# What a client meets.


@attrs.define(auto_exc=True)
class NoDaemon(TaskdError):
    """Nobody answers on the socket, or the connection broke."""

    name: ClassVar[str] = "No_daemon"
    sentence: ClassVar[str] = "no taskd answers on {socket}: {reason}"
    socket: str
    reason: str


@attrs.define(auto_exc=True)
class Refused(TaskdError):
    """The daemon's error reply: ``error`` is its stable name, ``text`` its sentence, ``details`` its data."""

    name: ClassVar[str] = "Refused"
    sentence: ClassVar[str] = "{text}"
    error: str
    text: str
    details: tuple[str, ...] = ()


@attrs.define(auto_exc=True)
class NotCompleted(TaskdError):
    """A task that was to complete has not: its ``state``, and the stable code and sentence of its failure."""

    name: ClassVar[str] = "Not_completed"
    sentence: ClassVar[str] = "task {id} is {state}: {failure}: {text}"
    id: str
    state: str
    failure: str
    text: str

    def __str__(self) -> str:
        return super().__str__() if self.failure else f"task {self.id} is {self.state}"
