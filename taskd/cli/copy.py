"""``taskctl copy``: copy a disk image; the target is whole or as it was."""

from __future__ import annotations

import click

from taskd.cli import begin, options
from taskd.cli.exits import Exit
from taskd.client import verbs


@click.command("copy")
@click.argument("source", type=options.named)
@click.argument("target", type=options.named)
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
    call = verbs.copy(
        options.absolute(source),
        options.absolute(target),
        overwrite=overwrite,
        verify=verify,
        rate_limit=rate_limit,
        label=label,
        request_id=request_id,
    )
    return begin.begin(socket, call, no_wait=no_wait, as_json=as_json)
