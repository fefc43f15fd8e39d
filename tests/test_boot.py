"""taskd as a unit of a real systemd: installed, activated, stopped, killed, wedged, reloaded and removed.

One machine is booted for all of them (``tests.machine``), and taskd is installed on it once; each test finds it as
it is then, without tasks and not running.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import attrs
import pytest

from taskd import client
from taskd.errors import NoDaemon, Refused
from taskd.places import SOCKET, STATE
from tests.machine import CannotBoot, Machine, booted
from tests.operations.conftest import image, loop_device
from tests.process import PATIENCE
from tests.readme import SETTINGS

TASKCTL = str(Path(sys.executable).with_name("taskctl"))

# A filesystem that shares blocks, below a root.
SHARING = """
if command -v mkfs.xfs >/dev/null; then
    truncate -s 320M ../xfs && mkfs.xfs -q ../xfs && mkdir srv/sharing && mount -o loop ../xfs srv/sharing
fi
"""

MIB = 1 << 20
NOBODY = "65534"


@attrs.frozen(eq=False)
class Unit:
    """taskd on that machine, from its installation on."""

    machine: Machine
    cursor: str

    def connect(self) -> client.Daemon:
        return client.connect(str(self.machine.path(SOCKET)), timeout_s=PATIENCE)

    def systemctl(self, *argv: str) -> None:
        self.machine.run("systemctl", "--quiet", *argv)

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.machine.out("systemctl", "show", "--value", "--property", name, "taskd.service")

    def drop_in(self, *lines: str) -> None:
        folder = self.machine.path("/run/systemd/system/taskd.service.d")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text("\n".join(["[Service]", *lines, ""]))
        self.systemctl("daemon-reload")

    def journal(self) -> list[Mapping[str, str]]:
        """What was logged of the service and by it."""
        options = ("--unit=taskd.service", "--output=json", f"--after-cursor={self.cursor}")
        self.machine.run("journalctl", "--sync")
        return [json.loads(line) for line in self.machine.out("journalctl", *options).splitlines()]

    def priority(self, text: str) -> str:
        """That of the one line of the daemon's own that has ``text``."""
        (entry,) = [each for each in self.journal() if text in each["MESSAGE"] and each["_COMM"] == "taskd"]
        return entry["PRIORITY"]


def until(taskd: Unit, status: str) -> None:
    """Wait for this status."""
    while taskd.show("StatusText") != status:
        pass


def moved(daemon: client.Daemon, id: str) -> client.Record:
    """The task, when it is in its middle."""
    record = daemon.get(id)
    while not record.progress.fraction:
        assert not record.ended, record
        record = daemon.wait(id, after_revision=record.revision)
    return record


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with ExitStack() as stack:
        try:
            machine = stack.enter_context(booted(tmp_path_factory.mktemp("machine"), SHARING))
        except CannotBoot as reason:
            pytest.skip(str(reason))
        yield machine


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Machine:
    """With taskd, by the commands of README.rst."""
    machine.run(TASKCTL, "install-units")
    machine.run("systemctl", "enable", "taskd.service")
    machine.run("systemctl", "start", "taskd.socket")
    return machine


@pytest.fixture
def taskd(installed: Machine) -> Iterator[Unit]:
    """Not yet asked anything."""
    cursor = installed.out("journalctl", "--lines=0", "--show-cursor").partition("cursor: ")[2]
    yield Unit(installed, cursor)
    installed.run("sh", "-c", AS_IT_WAS)


AS_IT_WAS = f"""
systemctl --quiet stop taskd.service
rm -rf {STATE}/* /srv/? /run/systemd/system/taskd.service.d /run/go-on
systemctl service-watchdogs yes
cd /etc/systemd/system/taskd.service.d && rm -f roots.conf devices.conf
cp {SETTINGS} /etc/taskd
systemctl daemon-reload
"""


def test_the_first_request_starts_the_daemon(taskd: Unit) -> None:
    machine = taskd.machine
    assert machine.out("systemctl", "is-enabled", "taskd.socket", "taskd.service") == "enabled\nenabled"
    assert machine.out("stat", "--format=%a %U %G", SOCKET) == "660 root taskd"
    assert taskd.show("ActiveState") == "inactive"

    assert "copy: " in machine.out(TASKCTL, "operations")
    assert taskd.show("ActiveState") == "active"
    assert taskd.show("StatusText") == "no unfinished tasks"


