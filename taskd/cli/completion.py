"""``taskctl completion``: what makes the Tab key know taskctl."""

from __future__ import annotations

import click

from taskd.cli import say


@click.command("completion", short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell: commands, options, ids of tasks, operations and their params.

    \b
    bash:  eval "$(taskctl completion bash)"   in ~/.bashrc
    zsh:   eval "$(taskctl completion zsh)"    in ~/.zshrc, after compinit
    fish:  taskctl completion fish | source    in ~/.config/fish/config.fish
    """
    from taskd.cli import shells

    root = ctx.find_root().command
    say.out(shells.script(root, shell).rstrip("\n"))
