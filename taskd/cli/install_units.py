"""``taskctl install-units``: make taskd a systemd unit of this machine, or no longer one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import click

from taskd.cli import options, say, units, words
from taskd.cli.exits import Exit

OURS: Final = ("taskd.service", "taskd.socket")

# Paths, by what happened to the files.
Done: TypeAlias = Mapping[str, Sequence[str]]


@click.command("install-units", short_help="Make taskd a systemd unit.")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=options.named,
    metavar="DIR",
    help="A folder that tasks may write to, beside /srv and those of before; may be repeated.",
)
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    type=click.Choice(units.CLOSED),
    help="Open to tasks what is closed otherwise; may be repeated.",
)
@click.option("--prefix", type=options.named, metavar="DIR", help="Write below DIR, and call nothing of systemd.")
@click.option("--remove", is_flag=True, help="Stop taskd and remove the files; its state stays.")
@options.as_json
def command(
    roots: Sequence[str], allowed: Sequence[str], prefix: str | None, *, remove: bool, as_json: bool
) -> Exit:
    """Install taskd's units, settings file and group, for the taskd of this taskctl.

    Run it again after an upgrade, or to add roots; one that is to go is a line of roots.conf. With --json: the
    files that were written, kept because they are changed by hand, and removed.
    """
    if remove and (roots or allowed):
        raise click.UsageError("--remove takes neither --root nor --allow")
    for root in roots:
        if ":" in root or not root.isprintable():
            raise click.BadParameter(f"{root!r} cannot be said in a unit", param_hint="--root")
    below, live = Path(prefix or "/"), prefix is None and os.path.isdir("/run/systemd/system")
    try:
        if remove:
            done = _removed(below, live=live)
        else:
            done = _installed(below, list(map(options.absolute, roots)), allowed, live=live)
    except OSError as error:
        say.err(f"{error.filename}: {error.strerror}")
        return Exit.NOT_INSTALLED
    except subprocess.CalledProcessError as error:  # it has said why
        say.err(f"{' '.join(map(str, error.cmd))} ended with status {error.returncode}")
        return Exit.NOT_INSTALLED
    if as_json:
        say.out(words.document({word: list(paths) for word, paths in done.items()}))
        return Exit.DONE
    for word, paths in done.items():
        for path in paths:
            say.out(f"{word} {words.printable(path)}")
    if not remove and prefix is None and not live:
        say.err("no systemd runs here; the units are there for when one does")
    elif not remove and live and _runs():
        say.out("next: systemctl restart taskd.service")
    elif not remove:
        say.out("next: systemctl enable taskd.service && systemctl start taskd.socket")
    return Exit.DONE


def _installed(below: Path, roots: Sequence[str], allowed: Sequence[str], *, live: bool) -> Done:
    written, kept = [], []
    drop_in = below / units.ROOTS
    before = drop_in.read_text() if roots and drop_in.exists() else ""
    for place, text in units.files(units.program(), roots, allowed, before).items():
        path = below / place
        if place == units.SETTINGS and path.exists():
            if path.read_text() != text:
                kept.append(str(path))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
        written.append(str(path))
    if live:
        _call("systemd-sysusers", str(below / units.PLACES["taskd.sysusers"]))
        _call("systemd-tmpfiles", "--create", str(below / units.PLACES["taskd.tmpfiles"]))
        _call("systemctl", "daemon-reload")
    return {"wrote": written, "kept": kept}


def _removed(below: Path, *, live: bool) -> Done:
    if live and all((below / units.UNITS / name).exists() for name in OURS):
        _call("systemctl", "--quiet", "disable", "--now", *OURS)
    removed, kept = [], []
    settings = units.shipped() / "taskd.toml"
    for place in (*units.PLACES.values(), *units.FILLED):
        path = below / place
        if not path.exists():
            continue
        if place == units.SETTINGS and path.read_bytes() != settings.read_bytes():
            kept.append(str(path))
            continue
        path.unlink()
        removed.append(str(path))
    for folder in (below / units.DROP_INS, (below / units.SETTINGS).parent):
        with suppress(OSError):  # somebody else's files are in it, or it is not there
            folder.rmdir()
    if live:
        _call("systemctl", "daemon-reload")
        subprocess.run(["systemctl", "reset-failed", *OURS], stderr=subprocess.DEVNULL, check=False)
    return {"removed": removed, "kept": kept}


def _replace(path: Path, text: str) -> None:
    """As a whole: systemd may be reading it."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)


def _runs() -> bool:
    """The service runs, and goes on by the files of before."""
    return subprocess.run(["systemctl", "--quiet", "is-active", OURS[0]], check=False).returncode == 0


def _call(*argv: str) -> None:
    subprocess.run(argv, check=True)