def test_whoever_is_in_the_group_may_ask_and_nobody_else(taskd: Unit) -> None:
    user = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY)
    ask = ("curl", "--silent", "--show-error", "--unix-socket", SOCKET, "http://taskd/healthz")

    assert json.loads(taskd.machine.out(*user, "--groups", "taskd", *ask))["status"] == "ok"
    assert "connect" in taskd.machine.run(*user, "--clear-groups", *ask, check=False).stderr


def test_systemd_finds_nothing_wrong_with_the_units(taskd: Unit) -> None:
    units = (f"/etc/systemd/system/taskd.{kind}" for kind in ("socket", "service"))
    said = taskd.machine.run("systemd-analyze", "verify", "--man=no", *units)

    assert (said.stdout, said.stderr) == ("", "")


def test_a_copy_may_go_to_a_root_and_nowhere_else(taskd: Unit) -> None:
    content = image(taskd.machine.path("/srv/a"), MIB).read_bytes()
    with taskd.connect() as daemon:
        done = daemon.wait(daemon.copy("/srv/a", "/srv/b").id)
        with pytest.raises(Refused, match="/etc: Read-only file system"):
            daemon.copy("/srv/a", "/etc/taskd.img")

    assert done.state == "completed", done.error
    assert taskd.machine.path("/srv/b").read_bytes() == content


def test_of_what_is_in_a_home_it_is_said_that_the_unit_does_not_see_it(taskd: Unit) -> None:
    image(taskd.machine.path("/root/a"), MIB)
    done = taskd.machine.run(TASKCTL, "copy", "/root/a", "/srv/b", check=False)

    assert done.returncode == 4
    assert done.stderr.startswith("taskctl: /root/a does not exist for the daemon, though it does here: its unit ")


def test_a_root_that_is_added_may_be_in_a_home(taskd: Unit) -> None:
    home = taskd.machine.path("/root/images of mine")
    home.mkdir(exist_ok=True)
    image(taskd.machine.path("/srv/a"), MIB)
    first = taskd.machine.out(TASKCTL, "install-units", "--root", "/root/images of mine")
    assert first.endswith("next: systemctl enable taskd.service && systemctl start taskd.socket")
    with taskd.connect() as daemon:
        daemon.ids()
    while taskd.show("ActiveState") != "active":
        pass
    second = taskd.machine.out(TASKCTL, "install-units", "--root", "/opt")
    assert second.endswith("next: systemctl restart taskd.service")
    taskd.systemctl("restart", "taskd.service")
    with taskd.connect() as daemon:
        for target in ("/root/images of mine/a", "/opt/a"):
            done = daemon.wait(daemon.copy("/srv/a", target).id)
            assert done.state == "completed", done.error
            assert taskd.machine.path(target).stat().st_size == MIB


def test_blocks_are_shared_as_ever(taskd: Unit) -> None:
    if not taskd.machine.path("/srv/sharing").exists():
        pytest.skip("not here: ['mkfs.xfs']")
    image(taskd.machine.path("/srv/sharing/a"), MIB)
    with taskd.connect() as daemon:
        done = daemon.wait(daemon.copy("/srv/sharing/a", "/srv/sharing/b", overwrite=True).id)

    assert done.state == "completed", done.error
    assert isinstance(done.result, dict)
    assert done.result["method"] == "reflink"


def test_a_device_is_there_for_those_who_ask(taskd: Unit, tmp_path: Path) -> None:
    """The drop-in that README.rst tells of; without it there is none."""
    content = image(taskd.machine.path("/srv/a"), MIB).read_bytes()
    with loop_device(image(tmp_path / "disk", MIB, seed=2)) as disk:
        number = disk.stat().st_rdev
        taskd.machine.run("mknod", "--mode=660", str(disk), "b", str(os.major(number)), str(os.minor(number)))
        with taskd.connect() as daemon, pytest.raises(Refused, match="/dev: Read-only file system"):
            daemon.copy("/srv/a", str(disk), overwrite=True)
        taskd.machine.run(TASKCTL, "install-units", "--allow", "devices")
        taskd.systemctl("restart", "taskd.service")
        with taskd.connect() as daemon:
            done = daemon.wait(daemon.copy("/srv/a", str(disk), overwrite=True).id)
        taskd.machine.run("rm", str(disk))
        assert done.state == "completed", done.error
        assert disk.read_bytes() == content


