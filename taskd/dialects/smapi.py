"""SMAPIv3: ``Task.*`` exactly as its published text has it, ``Data.*`` on task ids, ``Plugin.*``.

Facts of the wire (xapi-project/xen-api: ocaml/xapi-storage/generator/lib/task.ml, data.ml, plugin.ml): a float
always has a point, unit is ``null``, a variant is ``["Tag", payload]``. There is no cancelled state, so a
cancelled task is ``["Failed", "Cancelled"]``, and a cancel that comes too late is a successful no-op. A failed
data operation is ``complete: false, failed: true``, because xapi looks at ``complete`` first
(ocaml/xapi/storage_smapiv3_migrate.ml).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

import attrs

from taskd import __version__, codec
from taskd.dialects import Method, look
from taskd.errors import BadParams, DoesNotExist, UnknownMethod
from taskd.model import JSON, Caller, Task
from taskd.operations.copy import Blocklist
from taskd.service import Service
from taskd.service.gate import ids_at_hand, ids_text
from taskd.states import State

# Bytes of a list that go out together with other replies; a longer one is not copied, and waits for its turn.
AT_ONCE: Final = 65536

DBG: Final = "debug context of the caller; kept with the task that the call makes"


@attrs.frozen
class DbgParams:
    dbg: str = attrs.field(default="", metadata={"doc": DBG})


@attrs.frozen
class IdParams:
    id: str = attrs.field(metadata={"doc": "the task's id"})
    dbg: str = attrs.field(default="", metadata={"doc": DBG})


@attrs.frozen
class CancelParams(IdParams):
    must: bool = attrs.field(default=False, metadata={"doc": "raise Too_late when it is; not of a cancelled task"})


@attrs.frozen
class DestroyParams(IdParams):
    force: bool = attrs.field(default=False, metadata={"doc": "also forget residue (admins only)"})


def _state(task: Task) -> JSON:
    match task.state:
        case State.COMPLETED:
            return ["Completed", {"duration": _duration(task)}]
        case State.CANCELLED:
            return ["Failed", "Cancelled"]
        case State.FAILED:
            error = task.error
            return ["Failed", f"{error.code}: {error.message}" if error else "unknown"]
        case _:
            return ["Pending", task.progress.fraction]


def _duration(task: Task) -> float:
    return max(0.0, round((task.finished_at or 0.0) - (task.started_at or task.created_at), 3))


def _status(task: Task) -> JSON:
    return {
        "state": _state(task),
        "ctime": float(task.created_at),
        "debug_info": task.debug_info,
        "id": task.id,
    }


async def _cancel(service: Service, caller: Caller, params: CancelParams) -> JSON:
    await service.cancel(caller, params.id, must=params.must)
    return None


async def _destroy(service: Service, caller: Caller, params: DestroyParams) -> JSON:
    await service.destroy(caller, params.id, force=params.force)
    return None


async def _ls(service: Service, caller: Caller, params: DbgParams) -> JSON:
    return codec.Written(await ids_text(service, caller))


def _ls_at_once(service: Service, caller: Caller, params: DbgParams) -> JSON | None:
    ids = ids_at_hand(service, caller)
    return None if ids is None or len(ids) > AT_ONCE else codec.Written(ids)


# Data: the key of an operation is the id of the task that does it.


@attrs.frozen
class CopyParams:
    uri: str = attrs.field(metadata={"doc": "source: a path, file:// or raw+file:// URL"})
    remote: str = attrs.field(metadata={"doc": "target, which exists; the same forms"})
    domain: str = attrs.field(default="", metadata={"doc": "accepted and ignored"})
    blocklist: Blocklist | None = attrs.field(default=None, metadata={"doc": "what to copy; null: everything"})
    dbg: str = attrs.field(default="", metadata={"doc": DBG})


@attrs.frozen
class MirrorParams:
    uri: str
    remote: str
    domain: str = ""
    dbg: str = attrs.field(default="", metadata={"doc": DBG})


@attrs.frozen
class OperationParams:
    operation: tuple[str, ...] = attrs.field(metadata={"doc": '["CopyV1", task id]'})
    dbg: str = attrs.field(default="", metadata={"doc": DBG})

    @property
    def id(self) -> str:
        """The task's id; the tag is taken in any case, as ocaml-rpc does.

        Raises:
            BadParams: it is no operation.
        """
        if len(self.operation) != 2 or self.operation[0].lower() not in ("copyv1", "mirrorv1"):
            raise BadParams("params.operation", 'expected ["CopyV1", id]')
        return self.operation[1]


COPY: Final = "CopyV1"

# Which of Data.copy's params the fault of an operation's param is about.
_SAID: Final = {"source": "uri", "target": "remote", "blocks": "blocklist"}


def path_of(uri: str, where: str) -> str:
    """The local path that ``uri`` names.

    Raises:
        BadParams: a scheme that names no local path.
    """
    if uri.startswith("/"):
        return uri
    # Not urlsplit: it drops line breaks, fragments and blanks, and what is left may name another file.
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    if scheme not in ("file", "raw+file") or host not in ("", "localhost") or not slash or set(path) & set("?#"):
        raise BadParams(where, f"expected an absolute path, file:// or raw+file:// URL, got {uri[:200]!r}")
    try:
        return unquote("/" + path, errors="strict")
    except UnicodeDecodeError:
        raise BadParams(where, "names a path that is no UTF-8") from None


async def _copy(service: Service, caller: Caller, params: CopyParams) -> JSON:
    blocks = params.blocklist
    said = {
        "source": path_of(params.uri, "params.uri"),
        "target": path_of(params.remote, "params.remote"),
        # The remote volume exists before its data is copied; that is what SMAPIv3's text says of it.
        "overwrite": True,
        "blocks": None if blocks is None else {"blocksize": blocks.blocksize, "ranges": _lists(blocks)},
    }
    try:
        task = await service.start(caller, "copy", said, dbg=params.dbg)
    except BadParams as error:
        field, _, rest = error.path.removeprefix("params.params.").partition("[")
        field, dot, tail = field.partition(".")
        path = f"params.{_SAID.get(field, field)}{dot}{tail}" + (f"[{rest}" if rest else "")
        raise BadParams(path, error.fault) from None
    return [COPY, task.id]


def _lists(blocks: Blocklist) -> JSON:
    return [list(pair) for pair in blocks.ranges]


async def _mirror(service: Service, caller: Caller, params: MirrorParams) -> JSON:
    raise UnknownMethod("Data.mirror")


def _copy_of(task: Task) -> Task:
    """It, if it is a copy; else the key is of no operation."""
    if task.operation != "copy":
        raise DoesNotExist("task", task.id)
    return task


async def _found(service: Service, caller: Caller, params: OperationParams) -> Task:
    return _copy_of(await service.get(caller, params.id))


def _data_status(task: Task) -> JSON:
    task = _copy_of(task)
    return {
        "failed": task.state in (State.FAILED, State.CANCELLED),
        "complete": task.state is State.COMPLETED,
        "progress": task.progress.fraction,
    }


async def _data_cancel(service: Service, caller: Caller, params: OperationParams) -> JSON:
    await service.cancel(caller, (await _found(service, caller, params)).id)
    return None


async def _data_destroy(service: Service, caller: Caller, params: OperationParams) -> JSON:
    await service.destroy(caller, (await _found(service, caller, params)).id)
    return None


async def _data_ls(service: Service, caller: Caller, params: DbgParams) -> JSON:
    return _copies(await ids_text(service, caller, "copy"))


def _data_ls_at_once(service: Service, caller: Caller, params: DbgParams) -> JSON | None:
    ids = ids_at_hand(service, caller, "copy")
    return None if ids is None or len(ids) > AT_ONCE else _copies(ids)


def _copies(ids: bytes) -> JSON:
    """Each of a list of ids, in JSON, as an operation. No id has a comma in it, and there may be very many."""
    tag = f'["{COPY}",'.encode()
    each = ids[1:-1].replace(b",", b"]," + tag)
    return codec.Written(b"[" + tag + each + b"]]" if each else ids)


# Plugin.


async def _query(service: Service, caller: Caller, params: DbgParams) -> JSON:
    return {
        "plugin": "taskd",
        "name": "taskd",
        "description": "Long storage tasks that either completed or were never made",
        "vendor": "The taskd maintainers",
        "copyright": "(C) 2026 The taskd maintainers",
        "version": __version__,
        "required_api_version": "5.0",
        "features": [],
        "configuration": {},
        "required_cluster_stack": [],
        # Required by newer xapi, unknown to older ones (plugin.ml); what is copied is not looked into.
        "supported_image_formats": [],
    }


async def _plugin_ls(service: Service, caller: Caller, params: DbgParams) -> JSON:
    # The storage repositories that are attached: taskd keeps tasks, and attaches none.
    return []


async def _diagnostics(service: Service, caller: Caller, params: DbgParams) -> JSON:
    # Ends up in bug reports: numbers and names of operations only.
    registry, health = service.registry, service.health
    fault = await health.fault()
    lines = [
        f"taskd {__version__}",
        f"revision {registry.revision}",
        f"unfinished tasks {len(registry)}",
        f"recovery {'running' if health.recovering else 'done'}",
        f"store {'writable' if fault is None else 'not writable'}",
    ]
    for name in sorted(service.operations):
        states = [live.task.state for live in registry if live.task.operation == name]
        counts = "".join(f" {state}={states.count(state)}" for state in State if state in states)
        lines.append(f"operation {name}:{counts or ' none'}")
    return "\n".join([*lines, *await health.lines()]) + "\n"


METHODS: Final = (
    look("Task.stat", IdParams, _status, "The status of a task"),
    Method("Task.cancel", CancelParams, _cancel, "Cancel a task: it completed, or was never made"),
    Method("Task.destroy", DestroyParams, _destroy, "Remove all traces of an ended task"),
    Method("Task.ls", DbgParams, _ls, "The ids of all tasks", page=True, at_once=_ls_at_once),
    Method("Data.copy", CopyParams, _copy, "Copy (blocks of) a local disk to a local remote"),
    Method("Data.mirror", MirrorParams, _mirror, "Not implemented"),
    look("Data.stat", OperationParams, _data_status, "The status of a copy"),
    Method("Data.cancel", OperationParams, _data_cancel, "Cancel a copy"),
    Method("Data.destroy", OperationParams, _data_destroy, "Forget an ended copy"),
    Method("Data.ls", DbgParams, _data_ls, "All copies", page=True, at_once=_data_ls_at_once),
    Method("Plugin.query", DbgParams, _query, "What this plugin is"),
    Method("Plugin.ls", DbgParams, _plugin_ls, "The attached storage repositories: none"),
    Method("Plugin.diagnostics", DbgParams, _diagnostics, "Loggable text without personal data"),
)
