"""What taskctl prints, to the letter; ids, times and measures are masked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from rich.cells import cell_len

from taskd import cli
from taskd.cli import COMMANDS, asked, doctor, options, words
from taskd.cli import taskctl as taskctl_command
from taskd.cli.exits import MEANING, Exit
from taskd.cli.ls import fitted, squeezed
from taskd.cli.sentences import elsewhere, sentence
from taskd.cli.show import lines as page
from taskd.cli.top import plain
from taskd.client import Daemon, Record
from taskd.errors import FolderMissing, Refused, SourceMissing
from taskd.model import Failure, Residue, Time
from tests.cli.conftest import PROGRAM, Taskctl, ended, masked
from tests.process import PATIENCE, DaemonProcess


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon of its own with four tasks: what other tests leave is not seen here."""
    process = DaemonProcess(tmp_path_factory.mktemp("d"))
    process.start()
    with process.connect() as daemon:
        daemon.start("external", label="waits for \x1b[31mred\x1b[0m \u202etxt")
        failing = daemon.start("external", label="fails")
        daemon.call("Task.fail", id=failing.id, error={"code": "BROKEN", "message": "it\nbroke", "data": []})
        half = daemon.start("external", label="half way", description="done elsewhere")
        daemon.call("Task.update", id=half.id, progress={"done": 1 << 29, "total": 1 << 30, "unit": "bytes"})
        daemon.cancel(half.id)
        done = daemon.start("external", label="done")
        daemon.call("Task.complete", id=done.id, result={"bytes": 7})
    yield process
    process.end()


def test_ls_lists_the_newest_first_and_lets_no_control_character_through(few: DaemonProcess) -> None:
    said = Taskctl(few.socket)("ls")

    assert said.err == ""
    assert said.code == 0
    assert masked(said.out) == (
        "ID        STATE                   DONE   OPERATION  OWNER  CREATED           LABEL\n"
        "<-id8->  completed               100 %  external   root   <-time->--------  done\n"
        "<-id8->  running (cancel asked)  50 %   external   root   <-time->--------  half way\n"
        "<-id8->  failed                  0 %    external   root   <-time->--------  fails\n"
        "<-id8->  running                 0 %    external   root   <-time->--------  "
        "waits for \\x1b[31mred\\x1b[0m \\u202etxt\n"
    )


@pytest.mark.parametrize(
    ("filters", "labels"),
    [
        (["--state", "completed"], ["done"]),
        (["--state", "failed", "--state", "completed"], ["done", "fails"]),
        (["--operation", "copy"], []),
        (["--operation", "copy", "--operation", "external", "--state", "failed"], ["fails"]),
        (["--owner", "nobody"], []),
        (["--owner", "root", "--state", "failed", "--all"], ["fails"]),
        (["--label", "half way"], ["half way"]),
        (["--newer", "1h", "--state", "completed"], ["done"]),
        (["--older", "1h"], []),
        (["--since", "1000000000", "--state", "failed"], []),
        (["--limit", "2", "--order", "oldest"], ["waits for \x1b[31mred\x1b[0m \u202etxt", "fails"]),
        (["--state", "failed", "--state", "completed", "--order", "oldest"], ["fails", "done"]),
    ],
)
def test_ls_filters(few: DaemonProcess, filters: list[str], labels: list[str]) -> None:
    said = Taskctl(few.socket)("ls", "--json", *filters)

    assert said.code == 0
    assert [record["label"] for record in json.loads(said.out)] == labels


def test_ls_leaves_out_old_ended_tasks_and_says_so(taskctl: Taskctl, daemon: Daemon) -> None:
    waiting = daemon.start("external", label="still waits", owner="leaver").id
    for n in range(21):
        daemon.call("Task.complete", id=daemon.start("external", label=str(n), owner="leaver").id)

    some, everything = taskctl("ls", "--owner", "leaver"), taskctl("ls", "--owner", "leaver", "--all")

    assert len(some.out.splitlines()) == 1 + 20 + 1
    assert some.out.splitlines()[-1].startswith(waiting[:8])
    assert some.err == "taskctl: only the newest 20 that ended are listed; --all lists every one\n"
    assert len(everything.out.splitlines()) == 1 + 21 + 1
    assert everything.err == ""


