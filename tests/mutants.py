"""Break the law on purpose, one place at a time, and see a test fail: ``python -m tests.mutants [NAME…]``.

Each row of ``MUTANTS`` is a breakage: a file of the package, a passage of it, and what stands there instead. It is
made in a copy of the package, and the tests that hold that law are run against the copy, up to the first that
fails: it is the one in the table, with the seconds that it took. It must pass where nothing is broken, on the same
machine at the same time. A mutant that survives is a law that no test holds; a passage that is no longer there is
an error. Exit status 0: all were killed.

An fsync that is left out is not noticed here, but where the power is cut; but for that of the database, all of
whose promises stand on it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from tests.breakage import copied, run

# Seconds that the tests may take; a mutant that hangs where the right program ends is killed too.
LONGEST: Final = 600

# In pytest's summary.
KILLER: Final = re.compile(r"^(?:FAILED|ERROR) (\S+(?: \S+)*?)(?: - .*)?$", re.MULTILINE)

SWEEPS = ("tests/test_all_or_nothing.py", "-k", "build or new")
RUNNER = ("tests/test_runner.py",)
RIGHTS = ("tests/operations/test_rights.py",)
OWNED = ("tests/operations/test_owned.py",)
ACLS = ("tests/operations/test_copy_acl.py",)
LINE = ("tests/test_line.py",)
ACCESS = ("tests/test_access.py", "tests/test_tokens.py")
RACES = ("tests/test_races.py",)
WATCHING = ("tests/test_watching.py",)
REGISTRY = ("tests/test_registry.py",)
CONTRACT = ("tests/store/test_contract.py",)
SQLITE = ("tests/store/test_sqlite.py",)
MODEL = ("tests/test_model.py",)
HISTORIES = ("tests/test_histories.py",)
FULL = ("tests/server/test_faults.py", "-k", "started_on_a_full_disk or spare")
KILLS = ("tests/operations/test_command.py", "-k", "test_kill")
PUT_BACK = ("tests/proof/test_syscalls.py", "-k", "put_back")


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
                await self.write(live, Event.COMMITTED, *more, result=result, journal=tuple(finish), **done)
            except BaseException:
                self._door(live, open=True)
                raise
""",
        """            pass
        new = attrs.evolve(live.task, state=State.COMMITTED, journal=tuple(finish), result=result)
        await self.store.write(new, expect=live.stored)
        async with live.lock:
            live.stored = State.COMMITTED
            await self.write(live, Event.COMMITTED, *more, result=result, journal=tuple(finish), **done)
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
        """await self.write(live, Event.COMMITTED, *more, result=result, journal=tuple(finish), **done)
            except""",
        """await self.write(live, Event.COMMITTED, result=result)
                await self.write(live, journal=tuple(finish))
            except""",
        ("tests/test_all_or_nothing.py", "-k", "crashed_at and build"),
    ),
    Mutant(
        "what an operation commits is completed before its finish",
        RUN,
        "finish: Iterable[Undo] = (), stopped: bool = False",
        "finish: Iterable[Undo] = (), stopped: bool = True",
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
        "of a disk that does not answer at a start nothing is held",
        "runner/recovery.py",
        "            runner.line.hold(live.task, frozenset(live.task.targets))\n",
        "            pass\n",
        (*LINE, "-k", "hangs_at_a_start"),
    ),
    Mutant(
        "what a name no longer leads to at a start is not held",
        "runner/recovery.py",
        "            keys |= await",
        "            keys = await",
        (*LINE, "-k", "stays_its_own"),
    ),
    Mutant(
        "what two tasks owe something is let go of with the first",
        "runner/claims.py",
        "        for key in keys:\n",
        "        for key in keys - self._holders.keys():\n",
        (*LINE, "-k", "when_one_owes"),
    ),
    Mutant(
        "a partition that was moved is the same device",
        "operations/image/device.py",
        '    keys = ("boot", "diskseq", "rdev", "setup")\n',
        '    keys = ("boot", "diskseq", "rdev")\n',
        ("tests/operations/test_copy_device.py", "-k", "another_device or was_connected"),
    ),
    Mutant(
        "a zram device that was set up anew is the same device",
        "operations/image/device.py",
        "None if _read(disk, _ZRAM) else ",
        "",
        ("tests/operations/test_copy_device.py", "-k", "recognisable"),
    ),
    Mutant(
        "a disk that comes back under another number is another target",
        "operations/image/device.py",
        "        if names:  # it may come back",
        "        if False:  # it may come back",
        ("tests/operations/test_copy_device.py", "-k", "know_again"),
    ),
    Mutant(
        "an undo that hangs keeps everybody's new work waiting after a start",
        "runner/recovery.py",
        "        if not has_target(runner, live):\n",
        "        if live:\n",
        (*LINE, "-k", "hangs_at_a_start"),
    ),
    Mutant(
        "two tasks work on one target",
        "operations/copy.py",
        "    targets=targets,\n",
        "",
        ("tests/test_races.py", "-k", "onto_one_file or waits"),
    ),
    Mutant(
        "a loop device and the file that it shows are two targets",
        "operations/image/device.py",
        '        if os.path.exists(f"{disk}/loop"):\n',
        "        if False:\n",
        ("tests/operations/test_copy_device.py", "-k", "loop_device_and"),
    ),
    Mutant(
        "a copy gives the group what the source's access list gives others",
        "operations/image/acl.py",
        "            mode &= ~0o070 | permissions << 3\n",
        "            pass\n",
        ACLS,
    ),
    Mutant(
        "an access list is lost where blocks are copied into its file",
        "operations/image/owned.py",
        "            acl.carry(like.fd, owned.fd)\n",
        "            pass\n",
        ACLS,
    ),
    Mutant(
        "a target is let go of before its undo",
        RUN,
        "        if live.task.state is State.QUEUED and failure is None:\n",
        "        self.release(live.task.id)\n        if live.task.state is State.QUEUED and failure is None:\n",
        ("tests/test_races.py", "-k", "let_go_of"),
    ),
    Mutant(
        "destroyed by force, a task lets go of its target in the middle of a try",
        "service/destroying.py",
        "        live.forget()\n",
        "        live.forget()\n    service.runner.release(task.id)\n",
        ("tests/test_races.py", "-k", "given_up"),
    ),
    Mutant(
        "destroyed by force, a task tries its finish again",
        "runner/journal.py",
        "            if live.forgotten:",
        "            if False:",
        ("tests/test_races.py", "-k", "given_up"),
    ),
    Mutant(
        "a target that comes late is nobody's",
        "operations/copy.py",
        '{f"path {os.path.normpath(params.target)}"}',
        "set()",
        ("tests/operations/test_copy.py", "-k", "before_its_filesystem"),
    ),
    Mutant(
        "a part file is taken for ours by its name alone",
        "operations/image/owned.py",
        "            if mark.same(found) if mark is not None else _fresh(os.fstat(fd)):\n",
        "            if True:\n",
        OWNED,
    ),
    Mutant(
        "what another disk has at the place of a task's folder is taken for it",
        "operations/image/owned.py",
        "        return told and self.fs != other.fs\n",
        "        return False\n",
        (*OWNED, "-k", "another_disk"),
    ),
    Mutant(
        "what is mounted next of FUSE is taken for what the task wrote to",
        "operations/image/kernel.py",
        "        name += f\":{os.stat(f'/sys/fs/fuse/connections/{major << 20 | minor}').st_ctime_ns}\"\n",
        "        pass\n",
        (*OWNED, "-k", "of_fuse"),
    ),
    Mutant(
        "an inode's number on overlayfs proves the file after a reboot, too",
        "operations/image/owned.py",
        "kernel.mount_name(fd) if handle is None else kernel",
        "kernel",
        (*OWNED, "-k", "overlayfs"),
    ),
    Mutant(
        "tmpfs is taken for the overlayfs that had its number before",
        "operations/image/owned.py",
        " or (self.handle is None) != (other.handle is None)\n",
        "\n",
        (*OWNED, "-k", "without_handles"),
    ),
    Mutant(
        "a target that has another number by now is taken for a stranger's",
        "operations/image/owned.py",
        "_doubtful(mark, found, at, part or name)",
        "_doubtful(mark, found, at, name) and part is None",
        (*OWNED, "-k", "without_handles or another_number"),
    ),
    Mutant(
        "a stranger's file at the target's name is owed though the part has its own",
        "operations/image/owned.py",
        "_doubtful(mark, found, at, part or name)",
        "_doubtful(mark, found, at, name)",
        (*OWNED, "-k", "without_handles"),
    ),
    Mutant(
        "a pre-image is gone before it is put back",
        "operations/image/preimage.py",
        "        await Passes().run(transfer)\n        await in_thread(image.sync)\n",
        "        os.unlink(preimage)\n        await Passes().run(transfer)\n        await in_thread(image.sync)\n",
        PUT_BACK,
    ),
    Mutant(
        "a user's pre-image takes the room that was there when it was begun",
        "operations/image/preimage.py",
        "        _require_room(image.fd, len(data))",
        "        pass",
        (*RIGHTS, "-k", "tenth"),
    ),
    Mutant(
        "an undo believes the page cache",
        "operations/image/preimage.py",
        "        os.posix_fadvise(image.fd, 0, 0, os.POSIX_FADV_DONTNEED)\n",
        "",
        ("tests/operations/test_copy_device.py", "-k", "is_cached"),
    ),
    Mutant(
        "a pre-image that is gone is taken for one that was put back",
        "operations/image/preimage.py",
        "        if saved is None and found.text() != digest:\n",
        "        if False:\n",
        ("tests/operations/test_copy_device.py", "-k", "is_gone"),
    ),
    Mutant(
        "what an undo is about to do is taken off the journal",
        RUN,
        "            reason = await do(live, journal[-1], self.operations.get(live.task.operation))\n",
        "            await self.change(live, journal=journal[:-1], best_effort=True)\n"
        "            reason = await do(live, journal[-1], self.operations.get(live.task.operation))\n",
        PUT_BACK,
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
    Mutant(
        "after a restart one owner's tasks go in the order in which they are undone",
        "runner/line.py",
        "        while before is not None and before.number > turn.number:\n",
        "        while False and before is not None:\n",
        LINE,
    ),
    Mutant(
        "an operation's act does not wait for its undo to be durable",
        "runner/handle.py",
        "            await self._runner.write(live, journal=(*live.task.journal, Undo(verb, args)))\n",
        "            undo = (*live.task.journal, Undo(verb, args))\n"
        "            await self._runner.write(live, best_effort=True, journal=undo)\n",
        RUNNER,
    ),
    Mutant(
        "a part file is made before its undo is journaled",
        "operations/image/owned.py",
        """            await handle.journal(verb, path=path, home=home.json())
            owned = await hop(_create, path, home, files, verb)
