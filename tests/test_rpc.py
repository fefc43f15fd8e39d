"""The envelope: what each request is answered with, in both versions, and that nothing from inside gets out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import attrs
import orjson
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from jsonrpcserver.async_dispatcher import dispatch_request
from jsonrpcserver.dispatcher import create_request, not_notification
from jsonrpcserver.methods import global_methods
from jsonrpcserver.result import Success
from jsonrpcserver.sentinels import NOID
from oslash.either import Left

from taskd import rpc
from taskd.errors import (
    BadParams,
    DoesNotExist,
    InternalError,
    InvalidRequest,
    ParseError,
    UnknownMethod,
    XenApiError,
)

Json = object


async def echo(_context: object, /, **params: Json) -> Json:
    return params


async def whoami(context: object, /) -> Json:
    return context


async def refuse_id(_context: object, /, id: str) -> Json:
    raise DoesNotExist("task", id)


async def misread(_context: object, /, **_params: Json) -> Json:
    raise BadParams("params.source", "required, but missing")


async def mirror(_context: object, /, **_params: Json) -> Json:
    raise UnknownMethod("Data.mirror")


async def break_down(_context: object, /, **_params: Json) -> Json:
    raise RuntimeError("/var/lib/secret")


async def break_down_in_task(_context: object, /) -> Json:
    raise InternalError("t1")


METHODS: rpc.Methods = {
    "echo": echo,
    "whoami": whoami,
    "refuse": refuse_id,
    "misread": misread,
    "mirror": mirror,
    "break": break_down,
    "break.task": break_down_in_task,
}


async def ask(message: Json, max_batch: int = 100, methods: rpc.Methods = METHODS) -> Json:
    return await rpc.answer(message, methods, "alice", max_batch=max_batch)


def v2(method: Json = "echo", id: Json = 1, **members: Json) -> dict[str, Json]:
    return {"jsonrpc": "2.0", "method": method, "id": id, **members}


def v1(method: Json = "echo", id: Json = 1, **members: Json) -> dict[str, Json]:
    return {"method": method, "id": id, **members}


def result(value: Json, id: Json = 1) -> dict[str, Json]:
    return {"jsonrpc": "2.0", "result": value, "id": id}


def error(code: int, message: str, *data: Json, id: Json = 1) -> dict[str, Json]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message, "data": list(data)}, "id": id}


def bare(code: int, message: str, id: Json = None) -> dict[str, Json]:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": id}


def result_v1(value: Json, id: Json = 1) -> dict[str, Json]:
    return {"result": value, "error": None, "id": id}


def error_v1(*error: Json, id: Json = 1) -> dict[str, Json]:
    return {"result": None, "error": list(error), "id": id}


ONE_OBJECT = "expected an object, or a list of exactly one object"


@pytest.mark.parametrize("params", [{}, {"params": None}, {"params": []}, {"params": {}}, {"params": [{}]}])
async def test_params_that_are_not_there_are_no_params(params: dict[str, Json]) -> None:
    assert await ask(v2(**params)) == result({})
    assert await ask(v1(**params)) == result_v1({})


@pytest.mark.parametrize("params", [{"dbg": "x"}, [{"dbg": "x"}]])
async def test_params_are_an_object_or_a_list_of_one_in_both_versions(params: Json) -> None:
    assert await ask(v2(params=params)) == result({"dbg": "x"})
    assert await ask(v1(params=params)) == result_v1({"dbg": "x"})


async def test_a_method_is_given_the_context() -> None:
    assert await ask(v2("whoami")) == result("alice")


@pytest.mark.parametrize("id", [0, 7, -1, 2**64 - 1, "", "seven", "\u00e9"])
async def test_an_id_is_echoed_as_it_came(id: Json) -> None:
    assert await ask(v2(id=id)) == result({}, id)
    assert await ask(v1(id=id)) == result_v1({}, id)
    assert await ask(v2("none", id)) == error(-32601, "Method not found", "none", id=id)
    assert await ask(v2(5, id)) == bare(-32600, "method must be a string", id)
    assert await ask(v1(5, id)) == error_v1("Invalid_request", "method must be a string", id=id)


async def test_a_null_id_is_answered_in_version_2_and_a_notification_in_version_1() -> None:
    assert await ask(v2(id=None)) == result({}, None)
    assert await ask(v1(id=None)) is None


@pytest.mark.parametrize(
    ("method", "params", "in_v2", "in_v1"),
    [
        (
            "Task.foo",
            {},
            error(-32601, "Method not found", "Task.foo"),
            error_v1("Unimplemented", "Task.foo"),
        ),
        ("mirror", {}, error(-32601, "Method not found", "Data.mirror"), error_v1("Unimplemented", "Data.mirror")),
        (
            "misread",
            {},
            error(
                -32602,
                "params.source: required, but missing",
                "params.source",
                "required, but missing",
            ),
            error_v1("Bad_params", "params.source", "required, but missing"),
        ),
        (
            "echo",
            [{}, {}],
            error(-32602, f"params: {ONE_OBJECT}", "params", ONE_OBJECT),
            error_v1("Bad_params", "params", ONE_OBJECT),
        ),
        (
            "refuse",
            {"id": "t9"},
            error(1, "Does_not_exist", "task", "t9"),
            error_v1("Does_not_exist", "task", "t9"),
        ),
        ("break.task", {}, error(-32603, "internal error in task t1", "t1"), error_v1("Internal_error", "t1")),
    ],
)
async def test_an_error_has_a_number_in_version_2_and_a_name_in_version_1(
    method: str, params: Json, in_v2: Json, in_v1: Json
) -> None:
    assert await ask(v2(method, params=params)) == in_v2
    assert await ask(v1(method, params=params)) == in_v1


@pytest.mark.parametrize(
    ("request_", "sentence", "id"),
    [
        ({"method": None, "id": 1}, "method must be a string", 1),
        ({"id": 1}, "method must be a string", 1),
        ({}, "method must be a string", None),
        ({"method": "echo", "params": "x", "id": 1}, "params must be an object or a list", 1),
        ({"method": "echo", "params": 0, "id": 1}, "params must be an object or a list", 1),
        ({"method": "echo", "params": False}, "params must be an object or a list", None),
    ],
)
async def test_what_is_no_request_is_told_so_with_its_id_where_one_can_be_read(
    request_: dict[str, Json], sentence: str, id: Json
) -> None:
    assert await ask({"jsonrpc": "2.0", **request_}) == bare(-32600, sentence, id)
    assert await ask(request_) == error_v1("Invalid_request", sentence, id=id)


@pytest.mark.parametrize("id", [[], [1], {}, True, False, 1.0, 1.5, float("1" * 300)])
async def test_what_can_be_no_id_is_refused_and_not_echoed(id: Json) -> None:
    sentence = "id must be a string, an integer of 64 bits or null"

    assert await ask(v2(id=id)) == bare(-32600, sentence, None)
    assert await ask(v1(id=id)) == error_v1("Invalid_request", sentence, id=None)


@pytest.mark.parametrize("other", ["1.0", "2", 2.0, None, [], ""])
async def test_any_other_version_is_refused_and_never_taken_for_version_1(other: Json) -> None:
    assert await ask(v2() | {"jsonrpc": other}) == bare(-32600, 'jsonrpc must be "2.0" where it is given', 1)


@pytest.mark.parametrize("message", [None, True, 42, 1.5, "echo"])
async def test_a_value_that_is_no_object_is_no_request(message: Json) -> None:
    assert await ask(message) == bare(-32600, "a request must be an object")


async def test_an_error_of_the_wire_is_answered_with_its_sentence_and_no_id() -> None:
    assert await ask(ParseError("trailing comma")) == bare(-32700, "trailing comma")
    assert await ask(InvalidRequest("nested deeper than 100")) == bare(-32600, "nested deeper than 100")
    assert rpc.refuse(ParseError("trailing comma")) == bare(-32700, "trailing comma")


@pytest.mark.parametrize("method", ["echo", "none", "refuse", "misread"])
@pytest.mark.parametrize("params", [{}, {"id": "t9"}, [1, 2]])
async def test_a_notification_is_not_answered_whatever_becomes_of_it(method: str, params: Json) -> None:
    assert await ask({"jsonrpc": "2.0", "method": method, "params": params}) is None
    assert await ask({"method": method, "params": params}) is None


async def test_a_notification_is_obeyed() -> None:
    seen = []

    async def note(_context: object, /, **params: Json) -> None:
        seen.append(params)

    assert await ask({"jsonrpc": "2.0", "method": "note", "params": {"n": 1}}, methods={"note": note}) is None
    assert seen == [{"n": 1}]


async def test_a_failure_of_ours_is_logged_with_its_text_and_answered_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await ask(v2("break")) == error(-32603, "internal error")
    assert await ask(v1("break")) == error_v1("Internal_error")
    assert await ask({"jsonrpc": "2.0", "method": "break"}) is None

    assert [record.name for record in caplog.records] == ["taskd.rpc"] * 3
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.records[0].getMessage() == "break failed for 'alice'"
    assert "/var/lib/secret" in caplog.text


@pytest.mark.parametrize("params", [{"unknown": 1}, {}])
async def test_params_that_python_would_refuse_are_not_answered_in_the_words_of_python(
    params: Json, caplog: pytest.LogCaptureFixture
) -> None:
    """A method is to take what comes and check it; one that does not is a fault of ours."""
    assert await ask(v2("refuse", params=params)) == error(-32603, "internal error")
    assert "argument" in caplog.text


async def test_params_may_have_any_name() -> None:
    params = {"context": 1, "_context": 2, "self": 3, "name": 4, "listed": 5, "method": 6, "": 7, "class": 8}

    assert await ask(v2(params=params)) == result(params)
    assert await ask(v1(params=[params])) == result_v1(params)


async def test_a_method_is_looked_up_in_the_table_that_is_given_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(global_methods, "echo", echo)

    assert await ask(v2("echo"), methods={}) == error(-32601, "Method not found", "echo")


async def test_a_cancel_goes_through_to_the_method_and_nothing_is_answered() -> None:
    ends = []

    async def sleep(_context: object, /) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append(trio.current_effective_deadline())

    for message in (v2("sleep"), [v2("sleep"), v1("sleep")]):
        with trio.move_on_after(0) as scope:
            await ask(message, methods={"sleep": sleep})
            pytest.fail("it was answered")
        assert scope.cancelled_caught
    assert len(ends) == 3


async def test_a_batch_is_answered_in_its_order_without_its_notifications(autojump_clock: object) -> None:
    async def wait(_context: object, /, s: float) -> Json:
        await trio.sleep(s)
        return s

    batch = [
        v2("wait", 1, params={"s": 3}),
        {"jsonrpc": "2.0", "method": "wait", "params": {"s": 9}},
        v1("wait", 2, params=[{"s": 1}]),
        42,
        [v2()],
        v2("none", 3),
        v2("wait", [4]),
        v2("wait", 5, params={"s": 2}),
    ]
    started = trio.current_time()
    assert await ask(batch, methods={"wait": wait}) == [
        result(3, 1),
        result_v1(1, 2),
        bare(-32600, "a request must be an object"),
        bare(-32600, "a request must be an object"),
        error(-32601, "Method not found", "none", id=3),
        bare(-32600, "id must be a string, an integer of 64 bits or null"),
        result(2, 5),
    ]
    assert trio.current_time() - started == 9


async def test_of_one_batch_no_more_than_64_members_run_at_once(autojump_clock: object) -> None:
    running = most = 0

    async def work(_context: object, /) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    replies = await ask([v2("work", n) for n in range(200)], max_batch=200, methods={"work": work})

    assert replies == [result(None, n) for n in range(200)]
    assert most == 64


async def test_a_batch_of_one_is_answered_with_a_list() -> None:
    assert await ask([v2()]) == [result({})]


async def test_a_batch_of_notifications_is_not_answered() -> None:
    assert await ask([{"jsonrpc": "2.0", "method": "echo"}, {"method": "none"}, v1(id=None)]) is None


async def test_an_empty_batch_and_one_over_the_limit_are_one_refusal_and_nothing_of_it_is_done() -> None:
    done = []

    async def do(_context: object, /) -> None:
        done.append(1)

    assert await ask([]) == bare(-32600, "a batch must not be empty")
    assert await ask([v2("do")] * 10_000, max_batch=1000, methods={"do": do}) == bare(
        -32600, "a batch of 10000 is over the limit of 1000"
    )
    assert not done
    assert await ask([v2("do")] * 3, max_batch=3, methods={"do": do}) == [result(None)] * 3


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (v2("Task.wait"), {"Task.wait"}),
        ([v2("Task.wait"), v1("Task.ls"), v2("Task.ls")], {"Task.wait", "Task.ls"}),
        ([42, v2(5), [v2("Task.wait")], {}], set()),
        ("Task.wait", set()),
        (ParseError("x"), set()),
    ],
)
def test_the_methods_that_a_message_calls_are_told_before_it_is_answered(message: Json, names: set[str]) -> None:
    assert rpc.methods_in(message) == names


async def test_jsonrpcserver_is_the_one_that_the_envelope_was_written_for() -> None:
    """Its parts are no public interface: an upgrade that changes what is used of them is to be seen here."""
    assert version("jsonrpcserver").startswith("5.0.")
    got: list[tuple[tuple[Json, ...], Mapping[str, Json]]] = []

    async def method(*listed: Json, **named: Json) -> Json:
        got.append((listed, named))
        return Success("done")

    for params in ({"params": {"a": 1}}, {"params": [{"a": 1}]}, {"params": None}, {}):
        request = create_request({"method": "m", **params})
        assert request.id is NOID
        outcome = await dispatch_request({"m": method}, "alice", request)
        assert outcome[0] is request
        assert outcome[1]._value.result == "done"
        assert not not_notification(outcome)
    assert got == [(("alice",), {"a": 1}), (("alice", {"a": 1}), {}), (("alice",), {}), (("alice",), {})]

    outcome = await dispatch_request({}, "alice", create_request({"method": "m", "id": None}))
    assert not_notification(outcome)
    assert isinstance(outcome[1], Left)
    assert outcome[1]._error.code == -32601


async def test_a_batch_that_waits_for_nothing_lets_the_others_go_on() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def at_once(_context: object, /) -> int:
        return turns

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        batch = [v2("at_once", id=number) for number in range(640)]
        answered = await ask(batch, methods={"at_once": at_once}, max_batch=640)
        nursery.cancel_scope.cancel()

    assert isinstance(answered, list)
    assert turns >= 10


@attrs.frozen
class Row:
    """Methods whose params stand in a row: every name of the class ``task``, in any case."""

    raised: Exception | None = None

    def answers(self, method: str, args: Sequence[Json]) -> bool:
        return method.lower().startswith("task.")

    async def call(self, context: object, method: str, args: Sequence[Json], /, *, subtask_of: str = "") -> Json:
        if self.raised is not None:
            raise self.raised
        return [context, method, *args, *([subtask_of] if subtask_of else [])]


async def ask_row(message: Json, row: rpc.Positional = Row()) -> Json:
    methods = {"Task.ls": echo, "echo": echo}
    return await rpc.answer(message, methods, "alice", max_batch=9, positional=row)


@pytest.mark.parametrize("params", [["session"], ["session", {}], [{}, {}], [[]], [None]])
@pytest.mark.parametrize("method", ["task.get_all", "Task.ls"])
async def test_params_in_a_row_go_to_the_positional_methods_in_both_versions(
    method: str, params: list[Json]
) -> None:
    assert await ask_row(v2(method, params=params)) == result(["alice", method, *params])
    assert await ask_row(v1(method, params=params)) == result_v1(["alice", method, *params])
    assert await ask_row([v1(method, params=params)]) == [result_v1(["alice", method, *params])]


@pytest.mark.parametrize("params", [{"dbg": "x"}, [{"dbg": "x"}]])
async def test_params_by_name_never_go_there(params: Json) -> None:
    assert await ask_row(v2("Task.ls", params=params)) == result({"dbg": "x"})
    assert await ask_row(v2("task.get_all", params=params)) == error(-32601, "Method not found", "task.get_all")


@pytest.mark.parametrize("params", [{}, {"params": None}, {"params": []}])
async def test_no_params_go_there_only_if_there_is_no_other_method_of_that_name(params: dict[str, Json]) -> None:
    assert await ask_row(v2("Task.ls", **params)) == result({})
    assert await ask_row(v2("task.get_all", **params)) == result(["alice", "task.get_all"])
    assert await ask_row(v2("other", **params)) == error(-32601, "Method not found", "other")


async def test_an_error_of_a_positional_method_has_number_1_its_code_and_its_parameters() -> None:
    row = Row(XenApiError("HANDLE_INVALID", ("task", "OpaqueRef:x")))

    assert await ask_row(v2("task.x"), row) == error(1, "HANDLE_INVALID", "task", "OpaqueRef:x")
    assert await ask_row(v1("task.x"), row) == error_v1("HANDLE_INVALID", "task", "OpaqueRef:x")


async def test_an_error_of_ours_in_a_positional_method_is_an_internal_error_with_its_sentence() -> None:
    assert await ask_row(v1("task.x"), Row(DoesNotExist("task", "t9"))) == error_v1(
        "INTERNAL_ERROR", "there is no task t9"
    )


async def test_a_failure_of_a_positional_method_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    assert await ask_row(v1("task.x"), Row(RuntimeError("secret"))) == error_v1("INTERNAL_ERROR", "internal error")
    assert "secret" in caplog.text


async def test_a_positional_method_is_told_of_which_task_its_call_is_a_part() -> None:
    part = rpc.Part(Row(), "OpaqueRef:whole")

    assert await ask_row(v2("task.x", params=["s"]), part) == result(["alice", "task.x", "s", "OpaqueRef:whole"])
    assert not part.answers("other", ())


# The short cut of plain calls.


def echo_at_once(_context: object, params: Mapping[str, Json]) -> Json:
    return params


def know_nothing(_context: object, _params: Mapping[str, Json]) -> Json:
    return None


# What may be answered at once is answered alike by the other road; "refuse" has nothing to say at once.
AT_ONCE: Mapping[str, rpc.AtOnce] = {"echo": echo_at_once, "refuse": know_nothing}

PARTS: Mapping[str, Sequence[Json]] = {
    "jsonrpc": ["2.0", "1.0", 2.0, None, True],
    "method": ["echo", "refuse", "whoami", "Echo", "", None, 1, ["echo"]],
    "params": [{}, {"a": 1}, [{"a": 1}], [{}], [], [{}, {}], [1], ["a"], None, 1, "a"],
    "id": [1, -1, "one", "", None, 1.0, 1.5, True, [], {}],
}


@given(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in PARTS.items()}))
async def test_what_is_answered_at_once_is_answered_so_by_the_other_road(message: dict[str, Json]) -> None:
    now = rpc.at_once(message, AT_ONCE, "alice")

    if now is not None:
        assert orjson.dumps(now) == orjson.dumps(await ask(message))  # the order of the members, too


@pytest.mark.parametrize("params", [{"a": 1}, [{"a": 1}], {}, [{}]])
@pytest.mark.parametrize("id", [0, "x"])
async def test_a_plain_call_in_either_version_is_answered_at_once(id: Json, params: Json) -> None:
    for message in (v2(id=id, params=params), v1(id=id, params=params)):
        now = rpc.at_once(message, AT_ONCE, "alice")
        assert now is not None
        assert now == await ask(message)


@pytest.mark.parametrize("message", [[], [v2(params={})], 1, "echo", None, v2("refuse", params={})])
async def test_what_is_not_plain_is_left_to_the_other_road(message: Json) -> None:
    assert rpc.at_once(message, AT_ONCE, "alice") is None