def test_ls_has_the_columns_that_are_chosen_in_their_order(few: DaemonProcess) -> None:
    taskctl = Taskctl(few.socket)

    assert taskctl("ls", "--state", "failed", "--columns", "error,label, STATE,attempt").out == (
        "ERROR              LABEL  STATE   ATTEMPT\nBROKEN: it\\nbroke  fails  failed  1\n"
    )
    assert taskctl("ls", "--label", "half way", "--columns", "progress,done").out == (
        "PROGRESS              DONE\n512.0 MiB of 1.0 GiB  50 %\n"
    )
    wrong = taskctl("ls", "--columns", "id,colour")
    assert wrong.code == 2
    assert "there is no column 'colour'; there are: id, state, done, " in wrong.err


def test_ls_goes_on_page_by_page_and_says_where(few: DaemonProcess) -> None:
    taskctl, shown = Taskctl(few.socket), list[str]()
    more: list[str] = []
    while True:
        said = taskctl("ls", "--limit", "3", "--json", *more)
        shown += [record["label"] for record in json.loads(said.out)]
        if not said.err:
            break
        more = said.err.removeprefix("taskctl: there are more; ").split()[:2]
        assert more[0] == "--cursor"

    assert shown[:3] == ["done", "half way", "fails"]
    assert len(shown) == 4


def test_show_tells_all_that_is_known(few: DaemonProcess) -> None:
    with few.connect() as daemon:
        (record,) = daemon.list(label="half way")

    said = Taskctl(few.socket)("show", record.id[:8])

    assert masked(said.out) == (
        "id           <id>\n"
        "operation    external\n"
        "label        half way\n"
        "description  done elsewhere\n"
        "state        running (cancel asked)\n"
        "progress     50 %, 512.0 MiB of 1.0 GiB\n"
        "owner        root\n"
        "processor    root\n"
        "created      <-time->-----------\n"
        "started      <-time->-----------\n"
        "took         <time>\n"
        f"on host      {socket.gethostname()}\n"
    )


def test_show_of_a_failed_task_gives_code_and_sentence(few: DaemonProcess) -> None:
    with few.connect() as daemon:
        (record,) = daemon.list(label="fails")

    said = Taskctl(few.socket)("show", record.id)

    assert "error      BROKEN: it\\nbroke\n" in said.out


def test_show_ends_with_the_end_of_the_log(taskctl: Taskctl, daemon: Daemon) -> None:
    id = daemon.start("external", label="talks").id
    daemon.update(id, log=[f"line {n}\x1b" for n in range(12)])

    def end(*options: str) -> list[str]:
        return taskctl("show", id, *options).out.split(f"{socket.gethostname()}\n")[1].splitlines()

    assert end() == [
        "log (the last 10 of 12 lines; `taskctl log` has more):",
        *(f"  line {n}\\x1b" for n in range(2, 12)),
    ]
    assert end("-n", "12") == ["log:", *(f"  line {n}\\x1b" for n in range(12))]
    assert end("-n", "0") == []


def test_log_has_the_last_lines_where_they_are_asked_for(taskctl: Taskctl, daemon: Daemon) -> None:
    id = daemon.start("external").id
    daemon.update(id, log=["one", "two", "three"])
    daemon.complete(id)

    assert taskctl("log", id, "-n", "2").out == taskctl("log", id, "-n", "2", "-f").out == "two\nthree\n"
    assert taskctl("log", id, "-n", "7").out == "one\ntwo\nthree\n"
    assert [line["line"] for line in json.loads(taskctl("log", id, "-n", "1", "--json").out)["lines"]] == ["three"]
    assert json.loads(taskctl("log", id, "-n", "0", "--json").out) == {"lines": [], "next": 3}


def test_show_tells_what_a_queued_task_waits_for(taskctl: Taskctl, daemon: Daemon, image: Path) -> None:
    params = {"source": str(image), "target": f"{image}.copy", "rate_limit": 1000}
    first, second = (daemon.start("copy", params) for _ in range(2))
    while second.waits_for is None:
        second = daemon.wait(second.id, after_revision=second.revision)

    said = taskctl("show", second.id)

    for record in (first, second):
        daemon.cancel(record.id)
        daemon.wait(record.id)
    assert "state             queued\n" in said.out
    assert f"waits for         task {first.id}, which has the same target\n" in said.out


