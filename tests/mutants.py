"""Break the law on purpose, one place at a time, and see a test fail: ``python -m tests.mutants [NAME…]``.

Each row of ``MUTANTS`` is a breakage: a file of the package, a passage of it, and what stands there instead. It is
made in a copy of the package, and the tests that hold that law are run against the copy. A mutant that survives
is a law that no test holds; a passage that is no longer there is an error. Exit status 0: all were killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

ROOT = Path(__file__).parent.parent

SWEEPS = ("tests/test_all_or_nothing.py", "-k", "build or new")
RUNNER = ("tests/test_runner.py",)
RIGHTS = ("tests/operations/test_rights.py",)
LINE = ("tests/test_line.py",)
ACCESS = ("tests/test_access.py", "tests/test_tokens.py")


@attrs.frozen
class Mutant:
    name: str
    file: str
    passage: str
    instead: str
    tests: tuple[str, ...] = SWEEPS


RUN = "runner/__init__.py"

MUTANTS = (
    Mutant(
        "the door is closed after the commit write",
        RUN,
        """            self._door(live, open=False)
            try:
                await self.write(live, Event.COMMITTED, result=result, journal=tuple(finish))
            except BaseException:
                self._door(live, open=True)
                raise
""",
        """            pass
        done = attrs.evolve(live.task, state=State.COMMITTED, journal=tuple(finish), result=result)
        await self.store.write(done, expect=live.stored)
        async with live.lock:
            live.stored = State.COMMITTED
            await self.write(live, Event.COMMITTED, result=result, journal=tuple(finish))
""",
    ),
    Mutant(
        "the undo is journaled after the act",
        "../tests/cases.py",
        """    await handle.journal("rmdir", path=aside)
    os.mkdir(aside)
""",
        """    os.mkdir(aside)
    await handle.journal("rmdir", path=aside)
""",
    ),
    Mutant(
        "the undo runs first to last",
        RUN,
        """            reason = await do(live, journal[-1], self.operations.get(live.task.operation))
            if reason is not None:
                return journal, residue_of(journal, reason)
            journal = journal[:-1]
""",
        """            reason = await do(live, journal[0], self.operations.get(live.task.operation))
            if reason is not None:
                return journal, residue_of(journal, reason)
            journal = journal[1:]
""",
    ),
    Mutant(
        "an undo is not idempotent",
        "../tests/cases.py",
        "    Path(path).unlink(missing_ok=True)\n",
        "    Path(path).unlink()\n",
    ),
    Mutant(
        "the journal is emptied apart from the state",
        RUN,
        """                await self.write(live, Event.COMMITTED, result=result, journal=tuple(finish))
            except""",
        """                await self.write(live, Event.COMMITTED, result=result)
                await self.write(live, journal=tuple(finish))
            except""",
    ),
    Mutant(
        "a cancel is accepted after the commit",
        RUN,
        "            if not live.task.state.cancellable:\n                return Answer.TOO_LATE\n",
        "",
    ),
    Mutant(
        "a finish is not idempotent",
        "../tests/cases.py",
        "    if os.path.isdir(aside):\n        os.rename",
        "    if True:\n        os.rename",
    ),
    Mutant(
        "an operation swallows Cancelled, and nobody looks whether a cancel was accepted",
        RUN,
        "            if live.cancel_asked:\n                raise CancelAsked(live.task.id)\n",
        "",
        RUNNER,
    ),
    Mutant(
        "there is no last look before the commit",
        RUN,
        """        async with live.lock:
            if live.cancel_asked:
                raise CancelAsked(live.task.id)
            if live.task.state is not State.RUNNING:
                raise IllegalMove(live.task.state.value, Event.COMMITTED.value)
            self._door(live, open=False)
""",
        """        with trio.CancelScope(shield=True):
            await live.lock.acquire()
        live.lock.release()
        with trio.CancelScope(shield=True):
          async with live.lock:
            self._door(live, open=False)
""",
    ),
    Mutant(
        "durable writes are not shielded",
        RUN,
        "        with trio.CancelScope(shield=True):\n            try:\n                await self.store.write",
        "        with trio.CancelScope():\n            try:\n                await self.store.write",
        RUNNER,
    ),
    Mutant(
        "an accepted cancel is not durable",
        RUN,
        "                await self.write(live, cancel_requested=True)\n",
        "                live.task = attrs.evolve(live.task, cancel_requested=True)\n",
        RUNNER,
    ),
    Mutant(
        "what was undone is not taken off the journal",
        RUN,
        "            await self.write(live, Event.CANCELLED, journal=(), error=None, cancel_requested=True)\n",
        "            await self.write(live, Event.CANCELLED, error=None, cancel_requested=True)\n",
    ),
    Mutant(
        "a terminal state is told before the undo",
        RUN,
        "            await self.change(live, Event.STOPPED, error=failure, best_effort=True)\n",
        """            end = Event.CANCELLED if live.cancel_asked else Event.FAILED
            await self.change(live, Event.STOPPED, end, error=failure, best_effort=True)
            await self._undo(live)
