"""A task as KooDrive's TaskInfo (api-koodrive, getTaskLIst.html and getTaskDetail.html).

Status: 0 new, 1 executing, 2 success, 3 failed. There is no cancelled among them, so a cancelled task has
failed with a ``resultCode`` of its own. A task that its producer has not yet spoken of is new, though our own
state for it is running: the vendor's status tells what is known to have been done.

``resultCode`` is a string 18xxxxxx, there only where the status is 3. The vendor has not published which means
what; ours are a block of their own, ``RESULT_CODES``, and a number that was given once keeps its meaning. A
producer that fails its task with a code of that form gets it through as it is.

Times are ``yyyy-MM-ddTHH:mm:ss.SSSZ`` in UTC, with real milliseconds where the vendor's are cut. What a task
does not have is left out, never null. It never has ``tenantId`` and ``locale``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from taskd import codec
from taskd.model import JSON, Task
from taskd.operations.external import OPERATION as EXTERNAL
from taskd.states import State

NEW: Final = 0
EXECUTING: Final = 1
SUCCESS: Final = 2
FAILED: Final = 3

# The states that a status can be found in.
STATES: Final[Mapping[int, frozenset[State]]] = {
    NEW: frozenset({State.QUEUED, State.RUNNING}),
    EXECUTING: frozenset({State.RUNNING, State.UNDOING, State.COMMITTED}),
    SUCCESS: frozenset({State.COMPLETED}),
    FAILED: frozenset({State.FAILED, State.CANCELLED}),
}

# Types of task, and the names that those made without one have.
TRANSFER: Final = 0
IMPORT: Final = 1
NAMES: Final[Mapping[int, str]] = {TRANSFER: "transfer", IMPORT: "batch import"}

# Where a task made through this dialect keeps what it was made of: notes on it, and these are their names.
TASK_TYPE: Final = "koodrive.taskType"
INIT_PARAMS: Final = "koodrive.initParams"

# By the code of the failure. A cancelled task has none, and any other failure has OTHER.
OTHER: Final = "18900000"
CANCELLED: Final = "18900001"
RESULT_CODES: Final[Mapping[str, str]] = {
    "INTERRUPTED": "18900002",
    "DEADLINE_EXCEEDED": "18900003",
    "PRODUCER_LOST": "18900004",
    "UNDO_FAILED": "18900005",
    "OPERATION_MISSING": "18900006",
    "COMMAND_FAILED": "18900007",
    "COMMAND_NOT_FOUND": "18900008",
    "SOURCE_MISSING": "18900009",
    "SOURCE_CHANGED": "18900010",
    "TARGET_EXISTS": "18900011",
    "TARGET_CHANGED": "18900012",
    "TARGET_TOO_SMALL": "18900013",
    "VERIFY_FAILED": "18900014",
    "ENOSPC": "18900015",
    "INTERNAL_ERROR": "18900016",
}


def status(task: Task) -> int:
    """NEW, EXECUTING, SUCCESS or FAILED."""
    match task.state:
        case State.QUEUED:
            return NEW
        case State.RUNNING:
            # Only an external task is running without a change since it was made: the start of any other is one.
            return NEW if task.modified_at is None else EXECUTING
        case State.UNDOING | State.COMMITTED:
            return EXECUTING
        case State.COMPLETED:
            return SUCCESS
        case State.FAILED | State.CANCELLED:
            return FAILED


def task_type(task: Task) -> int:
    """TRANSFER or IMPORT; what was not made as an IMPORT through this dialect is a TRANSFER."""
    imports = task.operation == EXTERNAL.name and task.annotations.get(TASK_TYPE) == str(IMPORT)
    return IMPORT if imports else TRANSFER


def result_code(task: Task) -> str:
    """The ``resultCode`` of a task that failed or was cancelled."""
    if task.state is State.CANCELLED:
        return CANCELLED
    code = "" if task.error is None else task.error.code
    return code if re.fullmatch("18[0-9]{6}", code) else RESULT_CODES.get(code, OTHER)


def info(task: Task) -> dict[str, JSON]:
    """The TaskInfo of a task; ``taskId`` is its ``seq`` in decimal, which fits a Long as the vendor's ids do."""
    shown: dict[str, JSON] = {
        "taskId": str(task.seq),
        "taskName": task.label or task.operation,
        "taskType": task_type(task),
        "userId": task.owner,
        "status": status(task),
        "initParams": task.annotations.get(INIT_PARAMS) or codec.dumps(task.params).decode(),
        "createTime": codec.format_time(task.created_at),
    }
    if shown["status"] == FAILED:
        shown["resultCode"] = result_code(task)
    if shown["status"] != NEW and task.started_at is not None:
        shown["startTime"] = codec.format_time(task.started_at)
    if task.state.ended and task.finished_at is not None:
        shown["endTime"] = codec.format_time(task.finished_at)
    return shown
