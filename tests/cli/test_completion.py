"""The Tab key: in bash, zsh and fish as they are, and what taskctl tells any of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from taskd.cli import shells
from taskd.cli import tab as offers
from taskd.cli import taskctl as taskctl_command
from taskd.client import Daemon, Record
from tests.cli.conftest import PATIENT, Taskctl
from tests.cli.tmux import Terminal, terminal
from tests.process import PATIENCE, DaemonProcess

# How each is started without anybody's own settings, and what makes it complete.
SHELLS = {
    "bash": ("bash --norc --noprofile", """PS1='$ '; eval "$(taskctl completion bash)"\n"""),
    "zsh": ("zsh -f", """PS1='$ '; autoload -U compinit; compinit -D -u; eval "$(taskctl completion zsh)"\n"""),
    "fish": ("fish --no-config", "function fish_prompt; echo '$ '; end; taskctl completion fish | source\n"),
}


Tab = Callable[..., list[str]]


@pytest.fixture
def tab(process: DaemonProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tab:
    """What a shell is told of a line when Tab is pressed at its end; of each offer its type and value."""
    monkeypatch.setenv("TASKD_SOCKET", process.socket)
    monkeypatch.setattr(offers, "PATIENCE_S", PATIENCE)

    def pressed(line: str, shell: str = "bash", **env: str) -> list[str]:
        for name, value in (env | {"_TASKCTL_COMPLETE": f"{shell}_complete", "COMP_WORDS": line}).items():
            monkeypatch.setenv(name, value)
        shells.complete(taskctl_command)
        said = capsys.readouterr()
        assert said.err == ""
        return said.out.splitlines()

    return pressed


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not here")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_line_is_typed_with_the_tab_key(
    shell: str, taskctl: Taskctl, external: Callable[..., Record], tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    id = external("tabbed").id
    (tmp_path / "disk image").touch()
    (tmp_path / "rc").write_text(f"cd {tmp_path}\n{SHELLS[shell][1]}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "taskctl").write_text(f"#!{PATIENT[0]}{PATIENT[2]}")
    (tmp_path / "bin" / "taskctl").chmod(0o755)
    env = taskctl.environment(PATH=f"{tmp_path}/bin:/usr/bin:/bin", HOME=str(tmp_path), TERM="xterm-256color")
    with terminal(tmp_path, f"env PATH={env['PATH']} {SHELLS[shell][0]}", env) as shown:
        shown.until(lambda screen: screen != "")
        # A shell of its own way to find programs has read its settings by now.
        shown.type(f"export PATH={env['PATH']}; . {tmp_path}/rc; clear")
        shown.press("Enter")
        shown.until(lambda screen: screen.strip() == "$")

        tabbed(shown, "taskctl canc", "taskctl cancel")
        tabbed(shown, id[:-1], f"taskctl cancel {id}")
        shown.press("C-u")
        tabbed(shown, "taskctl start exte", "taskctl start external")
        tabbed(shown, "heart", "taskctl start external heartbeat_s=")
        shown.press("C-u")
        tabbed(shown, "taskctl start copy overwrite=t", "taskctl start copy overwrite=true")
        tabbed(shown, " source=di", "overwrite=true source=disk\\ image")
        shown.press("C-u")
        tabbed(shown, "taskctl ls --state=runn", "taskctl ls --state=running")
        tabbed(shown, "--columns id,la", "--columns id,label")


def tabbed(shown: Terminal, typed: str, line: str) -> None:
    """Type this and press Tab; then the last line ends so, but for a blank or two."""
    shown.type(typed)
    shown.press("Tab")
    shown.until(lambda screen: " ".join(screen.split()).endswith(" ".join(line.split())))


def test_tasks_are_offered_to_the_commands_that_they_are_for(tab: Tab, daemon: Daemon) -> None:
    goes_on, done = (daemon.start("external", label="offered").id for _ in range(2))
    daemon.complete(done)

    def offered(line: str) -> set[str]:
        return {id for id in (goes_on, done) if f"plain,{id}" in tab(line)}

    assert offered("taskctl show ") == {goes_on, done}
    assert offered("taskctl cancel ") == offered("taskctl wait ") == {goes_on}
    assert offered("taskctl destroy ") == {done}
    assert offered(f"taskctl show {done[:8]}") == {done}
    assert offered(f"taskctl cancel {goes_on} ") == set(), "not twice"


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("taskctl ca", ["plain,cancel", "plain,call"]),
        ("taskctl start c", ["plain,command", "plain,copy"]),
        ("taskctl operations copy c", ["plain,command"]),
        ("taskctl start copy source=/x over", ["plain,overwrite="]),
        ("taskctl start copy source=/x s", []),
        ("taskctl start copy verify=", ["plain,true", "plain,false"]),
        ("taskctl start copy source=/etc/pass", ["file,/etc/pass"]),
        ("taskctl start copy rate_limit=1", []),
        ("taskctl start nothing so", []),
        ("taskctl ls --state f", ["plain,failed"]),
        ("taskctl cancel --operation ex", ["plain,external"]),
        ("taskctl ls --columns id,st", ["plain,id,state", "plain,id,started", "plain,id,status"]),
        ("taskctl call task.wai", ["plain,Task.wait"]),
        ("taskctl copy ", ["file,"]),
        ("taskctl completion f", ["plain,fish"]),
    ],
)
def test_what_is_offered(tab: Tab, line: str, offered: list[str]) -> None:
    assert tab(line) == offered


def test_tokens_are_offered_where_one_is_removed(tab: Tab, daemon: Daemon) -> None:
    grant = daemon.add_token("ann", ["user"])

    assert f"plain,{grant.id}" in tab("taskctl token rm ")
    assert tab(f"taskctl token rm {grant.id} {grant.id[:3]}") == []


@pytest.mark.parametrize("line", ["taskctl show ", "taskctl start co", "taskctl start copy so", "taskctl call Ta"])
@pytest.mark.parametrize("shell", SHELLS)
def test_where_there_is_no_daemon_nothing_is_offered_and_nothing_said(
    shell: str, line: str, tab: Tab, tmp_path: Path
) -> None:
    nobody = str(tmp_path / "nobody")

    assert tab(line, shell, COMP_CWORD="2" if shell == "zsh" else "", TASKD_SOCKET=nobody) == []


def test_the_program_itself_is_what_the_shells_ask(taskctl: Taskctl) -> None:
    said = taskctl(_TASKCTL_COMPLETE="fish_complete", COMP_WORDS="taskctl operations cop", COMP_CWORD="cop")

    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("plain,copy\tCopy a disk image")


def test_the_daemon_that_the_line_names_is_asked(tab: Tab, process: DaemonProcess, tmp_path: Path) -> None:
    line = f"taskctl --socket {process.socket} start ex"

    assert tab(line, TASKD_SOCKET=str(tmp_path / "nobody")) == ["plain,external"]