def test_operations_lists_params_and_marks_those_that_must_be_given(taskctl: Taskctl) -> None:
    said = taskctl("operations")

    assert "external: Track work that is done elsewhere and reported by its producer\n" in said.out
    assert "  source*     string           absolute path of a regular file or block device\n" in said.out
    assert "  overwrite   boolean = false  replace a target that exists" in said.out


def test_the_help_of_start_tells_the_params_of_the_operation_before_it(taskctl: Taskctl, tmp_path: Path) -> None:
    one, listed = taskctl("start", "external", "--help"), taskctl("operations", "external")

    assert (one.code, listed.code) == (0, 0)
    assert listed.out == (
        "external: Track work that is done elsewhere and reported by its producer\n"
        "  heartbeat_s  number  seconds of silence after which the task is lost (PRODUCER_LOST); null: never\n"
    )
    assert "  heartbeat_s  number  seconds of silence" in one.out
    assert "copy" not in one.out.split("Exit")[0].split("--json")[1]
    assert "there is no operation 'none'; there are: command, copy, external" in taskctl("start", "none", "-h").out
    assert "no taskd answers on" in Taskctl(str(tmp_path / "s"))("start", "copy", "--help").out


def test_call_prints_the_bare_result_of_any_method(taskctl: Taskctl, daemon: Daemon) -> None:
    id = daemon.start("external", label="called").id

    assert json.loads(taskctl("call", "Task.get", json.dumps({"id": id})).out) == daemon.get(id).raw
    assert json.loads(taskctl("call", "Operation.ls").out) == daemon.call("Operation.ls")
    assert taskctl("call", "Task.cancel", json.dumps({"id": id})).out == "null\n"


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["Task.none"], 4, "taskctl: there is no method Task.none\n"),
        (["Task.get"], 4, "taskctl: id: required, but missing\n"),
        (["Task.start", '{"operation": "copy", "params": 5}'], 4, "taskctl: params: expected an object, got 5\n"),
        (["Task.get", '{"id": "x"}'], 4, "taskctl: there is no task x\n"),
        (["Task.get", "[]"], 2, """Error: the params are no JSON object such as '{"id": "…"}'\n"""),
        (["Task.get", "{"], 2, "double quotes: line 1 column 2 (char 1)\n"),
        (
            ["Task.wait", '{"timeout_s": NaN}'],
            2,
            "Error: the params are no JSON: NaN is no number that JSON can say\n",
        ),
    ],
)
def test_a_call_that_cannot_be_made_is_a_sentence(
    taskctl: Taskctl, args: list[str], code: int, sentence: str
) -> None:
    said = taskctl("call", *args)

    assert (said.code, said.out) == (code, "")
    assert said.err.endswith(sentence)


@pytest.mark.parametrize("text", ["0", "0.9", "-1", "9" * 400, "9999999999T", "1e3", "K", ""])
def test_what_is_no_size_or_more_than_any_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size such as 500000, 64K, 10M or"):
        options.size(text)


