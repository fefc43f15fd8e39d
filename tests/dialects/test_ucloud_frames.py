"""UCloud's sub-protocol without a socket, and its calls as JSON-RPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd.dialects import Reply, Stream, table
from taskd.dialects.ucloud import (
    CALLS,
    METHODS,
    PING,
    STREAMS,
    FrameCall,
    call,
    listen,
    message,
    refuse_frame,
    response,
)
from taskd.dialects.ucloud.frames import STREAM_ID
from taskd.errors import (
    AlreadyEnded,
    BadParams,
    DoesNotExist,
    InternalError,
    InvalidRequest,
    NeedsStream,
    PermissionDenied,
    Unauthenticated,
)
from taskd.model import JSON
from tests.bench import ROOT
from tests.dialects.cloud import ALICE, BOB, UCLOUD, quiet, site, unchanged, update

FRAME: dict[str, JSON] = {
    "call": "task.listen", "streamId": "0", "payload": {}, "bearer": "token", "causedBy": None, "project": None,
    "signedIntent": None,
}  # fmt: skip


def test_a_frame_is_a_call() -> None:
    assert FrameCall.parse(FRAME) == FrameCall("task.listen", "0", {}, "token")
    least = {"call": "task.view", "streamId": "17", "payload": {"id": "x"}}
    assert FrameCall.parse(least) == FrameCall("task.view", "17", {"id": "x"}, None)
    assert FrameCall.parse({**least, "streamId": "0" * STREAM_ID}) is not None
    assert FrameCall.parse({**least, "bearer": None}) == FrameCall("task.view", "17", {"id": "x"}, None)


@pytest.mark.parametrize(
    "value",
    [
        None, [], [FRAME], "task.listen", 1, {}, {"ping": "pong"},
        *({name: value for name, value in FRAME.items() if name != missing}
          for missing in ("call", "streamId", "payload")),
        {**FRAME, "call": None}, {**FRAME, "call": 1}, {**FRAME, "streamId": 0}, {**FRAME, "streamId": None},
        {**FRAME, "streamId": "0" * (STREAM_ID + 1)},
        {**FRAME, "payload": None}, {**FRAME, "payload": []}, {**FRAME, "payload": "{}"}, {**FRAME, "bearer": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_call_is_dropped(value: JSON) -> None:
    """A null payload too."""
    assert FrameCall.parse(value) is None


def test_a_token_is_not_shown() -> None:
    assert "token" not in repr(FrameCall.parse(FRAME))


def test_frames_have_their_shapes() -> None:
    assert message("0", update("x")) == {"type": "message", "streamId": "0", "payload": unchanged("x")}
    assert response("7", Reply(404, {})) == {"type": "response", "streamId": "7", "payload": {}, "status": 404}
    assert dict(PING) == {"ping": "pong"}


@pytest.mark.parametrize("name", ["task.nope", "tasks.list", "task.browse", "", "Tasks.view", "task.listen"])
async def test_a_call_that_is_unknown_is_not_found(tmp_path: Path, name: str) -> None:
    """[W01] Whoever asks. (What gives messages is not among those that give a reply.)"""
    async with site(tmp_path) as ucloud:
        for caller in (ALICE, UCLOUD, ROOT):
            assert await call(ucloud.service, caller, name, {}) == Reply(404, {})


async def test_the_calls_of_the_first_generation(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        said = {"title": "t", "owner": ALICE.user}
        made: Any = await call(ucloud.service, UCLOUD, "task.create", said)
        id = made.body["jobId"]
        assert await call(ucloud.service, ALICE, "task.view", {"id": id}) == made
        listed: Any = await call(ucloud.service, ALICE, "task.list", {"itemsPerPage": 12, "page": None})
        assert (listed.status, listed.body["items"], listed.body["itemsPerPage"]) == (200, [made.body], 50)
        posted = await call(ucloud.service, UCLOUD, "task.postStatus", {"update": {"jobId": id, "newTitle": "t2"}})
        assert posted == await call(ucloud.service, UCLOUD, "task.markAsComplete", {"id": id}) == Reply(200, {})
        seen: Any = await call(ucloud.service, ALICE, "task.view", {"id": id})

    assert (seen.body["title"], seen.body["complete"]) == ("t2", True)
    assert set(CALLS).isdisjoint(STREAMS)


async def test_a_refusal_is_a_reply(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        await ucloud.complete(id)
        late = await call(ucloud.service, UCLOUD, "task.postStatus", {"update": {"jobId": id}})
        unreadable = await call(ucloud.service, UCLOUD, "task.create", {"title": "t"})
        unknown = await call(ucloud.service, ALICE, "task.view", {"id": "x"})
        forbidden = await call(ucloud.service, ALICE, "task.create", {})

    assert late == Reply(409, {"why": "Task is already complete", "errorCode": "TASK_COMPLETE"})
    assert unreadable == Reply(400, {"why": "Bad Request: $.owner: required, but missing", "errorCode": None})
    assert unknown == Reply(404, {"why": "Not Found", "errorCode": None})
    assert forbidden == Reply(403, {"why": "Forbidden", "errorCode": None})
    assert refuse_frame(InvalidRequest("x")) == Reply(400, {"why": "Bad Request: x", "errorCode": None})


async def test_a_fault_of_ours_is_a_reply_that_tells_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as ucloud:
        broken = attrs.evolve(ucloud.service, registry=None)  # type: ignore[arg-type]  # the fault
        reply = await call(broken, ALICE, "task.list", {})

    assert reply == Reply(500, {"why": "Internal Server Error", "errorCode": None})
    assert reply == refuse_frame(InternalError())
    assert "task.list failed unforeseen" in caplog.text


# JSON-RPC.


@attrs.define
class Opened:
    """A connection that can carry streams."""

    streams: list[Stream] = attrs.field(factory=list)
    turn: trio.Lock = attrs.field(factory=trio.Lock)

    def open(self, stream: Stream) -> str:
        self.streams.append(stream)
        return f"s{len(self.streams)}"

    def close(self, subscription: str) -> None:
        raise DoesNotExist("subscription", subscription)


async def test_the_same_calls_as_methods(tmp_path: Path) -> None:
    methods = table()
    async with site(tmp_path) as ucloud:

        async def ask(name: str, caller: Any, **params: JSON) -> Any:
            return await methods[f"Tasks.{name}"](ucloud.service, caller, params)

        made = await ask("create", UCLOUD, title="t", owner=ALICE.user, initialStatus="s")
        id = made["jobId"]
        assert made == await ask("view", ALICE, id=id)
        assert (await ask("list", ALICE, itemsPerPage=10))["items"] == [made]
        progress = {"title": "p", "current": 1, "maximum": 2}
        speed = {"title": "s", "speed": 1, "unit": "u", "asText": "one"}
        said = {"jobId": id, "progress": progress, "speeds": [speed], "messageToAppend": "m", "newStatus": "s2"}
        assert await ask("postStatus", UCLOUD, update=said) == {}
        assert await ask("markAsComplete", UCLOUD, id=id) == {}
        with pytest.raises(AlreadyEnded):
            await ask("postStatus", UCLOUD, update={"jobId": id})
        with pytest.raises(DoesNotExist):
            await ask("view", BOB, id=id)
        with pytest.raises(BadParams, match="owner"):
            await ask("create", UCLOUD, title="t", owner="")
        with pytest.raises(BadParams, match=r"params\.update.*newTitel"):
            await ask("postStatus", UCLOUD, update={"jobId": id, "newTitel": "t"})
        for name, params in (
            ("create", {"title": "t", "owner": "o"}),
            ("postStatus", {"update": {"jobId": id}}),
            ("markAsComplete", {"id": id}),
        ):
            with pytest.raises(PermissionDenied):
                await ask(name, ALICE, **params)
        with pytest.raises(PermissionDenied):
            await ask("list", UCLOUD)
        with pytest.raises(Unauthenticated):
            await ask("view", attrs.evolve(ALICE, roles=frozenset()), id=id)


async def test_a_stream_of_updates(tmp_path: Path) -> None:
    method = table()["Tasks.listen"]
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        opened = Opened()
        assert await method(ucloud.service, ALICE, {}, opened) == {"subscription": "s1"}
        await ucloud.post(id, newStatus="s")  # between the reply and the first look
        stream = opened.streams[0]
        frames: list[Mapping[str, JSON]] = []

        async def tell(some: Sequence[Mapping[str, JSON]]) -> None:
            frames.extend(some)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.run, tell)
            await quiet()
            await ucloud.complete(id)
            await quiet()
            nursery.cancel_scope.cancel()
        assert await method(ucloud.service, ALICE, {"since": 0}, opened) == {"subscription": "s2"}
        assert not ucloud.service.registry.feed._bells
        with pytest.raises(NeedsStream):
            await method(ucloud.service, ALICE, {})
        with pytest.raises(PermissionDenied):
            await method(ucloud.service, UCLOUD, {}, opened)
        with pytest.raises(BadParams):
            await method(ucloud.service, ALICE, {"since": "x"}, opened)

    assert stream.method == "Tasks.update"
    assert frames == [{"update": update(id, newStatus="s")}, {"update": update(id, complete=True)}]
    assert len(opened.streams) == 2
    assert listen.__name__ == "listen"
    assert {each.name for each in METHODS} == {
        f"Tasks.{name}" for name in ("create", "list", "view", "postStatus", "markAsComplete", "listen")
    }


def test_an_id_of_a_stream_that_is_too_long_is_not_said_again() -> None:
    reply = Reply(400, {"why": "w", "errorCode": None})
    assert response("0" * STREAM_ID, reply)["streamId"] == "0" * STREAM_ID
    assert response("0" * (STREAM_ID + 1), reply)["streamId"] == ""
