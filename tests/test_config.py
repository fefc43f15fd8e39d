"""Settings: flag before environment before file before default; every one of them changes something."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from taskd import config, places, server
from taskd.config import Config
from taskd.errors import ConfigError


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "taskd.toml"
    file.write_text('socket = "/file"\nstate = "/file"\nlog_level = "error"\nmax_depth = 50\n')
    environment = {"TASKD_SOCKET": "/environment", "TASKD_STATE": "/environment"}
    settings = config.load(str(file), environment, {"socket": "/flag", "state": None})

    assert (settings.socket, settings.state, settings.log_level) == ("/flag", "/environment", "error")
    assert (settings.max_depth, settings.max_batch) == (50, Config().max_batch)


def test_the_environment_is_read_by_type() -> None:
    settings = config.load(None, {"TASKD_ADMINS": "root, backup", "TASKD_STOP_GRACE_S": "2.5"})

    assert (settings.admins, settings.stop_grace_s) == (("root", "backup"), 2.5)
    with pytest.raises(ConfigError, match=r"TASKD_MAX_BATCH: expected an integer, got 'many'"):
        config.load(None, {"TASKD_MAX_BATCH": "many"})


def test_names_of_users_and_groups_are_such(tmp_path: Path) -> None:
    """Whether there are such is not asked: they may be made later."""
    file = tmp_path / "taskd.toml"
    file.write_text('admins = []\nservices = ["%no such group", "no such user"]\nproxies = ["www-data"]\n')
    settings = config.load(str(file), {"TASKD_PROXIES": "%web,www-data"})

    assert (settings.admins, settings.services) == ((), ("%no such group", "no such user"))
    assert settings.proxies == ("%web", "www-data")
    for wrong in ("", "%", "%%x", "a:b", "a\\nb", "a\\u0000"):
        file.write_text(f'proxies = ["{wrong}"]')
        with pytest.raises(ConfigError, match="proxies: expected names of users, and of groups after a %"):
            config.load(str(file), {})


def test_roots_are_absolute_paths_that_mean_what_they_say(tmp_path: Path) -> None:
    file = tmp_path / "taskd.toml"
    file.write_text('roots = ["/srv/images", "/mnt/a b"]\n')

    assert config.load(str(file), {}).roots == ("/srv/images", "/mnt/a b")
    for wrong in ("", "srv", "/", "/srv/", "/srv//images", "/srv/../etc", "/srv/.", "/a\\u0000"):
        file.write_text(f'roots = ["{wrong}"]')
        with pytest.raises(ConfigError, match="roots: expected absolute paths of folders"):
            config.load(str(file), {})


def test_every_setting_has_a_sentence_and_is_used() -> None:
    """A setting that is read and then not passed on is worse than none."""
    package = Path(server.__file__).parent
    source = "".join(path.read_text() for path in package.rglob("*.py") if path.name != "config.py")
    for field in attrs.fields(Config):
        assert field.metadata["doc"]
        assert field.metadata["unit"], f"{field.name} has no unit"
        assert re.search(rf"\b{field.name}\b", source), f"{field.name} is used nowhere"


def test_the_default_socket_has_no_underscore() -> None:
    """XenAPI's Python client turns every one of them into a slash."""
    assert "_" not in places.default_socket().replace(str(Path.home()), "")