""",
    ),
    Mutant(
        "an interrupted task is not run again",
        RUN,
        "operation.restartable and task.attempt < ATTEMPTS",
        "False",
    ),
    Mutant(
        "an interrupted task is run again without an undo",
        RUN,
        "        journal, residue = await self._undo(live)\n        await self.decided(",
        "        journal, residue = (), ()\n        await self.decided(",
    ),
    Mutant(
        "new work does not wait for the recovery",
        RUN,
        "                await self.recovered.wait()\n",
        "",
        RUNNER,
    ),
    Mutant(
        "two tasks work on one target",
        "operations/copy.py",
        "    targets=targets,\n",
        "",
        ("tests/test_races.py", "-k", "onto_one_file or waits"),
    ),
    Mutant(
        "a target is let go of before its undo",
        RUN,
        "        if live.task.state is State.QUEUED and failure is None:\n",
        "        self.release(live.task.id)\n        if live.task.state is State.QUEUED and failure is None:\n",
        ("tests/test_races.py", "-k", "let_go_of"),
    ),
    Mutant(
        "a part file is taken for ours by its name alone",
        "operations/image/owned.py",
        "            if mark.same(mark_of(fd)) if mark is not None else _fresh(os.fstat(fd)):\n",
        "            if True:\n",
        ("tests/operations/test_owned.py",),
    ),
    Mutant(
        "an undo that fails is passed over",
        RUN,
        "            if reason is not None:\n                return journal, residue_of(journal, reason)\n",
        "",
        RUNNER,
    ),
    Mutant(
        "an owner says how the work of somebody else ends",
        "access.py",
        "_REPORT: Final = Rule(owner=ADMINS)\n",
        "_REPORT: Final = Rule()\n",
        ACCESS,
    ),
    Mutant(
        "who sees a task may do anything to it",
        "access.py",
        "    if not may(caller, verb, task):\n",
        "    if False:\n",
        ACCESS,
    ),
    Mutant(
        "a proxy is somebody without a token",
        "access.py",
        "    if among(proxies):\n        return Caller(uid, gid, pid, user, NOBODY, groups, proxy=True)\n",
        "",
        ACCESS,
    ),
    Mutant(
        "a token counts from anybody",
        "service/tokens.py",
        "        if not peer.proxy:\n            if bearer is not None:\n",
        "        if not peer.proxy and bearer is None:\n            if False:\n",
        ACCESS,
    ),
    Mutant(
        "a secret of another token will do",
        "service/tokens.py",
        "        if same and token is not None and _lasts(token):\n",
        "        if token is not None and _lasts(token):\n",
        ACCESS,
    ),
    Mutant(
        "what goes on under a token outlives it",
        "service/tokens.py",
        "        for scope in self._under.pop(id, ()):\n            scope.cancel()\n",
        "",
        ACCESS,
    ),
    Mutant(
        "a thread does not take on the rights of the task",
        "runner/rights.py",
        "    if rights is None or rights.uid == os.geteuid() != 0:\n",
        "    if True:\n",
        RIGHTS,
    ),
    Mutant(
        "a thread that works for a user keeps the capabilities of root",
        "runner/credentials.py",
        "    _set_capabilities(new.capabilities)\n",
        "    new = attrs.evolve(new, capabilities=worn().capabilities)\n",
        RIGHTS,
    ),
    Mutant(
        "an undo has the rights of the daemon",
        "runner/journal.py",
        "acting(live.task.rights)",
        "acting(None)",
        ("tests/operations/test_deputy.py", "-k", "away and user and over and folder"),
    ),
    Mutant(
        "a user gets through the kernel's own links",
        "operations/image/paths.py",
        "flags | os.O_PATH, kernel.NO_MAGICLINKS)",
        "flags | os.O_PATH, 0)",
        RIGHTS,
    ),
    Mutant(
        "beneath a root symlinks are followed",
        "operations/image/paths.py",
        "kernel.BENEATH | kernel.NO_SYMLINKS | kernel.NO_MAGICLINKS",
        "kernel.BENEATH | kernel.NO_MAGICLINKS",
        ("tests/operations/test_roots.py",),
    ),
    Mutant(
        "a part is made in a folder that was exchanged",
        "operations/image/owned.py",
        "    if not home.same(mark_of(folder)):\n        raise Unproven(os.path.dirname",
        "    if False:\n        raise Unproven(os.path.dirname",
        ("tests/operations/test_deputy.py", "-k", "any_step and another"),
    ),
    Mutant(
        "owners do not take turns",
        "runner/line.py",
        "                if not ready or turn is not None:\n",
        "                if not ready:\n",
        LINE,
    ),
    Mutant(
        "a target is not looked at again when the task has its turn",
        "runner/line.py",
        "                if await look() == turn.keys:\n",
        "                if True:\n",
        LINE,
    ),
    Mutant(
        "of one owner's tasks on a target not the first goes first",
        "runner/line.py",
        "            if place > 0:\n",
        "            if False:\n",
        LINE,
    ),
)


def killed(mutant: Mutant) -> bool:
    """Some test fails on it."""
    with tempfile.TemporaryDirectory(prefix="taskd-mutant-") as folder:
        for name in ("taskd", "tests"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "setup.cfg", "README.rst"):
            shutil.copy(ROOT / name, folder)
        path = Path(folder, "taskd", mutant.file).resolve()
        text = path.read_text()
        if mutant.passage not in text:
            sys.exit(f"{mutant.name}: the passage is no longer in {mutant.file}")
        path.write_text(text.replace(mutant.passage, mutant.instead, 1))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests]
        environment = os.environ | {"PYTHONPATH": folder}
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, timeout=300, check=False
            )
        except subprocess.TimeoutExpired:
            return True  # it hangs where the right program ends
        return done.returncode == 1


def main(names: list[str]) -> int:
    survivors = 0
    for mutant in MUTANTS:
        if names and not any(name in mutant.name for name in names):
            continue
        verdict = "killed" if killed(mutant) else "SURVIVED"
        survivors += verdict != "killed"
        print(f"{verdict:9} {mutant.name}", flush=True)
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