""",
        "            owned = await hop(_create, path, home, files, verb)\n",
    ),
    Mutant(
        "a finish is tried once",
        RUN,
        """                with trio.move_on_after(0 if live.forgotten else pause):
                    await live.woken()
                pause = min(2 * pause, LONG)
""",
        "                break\n",
        RUNNER,
    ),
    Mutant(
        "what is committed is completed without its finish",
        RUN,
        "        for step in live.task.journal:\n            while",
        "        for step in ():\n            while",
    ),
    Mutant(
        "a cancel that is too late is said to be accepted",
        RUN,
        "                return Answer.TOO_LATE\n",
        "                return Answer.ACCEPTED\n",
    ),
    Mutant(
        "attempts are not counted",
        RUN,
        '"attempt": live.task.attempt + 1',
        '"attempt": max(1, live.task.attempt)',
        RUNNER,
    ),
    Mutant(
        "a cancel that was accepted before a crash is forgotten after it",
        "registry/live.py",
        "        self.cancel_asked = self.task.cancel_requested\n",
        "        self.cancel_asked = False\n",
        MODEL,
    ),
    Mutant(
        "an end is said twice",
        "service/__init__.py",
        "            if live.task.state.ended:  # the first end stays;",
        "            if False:  # the first end stays;",
        RACES,
    ),
    Mutant(
        "what a crash left running is not killed before it is undone",
        "runner/recovery.py",
        "        if operation is not None and step.verb in operation.urgent:\n",
        "        if False and operation is not None:\n",
        RUNNER,
    ),
    Mutant(
        "of a session only the leader is killed",
        "operations/session.py",
        "        return os.getsid(pid) == session.pid\n",
        "        return pid == session.pid\n",
        ("tests/operations/test_command.py", "-k", "killed or dead"),
    ),
    Mutant(
        "what is left of a session and tells nothing of itself is called gone",
        "operations/session.py",
        "    return False if groups or marks else None\n",
        "    return False\n",
        KILLS,
    ),
    Mutant(
        "a session is not known by its autogroup",
        "operations/session.py",
        "    if session.autogroup in groups:\n        return True\n",
        "",
        KILLS,
    ),
    Mutant(
        "what is queued again after a crash keeps its target while it waits",
        RUN,
        "            self.line.let_go(task.id)  # its next turn claims anew\n",
        "",
        LINE,
    ),
    Mutant(
        "who recovers what is to be destroyed keeps it by hanging up",
        "runner/ending.py",
        '            nursery.start_soon(_destroy, runner, live, destroyed, name=f"task {task.id}")\n'
        "            await destroyed.wait()\n",
        "            await _destroy(runner, live, destroyed)\n",
        RACES,
    ),
    Mutant(
        "what a task works on is known to its operation alone",
        RUN,
        "targets=tuple(sorted(turn.keys))",
        "targets=()",
        LINE,
    ),
    Mutant(
        "destroyed on its end, a task forgets what it owes",
        "runner/ending.py",
        "    if task.destroy_on_finish and not task.journal:\n",
        "    if task.destroy_on_finish:\n",
        MODEL,
    ),
    Mutant(
        "revisions begin anew with each start",
        "registry/__init__.py",
        "        self._next = await reserve(BLOCK)\n",
        "        self._next = 1 + 0 * await reserve(BLOCK)\n",
        RUNNER,
    ),
    Mutant(
        "a change is stored with a revision that was not set aside",
        "registry/__init__.py",
        "        if not self._left(best_effort=best_effort):\n",
        "        if False:\n",
        REGISTRY,
    ),
    Mutant(
        "a change is shown with a revision that was not set aside",
        "registry/__init__.py",
        " and self._tickets[0].revision < self._ceiling:\n",
        ":\n",
        REGISTRY,
    ),
    Mutant(
        "calls leave no revision to an undo",
        "registry/__init__.py",
        "(0 if best_effort else BLOCK // 4)",
        "0",
        REGISTRY,
    ),
    Mutant(
        "revisions that were set aside are given again",
        "store/rows.py",
        """{"next_revision": first + count, "revision_seal": seal(first + count)}""",
        """{"next_revision": first, "revision_seal": seal(first)}""",
        CONTRACT,
    ),
    Mutant(
        "lines of a program that are not kept have no numbers",
        "runner/log.py",
        "enumerate(kept, live.log_end - len(kept))",
        "enumerate(kept, live.log_end - len(cut))",
        ("tests/operations/test_command.py", "-k", "numbered"),
    ),
    Mutant(
        "what a program says keeps the others waiting",
        "operations/program.py",
        "        await trio.lowlevel.checkpoint()\n",
        "",
        ("tests/operations/test_command.py", "-k", "others_have_their_turn"),
    ),
    Mutant(
        "the numbers of a log begin anew with each start",
        "runner/log.py",
        "    end = await store.log_end(task.id)\n",
        "    end = 0 * await store.log_end(task.id)\n",
        MODEL,
    ),
    Mutant(
        "a repeated request is looked at like a new one",
        "service/__init__.py",
        "(made := await self.store.requested(owner, request_id)) is not None",
        "(made := None) is not None",
        MODEL,
    ),
    Mutant(
        "two that make the same request at once make two tasks",
        "store/rows.py",
        "        if existing is not None:\n            return existing\n",
        "        task = attrs.evolve(task, request_id=task.id if existing else task.request_id)\n",
        CONTRACT,
    ),
    Mutant(
        "a request_id counts for every caller",
        "service/__init__.py",
        '            request_id = f"{caller.user}\\0{request_id}"\n',
        '            request_id = f"{owner}\\0{request_id}"\n',
        MODEL,
    ),
    Mutant(
        "what owes an undo may be destroyed",
        "service/__init__.py",
        "        if task.state.ended and task.journal:\n",
        "        if False and task.journal:\n",
        RACES,
    ),
    Mutant(
        "a destroyed task is told to be gone before it is",
        "service/destroying.py",
        """            await service.store.delete(task.id)
            service.runner.release(task.id)
        finally:
            service.registry.remove(live)
        service.registry.forget([task])
