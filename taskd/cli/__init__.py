"""``taskctl``: the command line over ``taskd.client``; one file a command.

A command gives back its exit code (``exits``); what goes wrong on purpose (``TaskdError``) becomes one
sentence here, and only here. What a command does not need it does not import, and what it needs it imports
when it runs: ``ls``, and the Tab key (``shells``), do without attrs and the client, most without trio and rich.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from io import StringIO
from typing import Final

import click

from taskd import __version__
from taskd.cli import exits, options, say
from taskd.cli.exits import Exit
from taskd.places import default_socket

COMMANDS: Final = (
    *("copy", "run", "start", "ls", "top", "show", "log", "wait", "cancel", "destroy", "recover", "operations"),
    *("doctor", "install-units", "token", "call", "completion"),
)

# What the shells' scripts set when the Tab key was pressed.
COMPLETE: Final = "_TASKCTL_COMPLETE"


class Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"taskd.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """The exit code of the command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            from taskd.cli.sentences import sentence
            from taskd.errors import TaskdError

            if not isinstance(error, TaskdError):
                raise
            say.err(sentence(error))
            return exits.of_error(error)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExit codes:\n" + exits.table(),
)
@click.option(
    "--socket",
    type=options.named,
    metavar="PATH",
    shell_complete=options.completed("files"),
    help="Socket of the daemon; else TASKD_SOCKET, else root's /run/taskd/taskd.sock, or the user's own.",
)
@click.version_option(__version__, "--version", message="taskctl %(version)s")
@click.pass_context
def taskctl(ctx: click.Context, socket: str | None) -> None:
    """Start, watch and cancel long storage tasks that either completed or were never made.

    A task is named by its id or by the start of it that only one task has. With --json a command prints one
    JSON document, records as the daemon tells them, and nothing else.
    """
    ctx.obj = socket or os.environ.get("TASKD_SOCKET") or default_socket()


def main() -> None:
    """The entry point; ends the process."""
    say.prepare()
    if COMPLETE in os.environ:
        from taskd.cli import shells

        sys.exit(shells.complete(taskctl))
    sys.exit(obey())


def obey() -> int:
    """Do what the command line says; the exit code."""
    try:
        code = taskctl.main(prog_name="taskctl", standalone_mode=False)
    except click.Abort:
        return Exit.LEFT
    except click.ClickException as error:
        usage = StringIO()
        error.show(usage)
        say.complain(usage.getvalue())
        return Exit.USAGE
    except say.Unheard as error:
        return error.exit
    except OSError as error:  # of what click prints itself, such as --help
        if error.filename is not None:  # what cannot be written there has none; this a command has not foreseen
            raise
        return say.unwritable(error.strerror).exit
    return int(code or 0)