def test_a_command_may_change_its_user_and_is_ended_all_the_same(taskd: Unit) -> None:
    as_nobody = ["setpriv", "--reuid", NOBODY, "--clear-groups"]
    with taskd.connect() as daemon:
        said = daemon.start(
            "command", {"argv": [*as_nobody, "sh", "-c", "id -u; nice id -u >/tmp/mine; cat /tmp/mine"]}
        )
        assert daemon.wait(said.id).state == "completed"
        assert [line.line for line in daemon.log(said.id).lines] == [NOBODY, NOBODY]
        deaf = daemon.start(
            "command",
            {
                "argv": [*as_nobody, "sh", "-c", "trap '' TERM; echo progress 0.5 >&3; sleep 1000 & wait"],
                "grace_s": 0.1,
            },
        )
        moved(daemon, deaf.id)
        daemon.cancel(deaf.id)
        assert daemon.wait(deaf.id).state == "cancelled"
    assert taskd.machine.run("pgrep", "--uid", NOBODY, check=False).stdout == ""


# Stopping and starting again.

# A minute for a copy, which is interrupted in its middle. The source of its next try is shorter.
SIZE = 2 * MIB
SLOW = 32 * 1024


def shorter(source: Path) -> bytes:
    """The content of another source in the place of this one."""
    content = image(source.with_name("z"), SLOW, seed=2).read_bytes()
    os.replace(source.with_name("z"), source)
    return content


def parts(taskd: Unit) -> list[str]:
    """What a copy that is under way has beside its target."""
    return [path.name for path in taskd.machine.path("/srv").iterdir() if path.name.startswith(".taskd")]


def test_a_stop_in_the_middle_of_a_copy_and_the_next_start_makes_it_whole(taskd: Unit) -> None:
    source = image(taskd.machine.path("/srv/a"), SIZE)
    with taskd.connect() as daemon:
        id = daemon.copy("/srv/a", "/srv/b", rate_limit=SLOW).id
        moved(daemon, id)
        content = shorter(source)
        taskd.systemctl("stop", "taskd.service")
    assert (taskd.show("ActiveState"), taskd.show("Result")) == ("inactive", "success")
    assert taskd.machine.out("systemctl", "is-active", "taskd.socket") == "active"
    assert not taskd.machine.path("/srv/b").exists()

    taskd.systemctl("start", "taskd.service")
    with taskd.connect() as daemon:
        done = daemon.wait(id)
    assert (done.state, done.attempt) == ("completed", 2)
    assert taskd.machine.path("/srv/b").read_bytes() == content
    assert parts(taskd) == []


def test_a_kill_is_followed_by_a_start_that_recovers(taskd: Unit) -> None:
    """Of the daemon alone: what it leaves of a command is ended, and the undo is done."""
    source = image(taskd.machine.path("/srv/a"), SIZE)
    with taskd.connect() as daemon, suppress(NoDaemon):
        copy = daemon.copy("/srv/a", "/srv/b", rate_limit=SLOW).id
        script = "trap '' TERM; touch /srv/c; echo progress 0.5 >&3; sleep 1000 & wait"
        command = daemon.start("command", {"argv": ["sh", "-c", script], "undo_argv": ["rm", "-f", "/srv/c"]}).id
        elsewhere = daemon.start("external", {}).id
        moved(daemon, copy)
        moved(daemon, command)
        content = shorter(source)
        taskd.systemctl("kill", "--kill-whom=main", "--signal=KILL", "taskd.service")
        daemon.wait(elsewhere)

    with taskd.connect() as daemon:
        assert daemon.wait(copy).state == "completed"
        undone = daemon.wait(command)
        assert daemon.get(elsewhere).state == "running"
    assert undone.error is not None
    assert (undone.state, undone.error.code) == ("failed", "INTERRUPTED")
    assert taskd.show("NRestarts") == "1"
    assert taskd.machine.path("/srv/b").read_bytes() == content
    assert not taskd.machine.path("/srv/c").exists()
    assert parts(taskd) == []
    assert taskd.machine.run("pgrep", "--full", "sleep 1000", check=False).stdout == ""


def test_a_request_that_comes_while_it_restarts_waits_and_is_answered(taskd: Unit) -> None:
    taskd.systemctl("start", "taskd.service")
    inode = taskd.machine.path(SOCKET).stat().st_ino
    taskd.machine.run("mkfifo", "/run/go-on")
    taskd.drop_in("ExecStartPre=/bin/sh -c 'read line </run/go-on'")
    taskd.systemctl("restart", "--no-block", "taskd.service")
    while taskd.show("SubState") != "start-pre":
        pass
    with socket.socket(socket.AF_UNIX) as early:
        early.settimeout(PATIENCE)
        early.connect(str(taskd.machine.path(SOCKET)))
        early.sendall(b'{"method": "Task.ls", "params": [{"dbg": ""}], "id": 1}\n')
        taskd.machine.path("/run/go-on").write_text("go on\n")
        assert json.loads(early.makefile().readline())["result"] == []
    assert taskd.show("SubState") == "running"
    assert taskd.machine.path(SOCKET).stat().st_ino == inode


