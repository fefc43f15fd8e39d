"""One frozen Config: every setting, its default, its unit and its sentence, written once.

A flag beats an environment variable (``TASKD_`` and the setting's name in capitals), which beats the file
(TOML, top-level keys), which beats the default. A daemon that runs can be told to read them again; each setting
says whether that changes anything or wants a restart.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import attrs

from taskd.errors import ConfigError
from taskd.places import default_file, default_socket, default_state

LOG_LEVELS = ("debug", "info", "warning", "error")

# ``key=value``, or a JSON object (``logs``).
LOG_FORMATS = ("text", "json")

# What each string of a list must be, and how that is said.
# A user, or a group as sudoers(5) writes it. In no name is what ends one in the tables of both, or a line there.
NAMES = (
    re.compile(r"%?[^%:,\"'\[\]\s\x00-\x1f]([^:,\"'\[\]\x00-\x1f]*[^:,\"'\[\]\s\x00-\x1f])?"),
    "names of users, and of groups after a %",
)
FOLDERS = (re.compile(r"(?:/(?!\.\.?(?:/|$))[^/\x00]+)+"), "absolute paths of folders, without a slash at the end")
LIMITS = (re.compile(r"[^=\s]+=[1-9][0-9]{0,8}"), "limits of at least 1, such as copy=4")

# As the vendor's table of fields has them, or as its example does; nobody knows which is sent.
KOODRIVE_WIRES = ("table", "example")


def setting(
    doc: str,
    default: Any = attrs.NOTHING,
    *,
    factory: Any = None,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    reload: bool = True,
    each: tuple[re.Pattern[str], str] | None = None,
) -> Any:
    """A field of ``Config``. ``reload``: a running daemon takes a new value (``reload.reload``)."""
    metadata = {"doc": doc, "unit": unit, "least": least, "most": most, "reload": reload, "each": each}
    if factory is not None:
        return attrs.field(factory=factory, metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


@attrs.frozen
class Config:
    """All settings of the daemon."""

    socket: str = setting(
        "path of the Unix socket to listen on, where systemd hands over none",
        factory=default_socket,
        unit="path",
        reload=False,
    )
    state: str = setting(
        "folder of the store and of everything else that must survive",
        factory=default_state,
        unit="path",
        reload=False,
    )
    log_level: str = setting("least severity to log: debug, info, warning or error", "info", unit="word")
    log_format: str = setting("each line of the log: text (key=value) or json", "text", unit="word")
    socket_mode: str = setting(
        "permissions of the socket file, octal, where systemd hands over none",
        "0660",
        unit="octal number",
        reload=False,
    )
    socket_group: str = setting(
        "group of the socket file, empty for the daemon's own, where systemd hands over none",
        "",
        unit="name",
        reload=False,
    )
    admins: tuple[str, ...] = setting(
        "users and %groups who may do everything, beside the daemon's own user",
        ("root",),
        unit="names",
        each=NAMES,
    )
    services: tuple[str, ...] = setting(
        "users and %groups who may start tasks for other owners", (), unit="names", each=NAMES
    )
    proxies: tuple[str, ...] = setting(
        "users and %groups who pass on the calls of others: each must bring a token, without one they are nobody",
        (),
        unit="names",
        each=NAMES,
    )
    roots: tuple[str, ...] = setting(
        "folders beneath which who comes by a token may copy, with the rights of the user a folder belongs to",
        (),
        unit="paths",
        each=FOLDERS,
        reload=False,
    )
    max_message_bytes: int = setting("longest request, in bytes", 1024 * 1024, least=1024, unit="bytes")
    max_depth: int = setting("deepest nesting of a request", 100, least=8, most=200, unit="levels")
    max_batch: int = setting("most requests in one batch", 10_000, least=1, unit="requests")
    max_reply_bytes: int = setting(
        "bytes of replies after which the rest of a batch is refused", 16 * 1024 * 1024, least=65536, unit="bytes"
    )
    max_text: int = setting(
        "longest label, description, status, owner, request_id or dbg, in characters",
        4096,
        least=64,
        unit="characters",
    )
    max_result_bytes: int = setting(
        "longest result, error or speeds of an external task, as JSON, in bytes", 65536, least=64, unit="bytes"
    )
    message_deadline_s: float = setting(
        "seconds in which a first message must come, and any message that has begun must be complete",
        30.0,
        least=0.001,
        unit="seconds",
    )
    reader_deadline_s: float = setting(
        "seconds in which a peer must read the next 64 KiB of what it is sent",
        60.0,
        least=0.001,
        unit="seconds",
    )
    connections_per_user: int = setting(
        "most connections of one user id at a time", 1024, least=1, unit="connections"
    )
    unread_bytes_per_user: int = setting(
        "most bytes of long replies to one user that are not read yet, or one reply of any length",
        256 * 1024 * 1024,
        least=1024 * 1024,
        unit="bytes",
    )
    requests_in_flight: int = setting(
        "most waiting calls of one connection at a time, max_message_bytes of them", 256, least=1, unit="calls"
    )
    subscriptions_per_connection: int = setting(
        "most streams of notifications (Task.watch, listen) of one connection at a time",
        64,
        least=1,
        unit="streams",
    )
    koodrive_wire: str = setting(
        "code and nextCursor of KooDrive: table (strings) or example (numbers)", "table", unit="word"
    )
    tasks_per_owner: int = setting(
        "most unfinished tasks of one owner; each 64 KiB of memory that one holds count as one more",
        10_000,
        least=1,
        unit="tasks",
    )
    running_tasks: int = setting("most tasks that run at a time; the rest is queued", 64, least=1, unit="tasks")
    running_per_owner: int = setting("most tasks of one owner that run at a time", 32, least=1, unit="tasks")
    running_per_operation: tuple[str, ...] = setting(
        "most tasks of an operation that run at a time, such as copy=4, where it has a limit of its own",
        (),
        unit="limits",
        each=LIMITS,
        reload=False,
    )
    log_lines: int = setting("newest lines kept of each task's log", 10_000, least=1, unit="lines")
    retention_days: float = setting("days after which an ended task is forgotten", 30.0, least=0, unit="days")
    retention_count: int = setting(
        "most ended tasks that are remembered; of whoever has most, the oldest go first",
        1_000_000,
        least=0,
        unit="tasks",
    )
    stop_grace_s: float = setting(
        "seconds that calls in flight get when the daemon stops", 5.0, least=0, unit="seconds"
    )

    @property
    def operation_limits(self) -> dict[str, int]:
        """``running_per_operation`` by name of the operation; said twice, the last counts."""
        pairs = (limit.rsplit("=", 1) for limit in self.running_per_operation)
        return {name: int(number) for name, number in pairs}


_WORDS: Mapping[type, str] = {
    str: 'a text, as in "0660"',
    int: "an integer",
    float: "a number",
    tuple: 'a list of texts, as in ["root"]',
}


# What is not repeated where it was not expected: it may be longer, or deeper, than Python would write.
_LONG: Mapping[type, str] = {dict: "a table", list: "a list"}


def _checked(field: attrs.Attribute[Any], kind: Any, value: Any, where: str) -> Any:
    if type(value) is int and value.bit_length() > 63:
        raise ConfigError(where, "expected a number of 64 bits at most")
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(where, "the character NUL cannot be in it")
    if kind is float and type(value) is int:
        value = float(value)
    if get_args(kind) and isinstance(value, list):
        value = tuple(value)
        if not all(isinstance(each, str) for each in value):
            raise ConfigError(where, "expected a list of strings")
        pattern, sentence = field.metadata["each"]
        for each in value:
            if not pattern.fullmatch(each):
                raise ConfigError(where, f"expected {sentence}, got {each!r}")
    elif type(value) is not (tuple if get_args(kind) else kind):
        got = _LONG.get(type(value)) or repr(value)
        raise ConfigError(where, f"expected {_WORDS[tuple if get_args(kind) else kind]}, got {got}")
    least = field.metadata["least"]
    if least is not None and not value >= least:
        raise ConfigError(where, f"must be at least {least}, not {value}")
    most = field.metadata["most"]
    if most is not None and not value <= most:
        raise ConfigError(where, f"must be at most {most}, not {value}")
    if field.name == "log_level" and value not in LOG_LEVELS:
        raise ConfigError(where, f"must be one of {', '.join(LOG_LEVELS)}, not {value!r}")
    if field.name == "log_format" and value not in LOG_FORMATS:
        raise ConfigError(where, f"must be one of {', '.join(LOG_FORMATS)}, not {value!r}")
    if field.name == "koodrive_wire" and value not in KOODRIVE_WIRES:
        raise ConfigError(where, f"must be one of {', '.join(KOODRIVE_WIRES)}, not {value!r}")
    if field.name == "socket_mode" and not re.fullmatch("0?[0-7]{3}", value):
        raise ConfigError(where, f"must be octal permissions such as 0660, not {value!r}")
    if field.name in ("socket", "state") and not os.path.isabs(value):
        raise ConfigError(where, f"must be an absolute path, not {value!r}")
    return value


def _from_text(kind: Any, text: str, where: str) -> Any:
    if get_args(kind):
        return [each.strip() for each in text.split(",") if each.strip()]
    try:
        return text if kind is str else kind(text)
    except ValueError:
        raise ConfigError(where, f"expected {_WORDS[kind]}, got {text!r}") from None


def _read(path: str, *, required: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise ConfigError(path, "there is no such file") from None
        return {}
    # What is no TOML, no UTF-8, or a number of thousands of digits is a ValueError; the last is a value too deep.
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(path, str(error)) from None


def load(
    file: str | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """The settings in force. Without ``file``, the default one is read if it is there.

    Raises:
        ConfigError: names the file's key, the variable or the flag, and what is wrong with it.
    """
    path = file or environment.get("TASKD_CONFIG") or default_file()
    given = _read(path, required=path != default_file())
    fields, kinds = attrs.fields_dict(Config), get_type_hints(Config)
    for key in given:
        if key not in fields:
            raise ConfigError(f"{path}: {key}", "there is no such setting")
    settled: dict[str, Any] = {}
    for name, field in fields.items():
        kind, variable = kinds[name], f"TASKD_{name.upper()}"
        flag = (flags or {}).get(name)
        if flag is not None:
            settled[name] = _checked(field, kind, flag, f"--{name.replace('_', '-')}")
        elif variable in environment:
            settled[name] = _checked(field, kind, _from_text(kind, environment[variable], variable), variable)
        elif name in given:
            settled[name] = _checked(field, kind, given[name], f"{path}: {name}")
    return Config(**settled)
