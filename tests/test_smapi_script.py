"""``taskd-smapi`` by the names of SMAPIv3's methods, as xapi-storage-script runs it, against a real daemon."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from taskd import dialects
from taskd.model import JSON
from taskd.smapi import ARGUMENTS
from tests.process import PATIENCE, DaemonProcess
from tests.storage_script import PROGRAM, BackendError, Plugin, program, taken

NO_TASK = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path_factory.mktemp("daemon"))
    daemon.start()
    yield daemon
    daemon.end()


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "datapath" / "taskd"
    assert program("--link", folder)[0] == 0
    return folder


@pytest.fixture
def plugin(scripts: Path, daemon: DaemonProcess) -> Plugin:
    return Plugin(scripts, daemon.socket)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(range(256)) * 4096)
    return disk


def remote(tmp_path: Path) -> Path:
    """What is copied to exists, as SMAPIv3's text says of it."""
    remote = tmp_path / "remote.img"
    remote.write_bytes(b"before")
    return remote


def slow(daemon: DaemonProcess, disk: Path, target: Path, seconds: float) -> JSON:
    """The operation key of a copy that takes so long."""
    with daemon.connect() as client:
        rate = int(disk.stat().st_size / seconds)
        task = client.copy(str(disk), str(target), overwrite=True, rate_limit=rate)
        return ["CopyV1", task.id]


def until_it_ends(plugin: Plugin, key: JSON) -> tuple[JSON, int]:
    """As xapi waits, without a pause between the calls (storage_smapiv3_migrate.ml); the end, and how many."""
    for calls in range(1, 1000):
        match status := plugin("Data.stat", dbg="d", operation=key):
            case {"complete": False, "failed": False}:
                pass
            case _:
                return status, calls
    raise AssertionError("it does not end")


def test_a_whole_copy_goes_through(plugin: Plugin, tmp_path: Path, disk: Path) -> None:
    target = remote(tmp_path)

    key = plugin("Data.copy", dbg="d", uri=f"file://{disk}", domain="0", remote=f"file://{target}")
    assert isinstance(key, list)
    tag, id = key
    assert tag == "CopyV1"
    end, _ = until_it_ends(plugin, key)

    assert end == {"complete": True, "failed": False, "progress": 1.0}
    assert target.read_bytes() == disk.read_bytes()
    match plugin("Task.stat", dbg="d", id=id):
        case {"state": ["Completed", {"duration": float()}], "ctime": float(), "id": same}:
            assert same == id
        case other:
            pytest.fail(str(other))
    everything = plugin("Data.ls", dbg="d")
    assert isinstance(everything, list)
    assert key in everything
    ids = plugin("Task.ls", dbg="d")
    assert isinstance(ids, list)
    assert id in ids
    assert plugin("Data.destroy", dbg="d", operation=key) is None
    with pytest.raises(BackendError) as gone:
        plugin("Data.stat", dbg="d", operation=key)
    assert gone.value.params == ["Does_not_exist", f"there is no task {id}"]


def test_a_copy_that_is_cancelled_was_never_made(
    plugin: Plugin, daemon: DaemonProcess, tmp_path: Path, disk: Path
) -> None:
    target = remote(tmp_path)
    key = slow(daemon, disk, target, 600)
    assert isinstance(key, list)

    with pytest.raises(BackendError) as refused:
        plugin("Data.destroy", dbg="d", operation=key)
    assert refused.value.params[0] == "Task_in_progress"
    assert plugin("Data.cancel", dbg="d", operation=key) is None
    end, _ = until_it_ends(plugin, key)

    # Not complete: xapi looks at that first, and would take it for a success.
    assert isinstance(end, dict)
    assert (end["complete"], end["failed"]) == (False, True)
    assert target.read_bytes() == b"before"
    match plugin("Task.stat", dbg="d", id=key[1]):
        case {"state": state}:
            assert state == ["Failed", "Cancelled"]
    assert plugin("Task.cancel", dbg="d", id=key[1]) is None
    assert plugin("Task.destroy", dbg="d", id=key[1]) is None


def test_whoever_waits_without_a_pause_starts_no_more_than_a_script_a_second(
    plugin: Plugin, daemon: DaemonProcess, tmp_path: Path, disk: Path
) -> None:
    """Progress moves all the while, and ends no wait."""
    key = slow(daemon, disk, remote(tmp_path), 2.5)

    begun = time.monotonic()
    end, calls = until_it_ends(plugin, key)

    assert end == {"complete": True, "failed": False, "progress": 1.0}
    assert calls - 1 <= time.monotonic() - begun