""",
        """            service.registry.forget([task])
            await service.store.delete(task.id)
            service.runner.release(task.id)
        finally:
            service.registry.remove(live)
""",
        ("tests/test_refused.py",),
    ),
    Mutant(
        "nobody asks the gate",
        "service/gate.py",
        "            task = access.check(caller, verb, await self.newest(id), id)\n",
        "            task = access.check(caller, verb, await self.newest(id), id) if verb == 'get' else"
        " await self.newest(id)\n",
        ACCESS,
    ),
    Mutant(
        "whoever may not see a task hears that it is there",
        "access.py",
        '    if task is None or not may(caller, "get", task):\n',
        "    if task is None:\n",
        ACCESS,
    ),
    Mutant(
        "what owes an undo does not count among the tasks of its owner",
        "registry/quota.py",
        "        taken = self._taken[owner] + len(self._owing.get(owner, ()))\n",
        "        taken = self._taken[owner]\n",
        RUNNER,
    ),
    Mutant(
        "a task that holds much takes one unit",
        "registry/quota.py",
        "    return 1 + heft(held) // UNIT\n",
        "    return 1\n",
        REGISTRY,
    ),
    Mutant(
        "a watch misses what happens while it tells what there is",
        "service/watching.py",
        "        self.revision = start\n        yield Notice(Kind.SYNCED, start)\n",
        "        self.revision = start = self.service.registry.feed.revision\n"
        "        yield Notice(Kind.SYNCED, start)\n",
        WATCHING,
    ),
    Mutant(
        "a revision that is too old is taken for one that is known",
        "registry/feed.py",
        "        return self.horizon <= revision <= self.revision\n",
        "        return True\n",
        WATCHING,
    ),
    Mutant(
        "a watch that lags skips lines of a log",
        "service/watching.py",
        "            self._told[id] = lines[-1].n + 1\n",
        "            self._told[id] = lines[-1].n + 2\n",
        ("tests/test_watching_logs.py", *WATCHING),
    ),
    Mutant(
        "progress goes back",
        "service/report.py",
        "        done=max(done, old.done),\n",
        "        done=done,\n",
        RACES,
    ),
    Mutant(
        "all is done before the task is completed",
        "runner/handle.py",
        "max(min(fraction, ALMOST), old.fraction)",
        "max(fraction, old.fraction)",
        RUNNER,
    ),
    Mutant(
        "one user's calls have all the places in a queue",
        "service/turns.py",
        "self._locks.setdefault((caller.user, what), trio.Lock())",
        'self._locks.setdefault(("", what), trio.Lock())',
        ("tests/test_turns.py",),
    ),
    Mutant(
        "long messages are all read when they end",
        "connection/__init__.py",
        "        if long:\n",
        "        if False:\n",
        ("tests/server/test_hostile.py", "-k", "long_messages"),
    ),
    Mutant(
        "long XML needs a thread",
        "service/turns.py",
        "            except RuntimeError:",
        "            except KeyError:",
        ("tests/server/test_threads.py", "-k", "long_xml"),
    ),
    Mutant(
        "the tables that one user asks for are made together",
        "dialects/xenapi/message.py",
        'return self.service.turns.of(self.caller, "event")',
        "return trio.Lock()",
        ("tests/dialects/test_xenapi_hostile.py", "-k", "looks_at_all"),
    ),
    Mutant(
        "a batch is worked off for whoever has gone",
        "connection/__init__.py",
        "watched = rpc.is_batch_of_calls(message)",
        "watched = False",
        ("tests/server/test_hostile.py", "-k", "whose_peer"),
    ),
    Mutant(
        "what one user does not read may come to any length",
        "service/unread.py",
        "if self._held[user] and self._held[user] + size > self.most:",
        "if False:",
        ("tests/server/test_hostile.py", "-k", "who_read_nothing"),
    ),
    Mutant(
        "what is sent does not count as unread",
        "connection/outgoing.py",
        "len(data) - self._held)",
        "0)",
        ("tests/server/test_hostile.py", "-k", "who_read_nothing and a_table]"),
    ),
    Mutant(
        "what a batch waits with does not count as unread",
        "rpc/__init__.py",
        "                    holding.enter_context(held(size - counted))\n",
        "",
        ("tests/server/test_hostile.py", "-k", "who_read_nothing and a_wait"),
    ),
    Mutant(
        "waits that a client gives up are as long as the task",
        "client/verbs.py",
        "min(PART, self.until - now, deadline - now)",
        "min(self.until - now, deadline - now)",
        ("tests/test_client.py", "-k", "hundred"),
    ),
    Mutant(
        "a client gives up as many waits as it likes",
        "client/conversation.py",
        "len(self._sizes.keys() - self._replies.keys()) < GIVEN_UP",
        "True",
        ("tests/test_client_conversation.py",),
    ),
    Mutant(
        "a notification of V1 is taken for a call",
        "rpc/__init__.py",
        'member.get("id") is not None',
        '"id" in member',
        ("tests/server/test_hostile.py", "-k", "wants_no_answer"),
    ),
    Mutant(
        "a page whose DNS leads to a forwarder of the socket reads tasks",
        "web.py",
        "    if asks and _of_dns(",
        "    if False and _of_dns(",
        ("tests/server/test_http.py", "-k", "page_whose_dns"),
    ),
    Mutant(
        "a task that is only being made is in a list",
        "service/gate.py",
        "        return known if known.revision else None\n",
        "        return known\n",
        ("tests/test_refused.py",),
    ),
    Mutant(
        "who waits for a change is answered without one",
        "service/__init__.py",
        "live.task.revision <= (after_revision or 0)",
        "live.task.revision < (after_revision or 0)",
        HISTORIES,
    ),
    Mutant(
        "a write is answered before it is on the disk",
        "store/writer.py",
        """            connection.execute("BEGIN IMMEDIATE")
            for write in group:
                _attempt(connection, write)
            in_doubt = True
            connection.execute("COMMIT")
