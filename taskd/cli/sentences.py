"""The daemon's refusals in the words of the command line.

The daemon names fields of a call; whoever typed a command knows arguments and options. Which command it was,
and what it calls a field, click knows.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping

import click

from taskd.errors import FolderMissing, HasResidue, NoDaemon, Refused, SourceMissing, TargetExists, TaskdError
from taskd.places import SOCKET, default_socket

# `params.` of the call, `params.params.` of the operation in it; at the start, and after every `; `.
FIELD = re.compile(r"(^|; )params\.(?:params\.)?(\w+)")


def sentence(error: TaskdError) -> str:
    """What went wrong, for the person who typed the command."""
    if isinstance(error, NoDaemon) and error.reason == os.strerror(errno.EACCES):
        return _closed(error)
    if isinstance(error, NoDaemon):
        return str(error) + elsewhere(error.socket, default_socket(), SOCKET)
    if not isinstance(error, Refused):
        return str(error)
    names = _names()
    match error.error, error.details:
        case TargetExists.name, (path,) if "overwrite" in names:
            return f"{path} exists; {names['overwrite']} replaces it"
        case SourceMissing.name, (path,) if os.path.exists(path):
            return _unseen(path)
        case FolderMissing.name, (path,) if os.path.isdir(path):
            return _unseen(path)
        case HasResidue.name, (id,):
            return (
                f"task {id} left residue behind; `taskctl recover {id}` tries again, "
                f"`taskctl destroy --force {id}` forgets it"
            )
        case "Bad_params", _:
            return FIELD.sub(lambda match: match[1] + _called(match[2], names), error.text)
        case _:
            return error.text


def _unseen(path: str) -> str:
    """It is here, but not where the daemon looks."""
    from taskd.cli import units

    said = f"{path} does not exist for the daemon, though it does here"
    if not units.hidden(path):
        return said
    return (
        f"{said}: its unit sees no homes, and has a /tmp of its own "
        "(`taskctl install-units --root DIR`, as root, opens a folder to it)"
    )


def _closed(error: NoDaemon) -> str:
    """Somebody may well listen there, but not to us."""
    try:
        found = os.stat(error.socket)
    except OSError:
        return str(error)
    mode = f"its mode is {stat.S_IMODE(found.st_mode):04o}, its owner {found.st_uid}:{found.st_gid}"
    return f"you may not connect to {error.socket}: {mode} (`taskctl doctor` tells what to do)"


def elsewhere(socket: str, own: str, root: str) -> str:
    """What is said beside that nobody answers on ``socket``, where that is the user's ``own`` and the daemon that
    is meant may be the one on ``root``. It is only said: a task of one's own daemon is none for another.
    """
    if socket != own or own == root or not os.path.exists(root):
        return ""
    return f"; there is {root}, which --socket or TASKD_SOCKET would name"


def _called(field: str, names: Mapping[str, str]) -> str:
    """What the command calls a field: ``undo_argv`` is its ``--undo``, ``grace_s`` its ``--grace``."""
    for name in (field, field.removesuffix("_argv"), field.removesuffix("_s")):
        if name in names:
            return names[name]
    return field


def _names() -> dict[str, str]:
    """The arguments and options of the command that was typed."""
    context = click.get_current_context(silent=True)
    root = context.find_root() if context is not None else None
    if root is None or not isinstance(root.command, click.Group) or root.invoked_subcommand is None:
        return {}
    command = root.command.get_command(root, root.invoked_subcommand)
    # Of a group the one that was typed is not known any more; what one calls a field, no other calls otherwise.
    typed = [*command.commands.values()] if isinstance(command, click.Group) else [command] if command else []
    return {param.name or "": _typed(param) for each in typed for param in each.params}


def _typed(param: click.Parameter) -> str:
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return param.human_readable_name.strip("[.]")