WEDGE = """
import time
import attrs
from taskd.operations import Operation

@attrs.frozen
class Params:
    pass

async def run(params, handle):
    time.sleep(1000)

OPERATION = Operation("wedge", "Let nobody else run", Params, run)
"""


def test_a_loop_that_does_not_turn_is_ended_by_the_watchdog_and_no_other(taskd: Unit) -> None:
    """The journal says where it stood; the task is not tried again, and the next daemon turns."""
    package = taskd.machine.path("/opt/wedge")
    (package / "wedge-1.dist-info").mkdir(parents=True)
    (package / "wedge.py").write_text(WEDGE)
    (package / "wedge-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: wedge\nVersion: 1\n")
    (package / "wedge-1.dist-info/entry_points.txt").write_text("[taskd.operations]\nwedge = wedge:OPERATION\n")
    taskd.drop_in("Environment=PYTHONPATH=/opt/wedge", "WatchdogSec=4s")
    taskd.systemctl("service-watchdogs", "no")  # a slow machine is no loop that does not turn
    with taskd.connect() as daemon:
        busy = daemon.start("command", {"argv": ["sleep", "1000"]}).id
        for _ in range(2):
            fed = taskd.show("WatchdogTimestampMonotonic")
            while taskd.show("WatchdogTimestampMonotonic") == fed:
                pass
        daemon.cancel(busy)
        assert daemon.wait(busy).state == "cancelled"
    assert taskd.show("NRestarts") == "0"
    with taskd.connect() as daemon, suppress(NoDaemon):
        taskd.systemctl("service-watchdogs", "yes")
        daemon.start("wedge", {})
        while True:  # until it runs, others are answered
            daemon.ids()
    taskd.systemctl("service-watchdogs", "no")

    with taskd.connect() as daemon:
        (id,) = {*daemon.ids()} - {busy}
        ended = daemon.wait(id)
    assert ended.error is not None
    assert (ended.state, ended.error.code) == ("failed", "INTERRUPTED")
    assert taskd.show("NRestarts") == "1"
    said = [entry["MESSAGE"] for entry in taskd.journal()]
    assert any("Watchdog timeout" in line for line in said)
    assert any('File "/opt/wedge/wedge.py", line 11 in run' in line for line in said), said


def test_a_reload_takes_good_settings_and_passes_over_bad_ones(taskd: Unit) -> None:
    file = taskd.machine.path("/etc/taskd/taskd.toml")
    with taskd.connect() as daemon:
        daemon.ids()
        file.write_text('max_text = 64\nlog_level = "warning"\nstate = "/elsewhere"\n')
        taskd.systemctl("reload", "taskd.service")
        until(taskd, "the settings are reloaded; changed: log_level, max_text")
        with pytest.raises(Refused, match="longer than 64"):
            daemon.start("external", {}, label="x" * 100)

        file.write_text("max_text = true\n")
        taskd.systemctl("reload", "taskd.service")
        fault = "the settings stay as they were: /etc/taskd/taskd.toml: max_text: expected an integer, got True"
        until(taskd, fault)
        with pytest.raises(Refused, match="longer than 64"):
            daemon.start("external", {}, label="x" * 100)

    assert taskd.show("ActiveState") == "active"
    assert taskd.priority("a restart is needed before a change counts of state") == "4"
    assert taskd.priority(fault) == "3"
    assert taskd.priority("listens on /run/taskd/taskd.sock") == "6"


def test_remove_leaves_nothing_but_the_state(machine: Machine) -> None:
    machine.run(TASKCTL, "install-units", "--root", "/opt", "--allow", "network")
    machine.run("systemctl", "enable", "taskd.service")
    machine.run("systemctl", "start", "taskd.socket")
    machine.run(TASKCTL, "ls")
    machine.run(TASKCTL, "install-units", "--remove")

    units = machine.out("systemctl", "list-units", "--all", "--no-legend", "taskd*")
    files = machine.out("find", "/etc", "/run", "-name", "*taskd*", "-not", "-path", "/run/log/*")
    assert (units, files) == ("", "/run/taskd")
    assert machine.out("ls", "/run/taskd") == ""
    assert machine.path(f"{STATE}/taskd.sqlite").exists()
