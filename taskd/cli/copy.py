"""``taskctl copy``: copy a disk image; the target is whole or as it was."""

from __future__ import annotations

import click

from taskd.cli import options
from taskd.cli.exits import Exit


@click.command("copy", short_help="Copy a disk image or a block device.")
@click.argument("source", type=options.named, shell_complete=options.completed("files"))
@click.argument("target", type=options.named, shell_complete=options.completed("files"))
@click.option("--overwrite", is_flag=True, help="Replace a target that exists; until the end it stays as it is.")
@click.option("--verify", is_flag=True, help="Read the copy back and compare.")
@click.option("--rate-limit", type=options.size, metavar="BYTES", help="Bytes per second; suffixes K, M, G.")
@options.label
@options.request_id
@options.no_wait
@options.as_json
@click.pass_obj
def command(
    socket: str,
    *,
    source: str,
    target: str,
    overwrite: bool,
    verify: bool,
    rate_limit: int | None,
    label: str | None,
    request_id: str | None,
    no_wait: bool,
    as_json: bool,
) -> Exit:
    """Copy the image or block device SOURCE to TARGET, and wait for it.

    Ctrl-C cancels: then TARGET is exactly as it was before.
    """
    from taskd.cli.begin import begin
    from taskd.client import verbs

    call = verbs.copy(
        options.absolute(source),
        options.absolute(target),
        overwrite=overwrite,
        verify=verify,
        rate_limit=rate_limit,
        label=label,
        request_id=request_id,
    )
    return begin(socket, call, no_wait=no_wait, as_json=as_json)