def test_call_reads_the_params_from_stdin_whatever_that_is(taskctl: Taskctl, tmp_path: Path) -> None:
    """The sentence says what is wrong with it; in each locale it is UTF-8."""
    (tmp_path / "params").write_bytes(b"{}")
    (tmp_path / "latin").write_bytes(b'{"id": "\xe9"}')

    def call(name: str, mode: str) -> tuple[int, str]:
        with open(tmp_path / name, mode) as stdin:
            done = subprocess.run(
                [*PROGRAM, "call", "Operation.ls", "-"],
                env=taskctl.environment(),
                stdin=stdin,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
        return done.returncode, done.stderr.decode().rpartition("Error: ")[2]

    assert call("params", "rb") == (0, "")
    assert call("latin", "rb") == (
        2,
        "the params are no JSON: 'utf-8' codec can't decode byte 0xe9 in position 8: invalid continuation byte\n",
    )
    assert call("params", "ab") == (2, "stdin cannot be read: Bad file descriptor\n")


def test_what_goes_wrong_with_a_file_is_not_told_of_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That would be false; an error that no command has foreseen is told as it is."""

    def broken() -> None:
        os.stat("/none")

    monkeypatch.setattr(doctor.command, "callback", broken)
    monkeypatch.setattr(doctor.command, "params", [])
    monkeypatch.setattr("sys.argv", ["taskctl", "doctor"])
    with pytest.raises(FileNotFoundError):
        cli.obey()
    assert capsys.readouterr().err == ""


ID = "5b1ad8c2-4d0c-4a5a-9c1e-2f6f0a7c9b11"


@pytest.mark.parametrize(
    "args",
    [
        ["show", ID],
        ["show", "5b"],
        ["log", ID],
        ["cancel", ID],
        ["destroy", ID],
        ["wait", "5b"],
        ["operations"],
        ["start", "copy"],
        ["run", "--no-wait", "true"],
        ["call", "Task.ls"],
        ["token", "ls"],
        ["token", "add", "--user", "ann", "--role", "user"],
        ["token", "rm", "1"],
        ["top", "--once"],
    ],
    ids=" ".join,
)
def test_a_daemon_that_is_stuck_is_none_after_a_while(
    tmp_path: Path, args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever typed a command, or a script, waited for ever and was told nothing."""
    for place in (asked, plain):
        monkeypatch.setattr(place, "PATIENCE_S", 0.05)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(path)
        deaf.listen()
        code = taskctl_command.main(["--socket", path, *args], standalone_mode=False)

    said = capsys.readouterr()
    assert (code, said.out) == (Exit.NO_DAEMON, "")
    assert said.err.endswith(f"taskctl: no taskd answers on {path}: no reply within 0.05 seconds\n")


def test_what_is_here_and_not_there_is_not_said_to_be_nowhere(tmp_path: Path) -> None:
    """The unit has no homes and a /tmp of its own."""
    here, none = str(tmp_path), str(tmp_path / "none")

    for missing in (SourceMissing, FolderMissing):
        said = sentence(Refused(missing.name, "as it is", (here,)))
        assert said.startswith(
            f"{here} does not exist for the daemon, though it does here: its unit sees no homes, "
        )
        assert sentence(Refused(missing.name, "as it is", ("/etc",))) == (
            "/etc does not exist for the daemon, though it does here"
        )
        assert sentence(Refused(missing.name, "as it is", (none,))) == "as it is"


def test_every_json_is_one_document_with_the_records_of_the_daemon(
    taskctl: Taskctl, daemon: Daemon, external: Callable[..., Record], image: Path
) -> None:
    def parsed(*args: str) -> object:
        said = taskctl(*args, "--json")
        assert said.err == ""
        assert said.code == 0
        return json.loads(said.out)

    copied = parsed("copy", str(image), f"{image}.copy")
    assert isinstance(copied, dict)
    id = copied["id"]
    assert copied == daemon.get(id).raw == parsed("show", id)
    assert [copied] == parsed("wait", id)
    assert parsed("operations") == daemon.call("Operation.ls")
    waiting = external("json").id
    daemon.call("Task.update", id=waiting, log=["one", "two \x1b"])
    assert parsed("log", waiting) == {**_log(daemon, waiting), "next": 2}
    assert parsed("cancel", waiting) == [daemon.get(waiting).raw]
    assert parsed("destroy", id) == [id]


def _log(daemon: Daemon, id: str) -> dict[str, object]:
    page = daemon.call("Task.log", id=id)
    assert isinstance(page, dict)
    return page


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["show", "x"], 4, "there is no task x"),
        (["copy", "/\x1b[2J", "/x"], 4, "/\\x1b[2J does not exist"),
        (
            ["show", "00000000-0000-0000-0000-000000000000"],
            4,
            "there is no task 00000000-0000-0000-0000-000000000000",
        ),
        (["copy", "/etc/nothing", "/etc/nowhere"], 4, "/etc/nothing does not exist"),
        (["copy", "/etc/passwd", "/etc/passwd-"], 4, "/etc/passwd- exists; --overwrite replaces it"),
        (
            ["start", "copy", "source=/etc/passwd", "target=/etc/passwd-"],
            4,
            "/etc/passwd- exists; with overwrite=true it is replaced",
        ),
        (["copy", "/etc/passwd", "/x/"], 4, "TARGET: must name a file, and not end in '/'"),
        (
            ["start", "copy", "source=passwd", "target=5"],
            4,
            "source: must be an absolute path",
        ),
        (
            ["start", "copy", "colour=red"],
            2,
            "source: required, but missing; target: required, but missing; colour: there is no such param; there "
            "are: source, target, overwrite, blocks, rate_limit, verify (`taskctl operations copy` tells more)",
        ),
        (
            [
                "start",
                "copy",
                "source=/x",
                "target=/y",
                "rate_limit=10M",
                "overwrite=1",
                'blocks={"ranges": [[0, "1"]]}',
            ],
            2,
            'rate_limit: expected an integer, got "10M"; overwrite: expected true or false, got 1; '
            'blocks.blocksize: required, but missing; blocks.ranges[0][1]: expected an integer, got "1" '
            "(`taskctl operations copy` tells more)",
        ),
        (["start", "external", "--deadline", "0"], 4, "--deadline: must be more than 0 seconds"),
        (
            ["start", "nothing"],
            2,
            "OPERATION: there is no operation 'nothing'; there are: command, copy, external",
        ),
        (
            ["operations", "nothing"],
            2,
            "NAME: there is no operation 'nothing'; there are: command, copy, external",
        ),
        (["run", "--cwd", "/etc/passwd", "--", "true"], 4, "/etc/passwd is no folder that exists"),
        (["ls", "--owner", "\udcff"], 2, "params: JSON cannot say it: surrogates not allowed"),
        (
            ["copy", "/etc/pass\udcffwd", "/x"],
            2,
            "params: JSON cannot say it: str is not valid UTF-8: surrogates not allowed",
        ),
    ],
)
def test_a_refusal_is_a_sentence(taskctl: Taskctl, args: list[str], code: int, sentence: str) -> None:
    said = taskctl(*args)

    assert (said.code, said.out, said.err) == (code, "", f"taskctl: {sentence}\n")