def test_scripts_run_side_by_side(plugin: Plugin, daemon: DaemonProcess, tmp_path: Path, disk: Path) -> None:
    keys = [slow(daemon, disk, tmp_path / f"{n}.img", 600) for n in range(4)]
    with ThreadPoolExecutor(12) as pool:
        stats = [pool.submit(plugin, "Data.stat", dbg="d", operation=key) for key in keys]
        others = [pool.submit(plugin, "Plugin.diagnostics", dbg="d") for _ in range(4)]

        for stat in stats:
            goes_on = stat.result(PATIENCE)
            assert isinstance(goes_on, dict)
            assert (goes_on["complete"], goes_on["failed"]) == (False, False)
        assert all(isinstance(other.result(PATIENCE), str) for other in others)
    for key in keys:
        plugin("Data.cancel", dbg="d", operation=key)


def test_the_plugin_is_one_that_xapi_takes(plugin: Plugin) -> None:
    """``query_result`` (ocaml/xapi-storage/generator/lib/plugin.ml): every field, and a version it supports."""
    query = plugin("Plugin.query", dbg="register")

    assert isinstance(query, dict)
    texts = ("plugin", "name", "description", "vendor", "copyright", "version", "required_api_version")
    lists = ("features", "required_cluster_stack", "supported_image_formats")
    assert all(isinstance(query[name], str) for name in texts)
    assert all(isinstance(query[name], list) for name in lists)
    assert isinstance(query["configuration"], dict)
    assert query["required_api_version"] in ("3.0", "5.0")
    assert plugin("Plugin.ls", dbg="d") == []


def test_what_the_caller_is_about_is_kept_with_the_task(plugin: Plugin, tmp_path: Path, disk: Path) -> None:
    """Its second line is a trace's (ocaml/xapi-idl/lib/debug_info.ml)."""
    dbg = "Async.VDI.pool_migrate R:1\n00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    key = plugin("Data.copy", dbg=dbg, uri=str(disk), domain="", remote=str(remote(tmp_path)))

    assert isinstance(key, list)
    match plugin("Task.stat", dbg="d", id=key[1]):
        case {"debug_info": kept}:
            assert kept == dbg


def test_an_argument_that_the_method_does_not_have_is_passed_over(
    plugin: Plugin, tmp_path: Path, disk: Path
) -> None:
    """As ocaml-rpc does, which all others are written with: a newer xapi may say more."""
    copy = {"uri": str(disk), "domain": "", "remote": str(remote(tmp_path))}

    key = plugin("Data.copy", dbg="d", **copy, new=1)

    assert until_it_ends(plugin, key)[0] == {"complete": True, "failed": False, "progress": 1.0}
    assert plugin("Plugin.Query", dbg="d", new={}) == plugin("Plugin.Query", dbg="d")
    assert plugin("Data.destroy", dbg="d", operation=key, new=[]) is None


def test_the_arguments_of_each_method_are_those_that_the_daemon_knows() -> None:
    methods = [method for method in dialects.table().values() if method.dialect == "smapi"]

    assert {method.name: {*attrs.fields_dict(method.params)} for method in methods} == ARGUMENTS


@pytest.mark.parametrize("name", ["task.ls", "TASK.LS", "Task.Ls"])
def test_a_name_is_taken_in_any_case(plugin: Plugin, name: str) -> None:
    os.rename(plugin.folder / "Task.ls", plugin.folder / name)

    assert isinstance(plugin("Task.ls", dbg="d"), list)


def test_a_link_to_a_link_is_as_good(plugin: Plugin, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "Task.ls").symlink_to(plugin.folder / "Data.stat")

    assert isinstance(Plugin(other, plugin.socket)("Task.ls", dbg="d"), list)


NOT_ONE = "stdin: expected the arguments as one JSON object: "


@pytest.mark.parametrize(
    ("method", "stdin", "name", "text"),
    [
        ("Task.stat", b"", "Bad_params", NOT_ONE + "Expecting value: line 1 column 1 (char 0)"),
        ("Task.stat", b'{"id": ', "Bad_params", NOT_ONE + "Expecting value: line 1 column 8 (char 7)"),
        ("Task.stat", b'{"dbg": "d"} {}', "Bad_params", NOT_ONE + "Extra data: line 1 column 14 (char 13)"),
        ("Task.stat", b'[{"dbg": "d"}]', "Bad_params", NOT_ONE + 'got [{"dbg": "d"}]'),
        ("Task.stat", b'{"id": "\xff"}', "Bad_params", NOT_ONE + "'utf-8' codec can't decode byte 0xff"),
        ("Task.stat", b"[" * 100_000, "Bad_params", NOT_ONE + "maximum recursion depth exceeded"),
        ("Task.stat", b'{"dbg": "d"}', "Bad_params", "params.id: required, but missing"),
        ("Task.stat", b'{"dbg": "d", "id": 7}', "Bad_params", "params.id: expected "),
        ("Data.stat", b'{"dbg": "d"}', "Bad_params", "params.operation: required, but missing"),
        ("Data.stat", b'{"operation": ["CopyV1"]}', "Bad_params", 'params.operation: expected ["CopyV1", id]'),
        ("Data.stat", b'{"operation": ["CopyV1", 7]}', "Bad_params", "params.operation[1]: expected "),
        ("Data.copy", b'{"remote": "/x"}', "Bad_params", "params.uri: required, but missing"),
        ("Data.copy", b'{"uri": "nbd://x/y", "remote": "/x"}', "Bad_params", "params.uri: expected an absolute "),
        ("Data.mirror", b'{"uri": "/x", "remote": "/x"}', "Unimplemented", "there is no method Data.mirror"),
        ("Task.cancel", b'{"id": "%s"}' % NO_TASK.encode(), "Does_not_exist", f"there is no task {NO_TASK}"),
    ],
)
def test_an_error_says_what_is_wrong(plugin: Plugin, method: str, stdin: bytes, name: str, text: str) -> None:
    with pytest.raises(BackendError) as error:
        taken(*plugin.run(method, stdin))

    assert error.value.code == "SR_BACKEND_FAILURE"
    assert error.value.params[0] == name
    assert error.value.params[1].startswith(text)
    assert error.value.params[1] == error.value.backtrace["error"]