""",
        """            if not connection.in_transaction:
                connection.execute("BEGIN IMMEDIATE")
            for write in group:
                _attempt(connection, write)
            if self.commits % 2:
                connection.execute("COMMIT")
""",
        SQLITE,
    ),
    Mutant(
        "the database does not sync what it commits",
        "store/schema.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = NORMAL",
        SQLITE,
    ),
    Mutant(
        "a commit that was refused stays in the log of the database",
        "store/writer.py",
        "            if in_doubt:\n",
        "            if False and in_doubt:\n",
        SQLITE,
    ),
    Mutant(
        "half of a write that was refused is kept",
        "store/writer.py",
        '        connection.execute("ROLLBACK TO one")\n',
        "",
        SQLITE,
    ),
    Mutant(
        "a terminal state is written over another",
        "store/rows.py",
        '        WHERE id = ? AND state = ?"""',
        '        WHERE id = ? AND ? != \'\'"""',
        CONTRACT,
    ),
    Mutant(
        "the number of a destroyed task is given again",
        "store/rows.py",
        "SELECT seq FROM sqlite_sequence WHERE name = 'task'",
        "SELECT max(seq) FROM task HAVING count(*)",
        CONTRACT,
    ),
    Mutant(
        "what owes an undo is forgotten by age",
        "store/rows.py",
        "FROM task WHERE open = 0 AND owner = ? AND (finished_at, seq) < (?, ?)",
        "FROM task WHERE finished_at > 0 AND owner = ? AND (finished_at, seq) < (?, ?)",
        CONTRACT,
    ),
    Mutant(
        "a start on a full disk has no room of its own",
        "store/spare.py",
        "            lacking = size > 0 and _free(fd) < ENOUGH\n",
        "            lacking = False\n",
        FULL,
    ),
    Mutant(
        "whether the store can write is told without a write",
        "service/health.py",
        "self.store.reserve(1)",
        "self.store.reserve(0)",
        FULL,
    ),
    Mutant(
        "a file that no start would find is written to as if it were there",
        "store/sqlite.py",
        "            if not self._in_place():\n",
        "            if not self._path.name:\n",
        SQLITE,
    ),
    Mutant(
        "the room of a start is taken by whoever asks whether the store can write",
        "store/sqlite.py",
        "                if self.commits or not await",
        "                if not await",
        FULL,
    ),
    Mutant(
        "the room that a start took is not set aside again",
        "store/writer.py",
        "                if not (self._failing or self._spared):\n",
        "                if self.commits == 1 and not self._failing:\n",
        FULL,
    ),
    Mutant(
        "two daemons have one state folder",
        "server.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        ("tests/server/test_start.py",),
    ),
    Mutant(
        "one user keeps everybody out, root too",
        "listener.py",
        "        if uid not in (0, os.geteuid()):\n",
        "        if uid < 0:\n",
        ("tests/server/test_identity.py",),
    ),
    Mutant(
        "a connection that is not heard any more rests on",
        "connection/rest.py",
        "            self._leave(fd)\n            return trio.lowlevel.Abort.SUCCEEDED\n",
        "            return trio.lowlevel.Abort.SUCCEEDED\n",
        ("tests/server/test_rest.py",),
    ),
    Mutant(
        "the pages of a batch are made together",
        "rpc/__init__.py",
        "async with turn if any(map(pages, methods_in(member))) else nullcontext():",
        "async with nullcontext():",
        ("tests/server/test_hostile.py", "-k", "pages_of_a_batch"),
    ),
    Mutant(
        "what waits on a connection may come to any length",
        "connection/room.py",
        " or self._held + size > self.size",
        "",
        ("tests/server/test_hostile.py", "-k", "long_calls"),
    ),
    Mutant(
        "a list tells of a task what was read before its end",
        "service/gate.py",
        "    return await service.newest(read.id) if read.open else read\n",
        "    return read\n",
        RACES,
    ),
    Mutant(
        "a list tells of a failed task what was read before it was recovered",
        "service/gate.py",
        "if read.open else read\n",
        "if not read.state.ended else read\n",
        RACES,
    ),
    Mutant(
        "however heavy, what ended last is at hand",
        "registry/__init__.py",
        "        if self.feed.weight(live.task) <= LIGHT:\n",
        "        if True:\n",
        REGISTRY,
    ),
    Mutant(
        "what is destroyed stays at hand until it is shown",
        "registry/__init__.py",
        "            self._ended.pop(task.id, None)\n            ticket = self._place(None)\n",
        "            ticket = self._place(None)\n",
        REGISTRY,
    ),
    Mutant(
        "what retention takes as soon as it owes nothing is answered",
        "registry/__init__.py",
        "                self.remove(live)\n            self.quota.settled(task)\n",
        "                pass\n            self.quota.settled(task)\n",
        RACES,
    ),
    Mutant(
        "a watch weighs what the feed has weighed",
        "registry/feed.py",
        "        return known.weight if known is not None and same(known.task, task) else weigh(task)\n",
        "        return weigh(task)\n",
        ("tests/test_watching_memory.py",),
    ),
    Mutant(
        "who left few ended tasks loses them for one who left many",
        "store/__init__.py",
        "min(count, -(-keep // (len(held) - n)))",
        "min(count, keep)",
        ("tests/store/test_contract.py", "-k", "prune or share"),
    ),
    Mutant(
        "however much they weigh, tasks are forgotten in one write",
        "store/rows.py",
        "lines > PRUNED_LINES or size > PRUNED_BYTES",
        "lines > PRUNED_LINES",
        ("tests/store/test_sqlite.py", "-k", "prune"),
    ),
    Mutant(
        "a list that was read before a change is kept after it",
        "store/listed.py",
        "if self._under_way or changes != self.changes:",
        "if self._under_way:",
        ("tests/store/test_sqlite.py", "-k", "at_hand"),
    ),
    Mutant(
        "a list that was read before a change is kept while it is under way",
        "store/listed.py",
        "if self._under_way or changes != self.changes:",
        "if changes != self.changes:",
        ("tests/store/test_sqlite.py", "-k", "at_hand"),
    ),
    Mutant(
        "a request with a Transfer-Encoding is cut by its length alone",
        "wire/http.py",
        '"host", "transfer-encoding", "upgrade"',
        '"host", "upgrade"',
        ("tests/wire/test_http_plain.py",),
    ),
)