UNDO = Residue("unlink", {"path": "/x\x1b"}, "it is \nbusy")


@pytest.mark.parametrize(
    ("state", "error", "residue", "shown", "lines"),
    [
        (
            "failed",
            "UNDO_FAILED",
            (UNDO,),
            "failed (residue)",
            [
                "left behind:",
                "  1. unlink path=/x\\x1b: it is \\nbusy",
                "`taskctl recover <id>` tries to undo it again",
            ],
        ),
        (
            "committed",
            None,
            (UNDO,),
            "committed (not finished)",
            [
                "still to be done after the commit; tried again by itself:",
                "  1. unlink path=/x\\x1b: it is \\nbusy",
                "`taskctl recover <id>` tries it at once",
            ],
        ),
        ("failed", "UNDO_FAILED", (), "failed", ["nothing is owed any more: it has been undone since"]),
        ("failed", "OTHER", (), "failed", []),
        ("committed", None, (), "committed", []),
    ],
)
def test_what_a_task_owes_is_told_with_its_state(
    state: str, error: str | None, residue: tuple[Residue, ...], shown: str, lines: list[str]
) -> None:
    record = Record(
        "<id>",
        1,
        "copy",
        state,
        Time(0.0),
        residue=residue,
        error=None if error is None else Failure(error, ""),
        finished_at=Time(1.0) if state == "failed" else None,
    )

    assert words.state(record) == shown
    assert words.residue(record) == lines
    assert [*page(record)][-len(lines) or len([*page(record)]) :] == lines


@pytest.mark.parametrize(
    ("result", "summary"),
    [
        ({"bytes": 1 << 30}, "x: completed, 1.0 GiB in 4.0 s (256.0 MiB/s)"),
        ({"bytes": 1 << 30, "source_bytes": 1 << 20}, "x: completed, 1.0 MiB in 4.0 s (256.0 KiB/s)"),
        ({"bytes": "?"}, "x: completed in 4.0 s"),
        (None, "x: completed in 4.0 s"),
    ],
)
def test_a_summary_counts_the_bytes_that_were_gone_through(result: object, summary: str) -> None:
    record = Record(
        "x", 1, "x", "completed", Time(0.0), result=result, started_at=Time(1.0), finished_at=Time(5.0)
    )

    assert words.ending(record) == summary


def test_a_listing_that_is_too_wide_gives_up_the_middle_of_labels_and_then_columns() -> None:
    rows = [
        ("ID", "STATE", "DONE", "OPERATION", "LABEL"),
        ("1234", "running", "50 %", "copy", "copy /from to /to"),
    ]

    def at(width: int | None) -> list[str]:
        return words.columns(fitted(rows, width))

    assert (
        at(None)
        == at(50)
        == ["ID    STATE    DONE  OPERATION  LABEL", "1234  running  50 %  copy       copy /from to /to"]
    )
    assert at(48) == ["ID    STATE    DONE  OPERATION  LABEL", "1234  running  50 %  copy       copy /f…m to /to"]
    assert at(47) == ["ID    STATE    DONE  LABEL", "1234  running  50 %  copy /from to /to"]
    assert at(37) == ["ID    STATE    DONE  LABEL", "1234  running  50 %  copy /f…m to /to"]
    assert at(36) == at(1) == ["ID    STATE    DONE", "1234  running  50 %"]


