"""``systemd/`` says what the code says; ``taskctl install-units`` puts it where it belongs and takes it away."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import attrs
import pytest

from taskd import config, places
from taskd.cli import units
from taskd.config import Config
from taskd.operations.command import CommandParams
from taskd.operations.session import DYING
from tests import readme
from tests.cli.conftest import Said, Taskctl
from tests.process import PATIENCE

FOLDER = readme.SETTINGS.parent

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="not here: ['systemd-analyze']")

Install = Callable[..., Said]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """``taskctl install-units`` with a prefix."""
    return lambda *options: Taskctl("/nobody")("install-units", "--prefix", str(tmp_path), *options)


def found(prefix: Path) -> set[str]:
    """The files below ``prefix``."""
    return {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}


def of(unit: str, key: str) -> list[str]:
    """The values of ``key`` in a unit as it is shipped."""
    return re.findall(rf"^{key}=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)


def analyze(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--man=no", *argv], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


# What is shipped.


def test_the_settings_file_is_the_codes() -> None:
    assert readme.SETTINGS.read_text() == readme.settings_file(), "run: python -m tests.readme"


def test_the_settings_file_holds_every_setting_at_its_default(tmp_path: Path) -> None:
    """Taken as it is, and with every line taken in."""
    text = readme.settings_file()
    whole = tmp_path / "taskd.toml"
    whole.write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    settings = config.load(str(whole), {})

    assert len(re.findall(r"^\w+ = ", whole.read_text(), re.MULTILINE)) == len(attrs.fields(Config))
    assert settings == attrs.evolve(Config(), socket=places.SOCKET, state=places.STATE)
    assert config.load(str(FOLDER / "taskd.toml"), {}) == Config()


def test_the_units_say_what_the_code_says() -> None:
    assert of("taskd.socket", "ListenStream") == [places.SOCKET]
    assert of("taskd.socket", "SocketMode") == [Config().socket_mode]
    assert of("taskd.service", "StateDirectory") == [places.STATE.removeprefix("/var/lib/")]
    assert f"d {places.STATE} 0700" in (FOLDER / "taskd.tmpfiles").read_text()
    assert f"d {os.path.dirname(places.SOCKET)} 0755" in (FOLDER / "taskd.tmpfiles").read_text()
    assert f"g {of('taskd.socket', 'SocketGroup')[0]} " in (FOLDER / "taskd.sysusers").read_text()


def test_a_stop_has_time_for_calls_in_flight_and_for_a_command_that_does_not_listen() -> None:
    (limit,) = of("taskd.service", "TimeoutStopSec")

    assert limit.endswith("s")
    assert int(limit[:-1]) > Config().stop_grace_s + CommandParams(()).grace_s + DYING


def test_a_package_holds_every_one_of_them() -> None:
    setup = ConfigParser()
    setup.read(FOLDER.parent / "setup.cfg")
    listed = setup["options.data_files"]["share/taskd/systemd"].split()

    assert sorted(listed) == sorted(f"systemd/{path.name}" for path in FOLDER.iterdir())


@needs_systemd
def test_the_exposure_is_two_at_most() -> None:
    said = analyze("security", "--offline=yes", "--threshold=20", "--no-pager", str(FOLDER / "taskd.service"))

    assert said.returncode == 0, said.stdout + said.stderr


@needs_systemd
def test_systemd_finds_nothing_wrong_with_them(tmp_path: Path, install: Install) -> None:
    install("--root", "/srv/some images", "--root", "/home/me/images", "--allow", "devices", "--allow", "network")
    said = analyze("verify", *(str(tmp_path / units.UNITS / name) for name in ("taskd.socket", "taskd.service")))

    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


# Installing.


def test_install_units_writes_each_file_to_its_place(tmp_path: Path, install: Install) -> None:
    said = install()

    assert (said.code, said.err) == (0, "")
    assert found(tmp_path) - {f"{units.DROP_INS}/homes.conf"} == {
        "etc/systemd/system/taskd.service",
        "etc/systemd/system/taskd.socket",
        "etc/sysusers.d/taskd.conf",
        "etc/taskd/taskd.toml",
        "etc/tmpfiles.d/taskd.conf",
    }
    for path in found(tmp_path):
        assert f"wrote {tmp_path / path}\n" in said.out
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o644


def test_the_unit_runs_the_daemon_that_belongs_to_this_taskctl(tmp_path: Path, install: Install) -> None:
    install()
    (command,) = re.findall(r"^ExecStart=(.*)$", (tmp_path / units.UNITS / "taskd.service").read_text(), re.M)
    told = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True)

    assert os.path.isabs(command)
    assert told.stdout.startswith("taskd ")


def test_roots_are_writable_where_they_are_and_in_a_home_too(tmp_path: Path, install: Install) -> None:
    install("--root", "/srv/some images", "--root", "/home/me/100%")

    assert (tmp_path / units.DROP_INS / "roots.conf").read_text().splitlines()[1:] == [
        "[Service]",
        'ReadWritePaths="-/srv/some images"',
        "BindPaths=-/home/me/100%%",
    ]


@pytest.mark.parametrize("root", ["/a:b", "/a\nb", ""])
def test_a_root_that_no_unit_can_say_is_refused(tmp_path: Path, install: Install, root: str) -> None:
    assert install("--root", root).code == 2
    assert found(tmp_path) == set()


def test_a_taskd_in_a_home_or_in_tmp_may_read_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("/root/venv", "/home/me/venv", "/run/user/1/venv", "/tmp/venv", "/var/tmp/venv"):
        monkeypatch.setattr("sys.prefix", home)
        made = units.files([f"{home}/bin/taskd"], (), ())
        drop_in = made[f"{units.DROP_INS}/homes.conf"].splitlines()
        assert f"BindReadOnlyPaths={home}" in drop_in
        assert f"BindReadOnlyPaths={home}/bin" not in drop_in


def test_again_it_keeps_what_an_admin_changed(tmp_path: Path, install: Install) -> None:
    """The settings, a drop-in, and the roots of before."""
    install("--root", "/srv/images", "--allow", "devices")
    mine = [tmp_path / "etc/taskd/taskd.toml", tmp_path / units.DROP_INS / "override.conf"]
    for path in mine:
        path.write_text("# mine\n")
    (tmp_path / units.UNITS / "taskd.service").write_text("old")
    before = found(tmp_path)
    said = json.loads(install("--json").out)

    assert found(tmp_path) == before
    assert [path.read_text() for path in mine] == ["# mine\n"] * 2
    assert said["kept"] == [str(mine[0])]
    assert "ReadWritePaths=-/srv/images\n" in (tmp_path / units.DROP_INS / "roots.conf").read_text()
    assert "[Service]" in (tmp_path / units.UNITS / "taskd.service").read_text()


def test_a_root_that_is_added_takes_none_away(tmp_path: Path, install: Install) -> None:
    """The service could no longer write where it always had."""
    install("--root", "/srv/images", "--root", "/home/me/images")
    install("--root", "/data", "--root", "/srv/images")

    assert (tmp_path / units.ROOTS).read_text().splitlines()[1:] == [
        "[Service]",
        "ReadWritePaths=-/srv/images",
        "BindPaths=-/home/me/images",
        "ReadWritePaths=-/data",
    ]


def test_remove_takes_away_what_it_wrote_and_nothing_else(tmp_path: Path, install: Install) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/other.service").write_text("")
    install("--root", "/srv/images", "--allow", "devices", "--allow", "network")
    said = install("--remove")

    assert (said.code, said.err) == (0, "")
    assert found(tmp_path) == {"etc/systemd/system/other.service"}
    assert not (tmp_path / "etc/taskd").exists()
    assert not (tmp_path / units.DROP_INS).exists()
    assert json.loads(install("--remove", "--json").out) == {"removed": [], "kept": []}


def test_remove_keeps_settings_and_drop_ins_that_are_an_admins(tmp_path: Path, install: Install) -> None:
    install()
    mine = {"etc/taskd/taskd.toml", f"{units.DROP_INS}/override.conf"}
    for path in mine:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("# mine\n")
    said = install("--remove")

    assert found(tmp_path) == mine
    assert f"kept {tmp_path}/etc/taskd/taskd.toml\n" in said.out


def test_what_cannot_be_written_is_named(tmp_path: Path, install: Install) -> None:
    (tmp_path / "etc").write_text("")
    said = install()

    assert said.code == 7
    assert said.err == f"taskctl: {tmp_path}/etc/systemd/system: Not a directory\n"


def test_remove_takes_no_roots(install: Install) -> None:
    assert install("--remove", "--root", "/srv").code == 2