def test_a_name_that_is_none_of_smapis_is_unimplemented(plugin: Plugin) -> None:
    (plugin.folder / "Volume.create").symlink_to(PROGRAM)

    with pytest.raises(BackendError) as error:
        plugin("Volume.create", dbg="d")

    assert error.value.params == ["Unimplemented", "there is no method Volume.create"]


@pytest.mark.parametrize("options", [(), ("--json", "x"), ("dbg",)])
def test_arguments_are_taken_from_stdin_alone(plugin: Plugin, options: tuple[str, ...]) -> None:
    with pytest.raises(BackendError) as error:
        taken(*plugin.run("Task.ls", b"{}", options))

    assert error.value.params[0] == "Bad_params"
    assert error.value.params[1].startswith("options: expected --json")


def test_a_daemon_that_is_not_there_is_an_error(scripts: Path, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")

    with pytest.raises(BackendError) as error:
        Plugin(scripts, nowhere)("Data.ls", dbg="d")

    text = f"no taskd answers on {nowhere}: No such file or directory"
    assert error.value.params == ["No_daemon", text]


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """The path of a socket whose one peer is answered with these lines, one a request, and then hung up on."""
    path, lines = str(tmp_path / "stranger"), list[bytes]()

    def answer() -> None:
        peer, _ = listener.accept()
        with peer:
            for line in lines:
                peer.recv(65536)
                peer.sendall(line)
            if lines:
                peer.recv(65536)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=answer)
        thread.start()
        yield path, lines
        thread.join(PATIENCE)


def said(**result: JSON) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "result": result, "id": 1}).encode() + b"\n"


GOES_ON = said(complete=False, failed=False, progress=0.5)


def test_an_end_is_told_when_the_daemon_tells_it(scripts: Path, stranger: tuple[str, list[bytes]]) -> None:
    path, lines = stranger
    lines += [GOES_ON, said(id=NO_TASK, state="failed"), said(complete=False, failed=True, progress=0.6)]

    end = Plugin(scripts, path)("Data.stat", dbg="d", operation=["CopyV1", NO_TASK])

    assert end == {"complete": False, "failed": True, "progress": 0.6}


def test_a_daemon_that_goes_away_meanwhile_has_not_failed_the_copy(
    scripts: Path, stranger: tuple[str, list[bytes]]
) -> None:
    """It goes on with it when it is back; an error would end xapi's wait, and the migration with it."""
    path, lines = stranger
    lines.append(GOES_ON)

    answer = Plugin(scripts, path)("Data.stat", dbg="d", operation=["CopyV1", NO_TASK])

    assert answer == {"complete": False, "failed": False, "progress": 0.5}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "(the connection was closed|Connection reset by peer)"),  # it may close before it has read
        (b"SSH-2.0-OpenSSH\n", "what answers does not speak as taskd does"),
        (b"[]\n", "what answers does not speak as taskd does"),
    ],
)
def test_what_is_no_daemon_is_told_from_one(
    scripts: Path, stranger: tuple[str, list[bytes]], line: bytes, reason: str
) -> None:
    path, lines = stranger
    lines += [line] if line else []

    with pytest.raises(BackendError) as error:
        Plugin(scripts, path)("Data.ls", dbg="d")

    name, sentence = error.value.params
    assert name == "No_daemon"
    assert re.fullmatch(f"no taskd answers on {re.escape(path)}: {reason}", sentence)


def test_a_result_that_cannot_be_written_is_no_success(plugin: Plugin) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [plugin.find("Task.ls"), "--json"],
            input=b"{}",
            env=os.environ | {"TASKD_SOCKET": plugin.socket},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, b"Task.ls: stdout: No space left on device\n")


def test_a_call_imports_little() -> None:
    """Each would take longer than the call."""
    heavy = {"attrs", "cattrs", "orjson", "click", "rich", "trio", "h11", "argparse", "pathlib", "taskd.errors"}
    script = "import sys; before = {*sys.modules}; import taskd.smapi; print(*({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert heavy & {*done.stdout.split()} == set()
