"""The scenarios that the proofs disturb: what there is before, what is asked of the daemon, what there is when it
is whole; and how a daemon is judged that has recovered.

A proof prepares a place, starts a daemon on it, lets the scenario ``act`` and does its worst meanwhile: then the
calls end with ``NoDaemon``, and ``Said`` holds what had been answered by then. After that it starts a daemon
again, and ``judge``, and ``owed`` when that one is dead too, say how it ended. The law that is judged by: the
callers' folder is what it was, or what it is when all is done, to the byte and with nothing beside it; every
task's answer agrees with that; what was answered stays true; nothing is owed.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import attrs

from taskd import client, codec
from taskd.client.record import Record
from taskd.model import JSON
from tests.cases import Photo, photograph
from tests.operations.conftest import image, loop_device
from tests.proof import Outcome, Verdict

# Seconds in which a task has recovered and ended, on a busy machine.
PATIENCE: Final = 60.0

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "operations"

SIZE: Final = 24_000
BLOCK: Final = 4096


@attrs.frozen
class Place:
    """Where a scenario is played: ``data`` is the callers' folder, ``state`` the daemon's; both may be missing."""

    data: Path
    state: Path

    def photo(self) -> Photo:
        """All that the callers have."""
        return photograph(self.data)


@attrs.define
class Said:
    """What the daemon has answered so far. What it did not live to answer may have happened, or not.

    ``name`` tells its requests from another's. What is ``doomed`` is ``destroyed``, or may be.
    """

    name: str = "request"
    started: dict[str, tuple[str, Mapping[str, JSON]]] = attrs.field(factory=dict)
    cancelled: set[str] = attrs.field(factory=set)
    ended: dict[str, str] = attrs.field(factory=dict)
    doomed: set[str] = attrs.field(factory=set)
    destroyed: set[str] = attrs.field(factory=set)

    def start(self, daemon: client.Daemon, operation: str, params: Mapping[str, JSON]) -> str:
        """The id of a task, which is known from now on."""
        id = daemon.start(operation, params, request_id=f"{self.name} {len(self.started)}").id
        self.started[id] = operation, params
        return id

    def end(self, daemon: client.Daemon, id: str) -> None:
        """Wait for it; how it ended stays so."""
        self.told(daemon.wait(id))

    def told(self, task: Record) -> None:
        if task.ended:
            self.ended[task.id] = task.state

    def cancel(self, daemon: client.Daemon, id: str) -> None:
        """An accepted cancel is not forgotten."""
        daemon.cancel(id, must=True)
        self.cancelled.add(id)

    def destroy(self, daemon: client.Daemon, id: str) -> None:
        self.doomed.add(id)
        daemon.destroy(id)
        self.destroyed.add(id)


Act = Callable[[client.Daemon, Place, Said], None]


@attrs.frozen
class Scenario:
    """``prepare`` fills an empty folder; ``whole`` makes, of the photo before, the one of when it is done.

    ``attached`` is entered around all daemons of a run. ``restartable``: interrupted, it is done all the same.
    ``endless``: it only ends because it is cancelled. ``codes`` are those that it may fail with undisturbed.
    """

    name: str
    prepare: Callable[[Path], None]
    act: Act
    whole: Callable[[Photo], Photo]
    attached: Callable[[Path], AbstractContextManager[None]] = lambda folder: nullcontext()
    restartable: bool = False
    endless: bool = False
    codes: frozenset[str] = frozenset()

    def ends(self, before: Photo) -> Photo:
        """What there is after the scenario, undisturbed."""
        return before if self.endless or self.codes else self.whole(before)

    def __str__(self) -> str:
        return self.name


# What there is before, and when it is done.


def _images(*names: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for seed, name in enumerate(names, 1):
            image(folder / name, SIZE, seed)

    return prepare


def _twin(folder: Path) -> None:
    _images("source", "target")(folder)
    os.link(folder / "target", folder / "twin")


def _short_twin(folder: Path) -> None:
    """What the blocks go into ends within one of them: it grows, and to undo that is to cut it too."""
    _twin(folder)
    os.truncate(folder / "target", SHORT)


def _same(before: Photo) -> Photo:
    return before


def _copied(before: Photo) -> Photo:
    return {**before, "target": before["source"]}


BLOCKS: Final = ((1, 1), (3, 2))
SHORT: Final = 4 * BLOCK - 96


def _with_blocks(*names: str) -> Callable[[Photo], Photo]:
    def whole(before: Photo) -> Photo:
        source, after = before["source"][2], dict(before)
        for name in names:
            kind, mode, content = before[name]
            for start, length in BLOCKS:
                at, end = start * BLOCK, (start + length) * BLOCK
                content = content[:at] + source[at:end] + content[end:]
            after[name] = kind, mode, content
        return after

    return whole


@contextmanager
def _device(folder: Path) -> Iterator[None]:
    """``folder/device`` is a link to a block device over ``folder/disk``."""
    with loop_device(folder / "disk") as node:
        link = folder / "device"
        link.unlink(missing_ok=True)
        link.symlink_to(node)
        try:
            yield
        finally:
            link.unlink()


# What is asked of the daemon.


def _copy(target: str = "target", **params: JSON) -> Act:
    def act(daemon: client.Daemon, place: Place, said: Said) -> None:
        where: dict[str, JSON] = {"source": str(place.data / "source"), "target": str(place.data / target)}
        said.end(daemon, said.start(daemon, "copy", {**where, **params}))

    return act


_PAIRS: Final[JSON] = {"blocksize": BLOCK, "ranges": [list(pair) for pair in BLOCKS]}


def _copy_cancelled(daemon: client.Daemon, place: Place, said: Said) -> None:
    """When it is in its middle."""
    where: dict[str, JSON] = {"source": str(place.data / "source"), "target": str(place.data / "target")}
    id = said.start(daemon, "copy", {**where, "overwrite": True, "rate_limit": 1})
    _moving(daemon, id)
    said.cancel(daemon, id)
    said.end(daemon, id)


def _cancelled_in_place(daemon: client.Daemon, place: Place, said: Said) -> None:
    """When its pre-image is saved, and all blocks but the last are written."""
    where: dict[str, JSON] = {"source": str(place.data / "source"), "target": str(place.data / "target")}
    params: dict[str, JSON] = {**where, "overwrite": True, "blocks": _PAIRS, "rate_limit": 2 * BLOCK}
    id = said.start(daemon, "copy", params)
    past(daemon, id, 3 / 4)
    said.cancel(daemon, id)
    said.end(daemon, id)


def past(daemon: client.Daemon, id: str, fraction: float) -> None:
    """Wait until more than that share of its progress is made, or it has ended."""
    task = daemon.get(id)
    while not task.ended and (task.progress.fraction or 0) <= fraction:
        task = daemon.wait(id, after_revision=task.revision)


def _moving(daemon: client.Daemon, id: str) -> None:
    task = daemon.get(id)
    while not task.ended and not task.progress.done:
        task = daemon.wait(id, after_revision=task.revision)


def _command(script: str) -> Act:
    def act(daemon: client.Daemon, place: Place, said: Said) -> None:
        params = _program(place, script)
        said.end(daemon, said.start(daemon, "command", params))

    return act


def _program(place: Place, script: str) -> Mapping[str, JSON]:
    undo = "rm -f made && sync ."
    return {"argv": ["sh", "-c", script], "cwd": str(place.data), "undo_argv": ["sh", "-c", undo], "grace_s": 0}


def _command_cancelled(daemon: client.Daemon, place: Place, said: Said) -> None:
    id = said.start(daemon, "command", _program(place, f"{_HALF} && echo progress 0.5 >&3 && exec sleep 1000"))
    past(daemon, id, 0)
    said.cancel(daemon, id)
    said.end(daemon, id)


_HALF: Final = "printf half > made"
_REST: Final = "printf more >> made && sync made ."


def _made(before: Photo) -> Photo:
    return {**before, "made": ("file", 0o644, b"halfmore")}


def _digest(daemon: client.Daemon, place: Place, said: Said) -> None:
    said.end(daemon, said.start(daemon, "digest", {"image": str(place.data / "source")}))


def _digested(before: Photo) -> Photo:
    line = f"{hashlib.sha256(before['source'][2]).hexdigest()}  source\n"
    return {**before, "source.sha256": ("file", 0o644, line.encode())}


def _external(daemon: client.Daemon, place: Place, said: Said) -> None:
    """One that is completed, one that fails, one that obeys a cancel, and one that is forgotten."""
    done, failed, stopped = (said.start(daemon, "external", {}) for _ in range(3))
    daemon.update(done, done=1, total=2, log=["half"])
    said.told(daemon.complete(done, {"well": "done"}))
    said.told(daemon.fail(failed, "BROKEN", "it broke"))
    said.cancel(daemon, stopped)
    said.told(daemon.fail(stopped, "CANCELLED", "as you wish"))
    said.destroy(daemon, failed)


COPY_NEW: Final = Scenario(
    "copy, new file", _images("source"), _copy(verify=True), _copied, restartable=True
)  # fmt: skip
COPY_OVER: Final = Scenario(
    "copy, over a file", _images("source", "target"), _copy(overwrite=True), _copied, restartable=True
)
BLOCKS_ASIDE: Final = Scenario(
    "blocks into a file, which is replaced",
    _images("source", "target"),
    _copy(overwrite=True, blocks=_PAIRS),
    _with_blocks("target"),
    restartable=True,
)
BLOCKS_IN_PLACE: Final = Scenario(
    "blocks into a file with two names, in place",
    _twin,
    _copy(overwrite=True, blocks=_PAIRS),
    _with_blocks("target", "twin"),
    restartable=True,
)
BLOCKS_DEVICE: Final = Scenario(
    "blocks onto a loop device",
    _images("source", "disk"),
    _copy("device", overwrite=True, blocks=_PAIRS),
    _with_blocks("disk"),
    attached=_device,
    restartable=True,
)
DEVICE_VERIFIED: Final = attrs.evolve(
    BLOCKS_DEVICE,
    name=f"{BLOCKS_DEVICE.name}, verified",
    act=_copy("device", overwrite=True, blocks=_PAIRS, verify=True),
)
COPY_CANCELLED: Final = Scenario(
    "copy, cancelled", _images("source", "target"), _copy_cancelled, _copied, restartable=True, endless=True
)
CANCELLED_IN_PLACE: Final = Scenario(
    "blocks in place, cancelled midway",
    _short_twin,
    _cancelled_in_place,
    _with_blocks("target", "twin"),
    restartable=True,
    endless=True,
)
COMMAND: Final = Scenario("command with undo", _images(), _command(f"{_HALF} && {_REST}"), _made)
COMMAND_FAILS: Final = Scenario(
    "command with undo, which fails",
    _images(),
    _command(f"{_HALF} && exit 3"),
    _made,
    codes=frozenset({"COMMAND_FAILED"}),
)
COMMAND_CANCELLED: Final = Scenario(
    "command with undo, cancelled", _images(), _command_cancelled, _made, endless=True
)
DIGEST: Final = Scenario("a plugin's operation (digest)", _images("source"), _digest, _digested, restartable=True)
EXTERNAL: Final = Scenario("external, completed, failed, cancelled", _images(), _external, _same)

SCENARIOS: Final = (
    COPY_NEW,
    COPY_OVER,
    BLOCKS_ASIDE,
    BLOCKS_IN_PLACE,
    BLOCKS_DEVICE,
    COPY_CANCELLED,
    CANCELLED_IN_PLACE,
    COMMAND,
    COMMAND_FAILS,
    COMMAND_CANCELLED,
    DIGEST,
    EXTERNAL,
)

# No task at all: what is disturbed is the start itself.
START: Final = Scenario("an empty start", _images(), lambda daemon, place, said: None, _same)


def plugins(folder: Path) -> str:
    """A PYTHONPATH on which the example's operation counts as installed; its metadata is in ``folder``."""
    metadata = folder / "taskd_digest-0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: taskd-digest\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[taskd.operations]\ndigest = taskd_digest:OPERATION\n")
    return os.pathsep.join((str(folder), str(EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH")])))


# How it ended.


def judge(
    scenario: Scenario,
    place: Place,
    before: Photo,
    daemon: client.Daemon,
    said: Said,
    *,
    codes: Container[str] = frozenset({"INTERRUPTED"}),
    owes: bool = False,
) -> Outcome:
    """Bring what goes on to its end, and look. ``codes``: what a task may have failed with beside its own. With
    ``owes`` it may owe something until now, and is asked to pay.

    The daemon that is asked was started after the fault, or has outlived it.
    """
    tasks = {id: _settled(scenario, daemon, said, id, owes=owes) for id in daemon.ids()}
    now, whole = place.photo(), scenario.whole(before)
    wrong = [sentence for task in tasks.values() for sentence in _lies(scenario, said, task, codes)]
    wrong += [f"{id} was started and is not known" for id in said.started if id not in {*tasks, *said.doomed}]
    wrong += [f"{id} was destroyed and is known" for id in said.destroyed & tasks.keys()]
    wrong += [f"{id} is asked for again as {again}" for id, again in _repeated(daemon, said) if id != again]
    completed = [task for task in tasks.values() if task.state == "completed"]
    if now != (whole if completed else before):
        states = ", ".join(f"{task.operation} {task.state}" for task in tasks.values()) or "no task"
        wrong.append(f"{states}; but the folder is {_told(now, before, whole)}")
    wrong += [f"in the workspace: {name}" for name in os.listdir(place.state / "workspace")]
    if wrong:
        return Outcome(Verdict.WRONG, what="; ".join(wrong))
    return Outcome(Verdict.WHOLE if completed else Verdict.AS_BEFORE)


def _settled(scenario: Scenario, daemon: client.Daemon, said: Said, id: str, *, owes: bool) -> Record:
    """The task when it has ended. A producer does what it had to do, and nobody waits for what has no end."""
    task, until = daemon.get(id), time.monotonic() + PATIENCE
    while not task.ended and time.monotonic() < until:
        if task.operation == "external":
            task = daemon.complete(id)
        elif scenario.endless and task.cancellable and not task.cancel_requested:
            if id in said.cancelled:
                break  # it was forgotten, and is not asked for again
            daemon.cancel(id)
        task = daemon.wait(id, timeout_s=1.0, after_revision=task.revision)
    said.told(task)
    return daemon.recover(id) if owes and task.ended and task.residue else task


def _lies(scenario: Scenario, said: Said, task: Record, codes: Container[str]) -> Iterator[str]:
    """What a task says that is not so, or should not be."""
    about = f"{task.operation} {task.id} is {task.state}"
    code = task.error.code if task.error else None
    if not task.ended:
        yield f"{about} and does not end: {task.waits_for or task.residue}"
    if (told := said.ended.get(task.id, task.state)) != task.state:
        yield f"{about}, but had been told to be {told}"
    # The producer of one may be too late; and an undo that fails is what counts then.
    obeyed = task.state == "cancelled" or task.operation == "external" or code == "UNDO_FAILED"
    if task.id in said.cancelled and not (task.cancel_requested and obeyed):
        yield f"{about}, but its cancel had been accepted"
    if task.residue:
        yield f"{about} and owes {task.residue}"
    if task.state == "failed" and task.operation != "external":
        if code not in scenario.codes and code not in codes:
            yield f"{about} with {task.error}"
        if scenario.restartable and code == "INTERRUPTED":
            yield f"{about}, but could have been done again"


def _repeated(daemon: client.Daemon, said: Said) -> Iterator[tuple[str, str]]:
    """Each started task, and the one that the same request gets now."""
    for n, (id, (operation, params)) in enumerate(said.started.items()):
        if id not in said.doomed:
            yield id, daemon.start(operation, params, request_id=f"{said.name} {n}").id


def owed(place: Place) -> list[str]:
    """The tasks that have a journal on the disk; asked when the daemon is dead, for it locks its database."""
    with closing(sqlite3.connect(f"file:{place.state}/taskd.sqlite?mode=rw", uri=True)) as database:
        tasks = [codec.unpack(doc) for (doc,) in database.execute("SELECT doc FROM task")]
    return [f"{task.operation} {task.id} {task.state} has a journal" for task in tasks if task.journal]


def _told(now: Photo, before: Photo, whole: Photo) -> str:
    """In what it is neither."""
    for name, photo in (("as before", before), ("whole", whole)):
        if now == photo:
            return name
    changed = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
    return f"neither whole nor as before: {changed}"