@attrs.frozen
class Verdict:
    """What became of a mutant: the test that killed it, None where it survived; and the seconds that this took."""

    killer: str | None
    seconds: float


def tried(mutant: Mutant) -> Verdict:
    """Make the breakage in a copy, and run the tests against that; then whatever failed, without the breakage.

    Raises:
        LookupError: the passage is no longer there, or the tests cannot be run, or the right program fails as
            well, as on a machine that is too busy or lacks something.
    """
    began = time.monotonic()
    with copied() as folder:
        path = Path(folder, "taskd", mutant.file).resolve()
        text = path.read_text()
        if mutant.passage not in text:
            raise LookupError(f"the passage is no longer in {mutant.file}")
        path.write_text(text.replace(mutant.passage, mutant.instead, 1))
        killer = _failing(folder, mutant.tests)
        path.write_text(text)
        if killer is not None and _failing(folder, (killer,) if "::" in killer else mutant.tests) is not None:
            raise LookupError(f"the right program fails as well: {killer}")
    return Verdict(killer, time.monotonic() - began)


def _failing(folder: Path, tests: Sequence[str]) -> str | None:
    """The first of the tests that fails there, or that they hang; None if all pass."""
    options = ("-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", f"--basetemp={folder / 't'}")
    try:
        done = run(folder, "pytest", *options, *tests, limit_s=LONGEST)
    except subprocess.TimeoutExpired:
        return f"hangs: {' '.join(tests)}"
    # Beside "tests failed" and "all passed" there is "no tests were run", which proves nothing.
    if done.returncode not in (0, 1):
        raise LookupError(f"pytest ends with {done.returncode}\n{done.stdout}{done.stderr}")
    found = KILLER.search(done.stdout)
    return (found[1] if found else "a test") if done.returncode == 1 else None


def main(names: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    alive = 0
    for mutant in chosen:
        try:
            verdict = tried(mutant)
        except LookupError as error:
            alive += 1
            print(f"{mutant.name:78} UNKNOWN: {error}", flush=True)
            continue
        alive += verdict.killer is None
        print(f"{mutant.name:78} {verdict.seconds:5.0f} s  {verdict.killer or 'SURVIVED'}", flush=True)
    print(f"{len(chosen)} mutants, {alive} not killed")
    return min(alive, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