@pytest.mark.parametrize("width", range(20))
def test_the_middle_of_a_text_gives_way(width: int) -> None:
    text = "abcdefghijklm"

    short = words.middle(text, width)

    assert len(short) == min(width, len(text))
    start, dots, end = short.partition("…")
    assert text.startswith(start)
    assert text.endswith(end)
    assert bool(dots) == (0 < width < len(text))


@pytest.mark.parametrize("width", range(16))
def test_a_text_of_wide_characters_fits_into_cells(width: int) -> None:
    text = "備份 of ne\u0301 虛擬機"  # the accent stands on the e

    short = words.middle(text, width)

    assert cell_len(short) == words.cells(short)
    assert max(0, width - 2) <= words.cells(short) <= width
    start, _, end = short.partition("…")
    assert text.startswith(start)
    assert text.endswith(end)
    assert words.middle(text, words.cells(text)) == text


def test_columns_stay_below_each_other_whatever_is_in_them() -> None:
    assert words.columns([["機", "x"], ["long", "y"]]) == ["機    x", "long  y"]


def test_a_start_of_several_ids_names_the_candidates(taskctl: Taskctl, daemon: Daemon) -> None:
    while len(twins := _same_start(daemon)) < 2:
        daemon.start("external")

    said = taskctl("show", twins[0][0])

    assert said.code == 4
    assert said.err.startswith(f"taskctl: {twins[0][0]} may be {twins[0]}, ")
    assert twins[1] in said.err
    assert taskctl("show", "--json", twins[0][:8].upper()).code == 0


def _same_start(daemon: Daemon) -> list[str]:
    by_start: dict[str, list[str]] = {}
    for id in daemon.ids():
        by_start.setdefault(id[0], []).append(id)
    return max(by_start.values(), key=len, default=[])


def test_no_daemon_is_a_sentence(tmp_path: Path) -> None:
    nowhere = tmp_path / "s"

    for command in (["ls"], ["show", "x"], ["copy", "a", "b"], ["run", "true"], ["wait", "x"], ["cancel", "x"]):
        said = Taskctl(str(nowhere))(*command)

        assert (said.code, said.out) == (5, "")
        assert said.err == f"taskctl: no taskd answers on {nowhere}: No such file or directory\n"


def test_whose_own_daemon_is_not_there_is_told_of_roots(tmp_path: Path) -> None:
    own, root = str(tmp_path / "own"), str(tmp_path / "root")

    assert elsewhere(own, own, root) == ""
    Path(root).touch()
    assert elsewhere(own, own, root) == f"; there is {root}, which --socket or TASKD_SOCKET would name"
    assert elsewhere("/named", own, root) == elsewhere(root, root, root) == ""


def test_what_speaks_otherwise_on_the_socket_is_no_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        process = Taskctl(str(tmp_path / "s")).start("ls")
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"220 mail.example ESMTP\r\n")
            said = ended(process)

    assert said.code == 5
    assert said.err.startswith(f"taskctl: no taskd answers on {tmp_path}/s: ")
    assert len(said.err.splitlines()) == 1


def test_a_reader_that_went_ends_it_quietly(taskctl: Taskctl) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [*PROGRAM, "operations"],
            env=taskctl.environment(),
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )

    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        ("ls > /dev/full", 6, "taskctl: the output cannot be written: No space left on device\n"),
        ("ls >&-", 6, "taskctl: the output cannot be written: it is closed\n"),
        ("--help > /dev/full", 6, "taskctl: the output cannot be written: No space left on device\n"),
        ("run -- echo said > /dev/full", 6, "taskctl: the output cannot be written: No space left on device\n"),
        ("copy /etc/passwd $COPY --json >&-", 6, "taskctl: the output cannot be written: it is closed\n"),
        ("show x 2> /dev/full", 4, ""),
        ("show x 2>&-", 4, ""),
        ("show 2> /dev/full", 2, ""),
    ],
)
def test_an_output_that_cannot_be_written_is_one_sentence(
    taskctl: Taskctl, tmp_path: Path, command: str, code: int, sentence: str
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$PYTHON" -c "$MAIN" {command}'],
        env=taskctl.environment(PYTHON=PROGRAM[0], MAIN=PROGRAM[2], COPY=str(tmp_path / "copy")),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    said = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("taskctl: left task ")]
    assert (done.returncode, done.stdout, "".join(said)) == (code, "", sentence)


