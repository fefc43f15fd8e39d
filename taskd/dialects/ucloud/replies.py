"""Our errors in UCloud's words: a status of HTTP, and a sentence that its clients do not look into.

(SDU-eScience/UCloud, backend/service-lib-server: RpcServer.kt, IngoingHttpInterceptor.kt, AuthInterceptor.kt.)
What V1 has no word for has ours. Nothing from inside is told.
"""

from __future__ import annotations

from typing import Final

from taskd.dialects import Reply
from taskd.dialects.ucloud.models import why
from taskd.errors import (
    AlreadyEnded,
    BadParams,
    DoesNotExist,
    LimitReached,
    PermissionDenied,
    StoreUnavailable,
    TaskdError,
    WireError,
)

# What V1 says of a body, or a query, that cannot be read; on a WebSocket it says BAD_REQUEST.
WRONG_TYPE: Final = "Invalid request received (wrong type)"
NO_BODY: Final = "Invalid request received (no body?)"
BAD_REQUEST: Final = "Bad Request"


# To a frame that names a stream and is no call.
NO_CALL: Final = Reply(
    400,
    why(f"{BAD_REQUEST}: a call has a call and a streamId of at most 256 characters, and an object as payload"),
)


def refuse(error: TaskdError, language: str = "", *, unreadable: str = WRONG_TYPE) -> Reply:
    """The answer over HTTP; ``language`` changes nothing. ``unreadable`` is said of what could not be read."""
    match error:
        case WireError():
            return Reply(400, why(f"{unreadable}: {error}"))
        case BadParams():
            return Reply(400, why(f"{error.path.removeprefix('params.')}: {error.fault}"))
        case _ if error.name == "Unauthenticated":
            return Reply(401, why("Unauthorized"))
        case PermissionDenied():
            return Reply(403, why("Forbidden"))
        case DoesNotExist():
            return Reply(404, why("Not Found"))
        case AlreadyEnded():
            return Reply(409, why("Task is already complete", "TASK_COMPLETE"))
        case LimitReached():
            return Reply(429, why(str(error)))
        case StoreUnavailable():
            return Reply(503, why(str(error)))
        case _:
            return Reply(500, why("Internal Server Error"))


def refuse_frame(error: TaskdError) -> Reply:
    """The answer in a frame of the sub-protocol."""
    return refuse(error, unreadable=BAD_REQUEST)
