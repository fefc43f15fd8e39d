"""The sans-IO part of the clients: replies find their calls, errors become sentences, records are read kindly."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from taskd.client import Notification, Refused, verbs
from taskd.client.conversation import GIVEN_UP, Conversation
from taskd.client.record import Record, page, record
from taskd.dialects import native
from taskd.errors import BadParams, WireError
from taskd.model import Task


def reply(id: object, **outcome: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, **outcome}).encode() + b"\n"


def test_replies_find_their_calls_in_any_order_and_any_cut() -> None:
    conversation = Conversation()
    (first, asked), (second, _) = conversation.call(verbs.get("a")), conversation.call(verbs.get("b"))

    for byte in reply(second, result=None) + reply(first, result={"x": 1}):
        conversation.receive(bytes([byte]))

    assert json.loads(asked) == {"jsonrpc": "2.0", "method": "Task.get", "params": {"id": "a"}, "id": first}
    assert conversation.take(first) == {"x": 1}
    assert conversation.take(second) is None
    assert repr(conversation) == "<Conversation 0 in flight>"


def test_a_reply_that_nobody_waits_for_is_dropped() -> None:
    conversation = Conversation()
    given_up, _ = conversation.call(verbs.ids())
    conversation.forget(given_up)
    waited_for, _ = conversation.call(verbs.ids())

    conversation.receive(reply(given_up, result=["old"]) + reply(waited_for, result=["new"]))

    assert conversation.take(waited_for) == ["new"]
    assert repr(conversation) == "<Conversation 0 in flight>"


def test_beside_many_long_calls_that_were_given_up_no_more_is_made_before_one_is_answered() -> None:
    conversation = Conversation()
    long, quick = verbs.wait("a"), verbs.get("a")
    for _ in range(100):
        conversation.call(long)
    given_up = [conversation.call(long)[0] for _ in range(GIVEN_UP)]
    for each in given_up:
        assert conversation.room(long)
        conversation.forget(each)

    assert not conversation.room(long)
    assert not conversation.room(verbs.recover("a"))
    assert conversation.room(quick)
    conversation.receive(reply(given_up[7], result={}))
    assert conversation.room(long)


def test_notifications_are_kept_in_order() -> None:
    conversation = Conversation()

    conversation.receive(b'{"jsonrpc":"2.0","method":"Task.event","params":{"n":1}}{"method":"Task.event"}')

    assert [*conversation.notifications] == [
        Notification("Task.event", {"n": 1}),
        Notification("Task.event", None),
    ]


REFUSED = reply(None, error={"code": -32600, "message": "a message is longer than 5 bytes"})


def test_a_message_that_is_refused_is_the_longest_that_is_not_answered() -> None:
    conversation = Conversation()
    answered, first, long, last = (conversation.call(verbs.get("x" * n))[0] for n in (9, 1, 8, 2))

    with pytest.raises(WireError, match="ended with a message that was refused: a message is longer"):
        conversation.receive(reply(answered, result=1) + REFUSED)

    assert conversation.take(answered) == 1
    with pytest.raises(Refused, match=r"^a message is longer than 5 bytes$"):
        conversation.take(long)
    assert not conversation.has_reply(first)
    assert not conversation.has_reply(last)


def test_where_nobody_waits_for_what_is_refused_no_other_is_told_that_it_was() -> None:
    conversation = Conversation()
    given_up, waited_for = (conversation.call(verbs.get("x" * n))[0] for n in (8, 1))
    conversation.forget(given_up)

    with pytest.raises(WireError):
        conversation.receive(REFUSED)

    assert not conversation.has_reply(waited_for)


@pytest.mark.parametrize("said", [b"220 mail\n", b"[]\n", b'{"id": "x", "result": 1}\n', b'{"id": 1}\n'])
def test_what_is_no_reply_ends_the_conversation(said: bytes) -> None:
    conversation = Conversation()
    conversation.call(verbs.ids())

    with pytest.raises(WireError):
        conversation.receive(said)


def test_params_that_json_cannot_say_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(BadParams, match="surrogates"):
        Conversation().call(verbs.get("\udcff"))


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (
            {"code": 1, "message": "Does_not_exist", "data": ["task", "x"]},
            Refused("Does_not_exist", "there is no task x", ("task", "x")),
        ),
        (
            {"code": 1, "message": "Brand_new", "data": ["a", 1]},
            Refused("Brand_new", "Brand_new: a, 1", ("a", "1")),
        ),
        (
            {"code": 1, "message": "Target_exists", "data": ["a", "more than we know"]},
            Refused("Target_exists", "Target_exists: a, more than we know", ("a", "more than we know")),
        ),
        (
            {"code": -32601, "message": "Method not found", "data": ["Task.foo"]},
            Refused("Unimplemented", "there is no method Task.foo", ("Task.foo",)),
        ),
        (
            {"code": -32602, "message": "params.x: is wrong", "data": ["params.x", "is wrong"]},
            Refused("Bad_params", "params.x: is wrong", ("params.x", "is wrong")),
        ),
        ({"code": -32700, "message": "no JSON"}, Refused("Parse_error", "no JSON")),
        ({"code": -32001, "message": "what?", "data": "x"}, Refused("-32001", "what?", ("x",))),
        ("strange", Refused("Internal_error", "strange")),
    ],
)
def test_an_error_reply_is_a_sentence(error: object, refused: Refused) -> None:
    conversation = Conversation()
    id, _ = conversation.call(verbs.ids())
    conversation.receive(reply(id, error=error))

    with pytest.raises(Refused) as caught:
        conversation.take(id)

    assert (caught.value.error, str(caught.value), caught.value.details) == (
        refused.error,
        refused.text,
        refused.details,
    )


# Records.


RAW: dict[str, Any] = {
    "id": "x",
    "revision": 7,
    "operation": "copy",
    "state": "dreaming",
    "created_at": "2026-11-23T17:29:24.123Z",
    "progress": {"done": 1, "total": 2, "phase": "new"},
    "error": {"code": "C", "message": "m", "data": [], "hint": "new"},
    "residue": [{"verb": "v", "args": {"a": 1}, "reason": "r", "since": "new"}],
    "colour": "new",
}


def test_a_newer_daemon_may_say_more_than_a_client_knows() -> None:
    known = record(RAW)

    assert known.state == "dreaming"
    assert not known.ended
    assert (known.progress.done, known.progress.total) == (1, 2)
    assert known.error is not None
    assert known.residue[0].reason == "r"
    assert known.raw == RAW
    assert page({"tasks": [RAW], "next_cursor": "5", "total": 1}).tasks == (known,)


def test_what_is_no_record_is_refused_with_the_place() -> None:
    with pytest.raises(BadParams, match=r"reply\.revision"):
        record({**RAW, "revision": "seven"})
    with pytest.raises(BadParams, match="reply"):
        record(["no record"])


def test_a_record_has_every_public_field_of_a_task() -> None:
    public = {field.name for field in attrs.fields(Task)} - set(native.PRIVATE)

    assert {field.name for field in attrs.fields(Record)} - {"raw"} == public
