"""PyPI's ``xenapi``, as it is, over the Unix socket: what a script for XenServer does with a task."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import XenAPI

from tests.process import DaemonProcess


@contextmanager
def session(daemon: DaemonProcess) -> Iterator[Any]:
    """Logged in, the way that its ``xapi_local`` does it for xapi's own socket."""
    opened = XenAPI.Session(f"http://{daemon.socket.replace('/', '_')}/", transport=XenAPI.UDSTransport())
    try:
        opened.login_with_password("root", "any password", "1.0", "tests")
        yield opened
    finally:
        opened("close")()


def test_a_script_makes_a_task_reports_on_it_and_ends_it(daemon: DaemonProcess) -> None:
    with session(daemon) as opened:
        task = opened.xenapi.task
        ref = task.create("a label", "größe & <more>")
        assert task.set_progress(ref, 0.25) == ""
        one = task.get_record(ref)
        assert (one["status"], one["progress"], one["name_description"]) == ("pending", 0.25, "größe & <more>")
        assert (str(one["finished"]), one["subtask_of"]) == ("19700101T00:00:00Z", "OpaqueRef:NULL")
        assert type(one["created"]).__name__ == "DateTime"
        task.set_other_config(ref, {"applies_to": "sr"})
        assert task.get_other_config(ref)["applies_to"] == "sr"
        assert task.get_by_name_label("a label") == [ref]
        task.set_result(ref, "<value>OpaqueRef:made</value>")
        task.set_status(ref, "success")

        assert task.get_all_records()[ref] == task.get_record(ref)
        assert (task.get_status(ref), task.get_progress(ref)) == ("success", 1.0)
        assert task.get_result(ref) == "<value>OpaqueRef:made</value>"
        task.destroy(ref)
        with pytest.raises(XenAPI.Failure) as caught:
            task.get_record(ref)
        assert caught.value.details == ["HANDLE_INVALID", "task", ref]
        opened.xenapi.session.logout()


def test_a_script_waits_for_a_task_and_cancels_it(daemon: DaemonProcess) -> None:
    with session(daemon) as opened, session(daemon) as other:
        ref = opened.xenapi.task.create("watched", "")
        first = opened.xenapi.event_from([f"task/{ref}"], "", 30.0)
        assert [(each["operation"], each["ref"]) for each in first["events"]] == [("add", ref)]
        assert first["valid_ref_counts"] == {"task": 1}

        cancelling = threading.Timer(0.2, other.xenapi.task.cancel, [ref])
        cancelling.start()
        asked = opened.xenapi.event_from(["task"], first["token"], 30.0)
        cancelling.join()
        (event,) = asked["events"]
        assert event["operation"] == "mod"
        assert [*event["snapshot"]["current_operations"].values()] == ["cancel"]

        opened.xenapi.task.set_status(ref, "cancelled")
        last = opened.xenapi.event_from(["task"], asked["token"], 30.0)
        assert last["events"][0]["snapshot"]["status"] == "cancelled"
        assert opened.xenapi.event_from(["task"], last["token"], 0.0)["events"] == []


def test_a_script_watches_a_copy_that_it_did_not_start(daemon: DaemonProcess) -> None:
    source, target = daemon.folder / "source", daemon.folder / "target"
    source.write_bytes(b"new" * 100_000)
    with session(daemon) as opened, daemon.connect() as native:
        id = native.start("copy", {"source": str(source), "target": str(target), "rate_limit": 1000}).id
        ref = opened.xenapi.task.get_by_uuid(id)
        assert opened.xenapi.task.get_allowed_operations(ref) == ["cancel"]
        opened.xenapi.task.cancel(ref)
        native.wait(id)

        assert opened.xenapi.task.get_status(ref) == "cancelled"
        assert opened.xenapi.task.get_error_info(ref) == ["TASK_CANCELLED", ref]
        assert not target.exists()

        done = native.copy(str(source), str(target))
        result = opened.xenapi.task.get_result(f"OpaqueRef:{native.wait(done.id).id}")
        assert result.startswith("<value><struct><member>")


def test_the_client_logs_in_again_after_a_restart_and_finds_its_task(daemon: DaemonProcess) -> None:
    with session(daemon) as opened:
        ref = opened.xenapi.task.create("survivor", "")
        opened.xenapi.task.add_to_other_config(ref, "k", "v")
        before = opened.xenapi.task.get_record(ref)
        old = opened.handle
        daemon.kill()
        daemon.start()
        opened("close")()  # the connection is dead; its session is, too, and the client need not know

        assert opened.xenapi.task.get_record(ref) == before
        assert opened.handle != old


def test_the_client_learns_that_there_is_one_host(daemon: DaemonProcess) -> None:
    with session(daemon) as opened:
        assert opened.API_version == "2.21"
        (pool,) = opened.xenapi.pool.get_all()
        assert opened.xenapi.pool.get_master(pool) == opened.xenapi.host.get_all()[0]
        assert "task.create" in opened.system.listMethods()


def test_what_is_wrong_is_a_failure_with_xapis_code(daemon: DaemonProcess) -> None:
    with session(daemon) as opened:
        xenapi = opened.xenapi
        count = "MESSAGE_PARAMETER_COUNT_MISMATCH"
        wrong: list[tuple[Any, list[Any], list[str]]] = [
            (xenapi.VM.start, ["x"], ["MESSAGE_METHOD_UNKNOWN", "VM.start"]),
            (xenapi.task.create, ["x"], [count, "task.create", "2", "1"]),
            (xenapi.event_from, [["*"], "x", 1.0], ["EVENT_FROM_TOKEN_PARSE_FAILURE", "x"]),
        ]
        for call, args, details in wrong:
            with pytest.raises(XenAPI.Failure) as caught:
                call(*args)
            assert caught.value.details == details