def test_an_empty_socket_in_the_environment_is_none_and_an_empty_option_is_wrong(few: DaemonProcess) -> None:
    empty = Taskctl(few.socket)("--socket", few.socket, "show", "x", TASKD_SOCKET="")
    assert (empty.code, empty.err) == (4, "taskctl: there is no task x\n")

    wrong = Taskctl(few.socket)("--socket", "", "ls")
    assert wrong.code == 2
    assert wrong.err.endswith("Error: Invalid value for '--socket': it is empty\n")
    assert Taskctl("")("ls").err.startswith("taskctl: no taskd answers on /")


def test_a_reader_that_went_does_not_stop_the_task(taskctl: Taskctl, daemon: Daemon, tmp_path: Path) -> None:
    for name in ("gone", "on"):
        os.mkfifo(tmp_path / name)
    script = 'read line <"$0/gone"; echo said; read line <"$0/on"'
    process = taskctl.start("run", "--label", "unread", "--", "sh", "-c", script, str(tmp_path))
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    (tmp_path / "gone").write_text("go on\n")

    assert ended(process).code == 141
    (task,) = daemon.list(label="unread")
    assert task.state == "running"
    (tmp_path / "on").write_text("go on\n")
    assert daemon.wait(task.id).state == "completed"


def test_a_locale_without_the_characters_gets_escapes(taskctl: Taskctl, external: Callable[..., Record]) -> None:
    id = external("größe").id

    assert "label      gr\\xf6\\xdfe\n" in taskctl("show", id, PYTHONIOENCODING="ascii").out
    assert "label      größe\n" in taskctl("show", id).out


def test_every_command_has_help_and_the_exit_codes_are_in_it(taskctl: Taskctl) -> None:
    said = taskctl("--help")

    for exit, meaning in MEANING.items():
        assert f"{exit.value:4}  {meaning}\n" in said.out
    commands = said.out.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in commands] == [*COMMANDS]
    root = click.Context(taskctl_command, info_name="taskctl")
    for name in COMMANDS:
        command = taskctl_command.get_command(root, name)
        assert command is not None
        assert command.help
        with click.Context(command, root, info_name=name) as context:
            assert command.get_help(context).startswith(f"Usage: taskctl {name} ")
    for name in ("add", "ls", "rm"):
        assert f"  {name} " in taskctl("token", "--help").out
        assert taskctl("token", name, "--help").code == 0


@pytest.mark.parametrize(
    ("command", "without"),
    [
        (["ls", "--all"], {"attr", "attrs", "cattrs", "orjson", "taskd.client", "taskd.errors", "trio", "rich"}),
        (["operations"], {"trio", "rich"}),
    ],
)
def test_a_command_loads_nothing_that_it_can_do_without(
    taskctl: Taskctl, command: list[str], without: set[str]
) -> None:
    script = (
        f"import sys; from taskd import cli; sys.argv = ['taskctl', *{command}]; code = cli.obey();"
        f"sys.exit(code or ' '.join({without} & set(sys.modules)) or None)"
    )

    done = subprocess.run(
        [PROGRAM[0], "-c", script],
        env=taskctl.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_chosen_columns_all_stay_and_the_widest_give_way() -> None:
    rows = [["ID", "WAITS", "LABEL"], ["1234", "task 5678, which has the same target", "copy /from to /to"]]

    assert squeezed(rows, None) == rows
    assert squeezed(rows, 45) == [rows[0], ["1234", "task 5678…ame target", "copy /from to /to"]]
    assert [max(map(len, column)) for column in zip(*squeezed(rows, 10), strict=True)] == [4, 16, 16]


def test_a_page_about_a_task_is_wrapped_beside_its_names() -> None:
    record = Record("<id>", 1, "copy", "queued", Time(0.0), waits_for="task 1-2-3, which has the same target")

    assert [line for line in page(record, 30) if "wait" in line or line.startswith(" ")] == [
        "waits for  task 1-2-3, which",
        "           has the same target",
    ]
