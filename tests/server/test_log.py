"""What must not be in the log of a daemon, whoever sends what."""

from __future__ import annotations

from collections.abc import Mapping

from tests.heard import heard
from tests.server.conftest import Start

SECRETS = {"env": "hunter2", "argv": "--password=hunter3", "bearer": f"taskd_00000000_{'h' * 43}"}


async def test_no_secret_gets_into_it_and_a_clients_mistake_is_no_traceback(
    daemon: Start,
) -> None:
    params: Mapping[str, object] = {"argv": ["false", SECRETS["argv"]], "env": {"KEY": SECRETS["env"]}}
    with heard() as log:
        async with daemon() as running, running.peer() as peer:
            task = await peer.call("Task.start", operation="command", params=params, dbg="mine")
            await peer.call("Task.wait", id=task["id"])
            calls: tuple[tuple[str, Mapping[str, object]], ...] = (
                ("Task.start", {"operation": "command", "params": {"argv": SECRETS["argv"]}}),
                ("Task.start", {"operation": "command", "params": {**params, "cwd": "none"}}),
                ("Task.get", {"id": [SECRETS["env"]]}),
                ("Task.none", {"x": SECRETS["env"]}),
                ("Token.add", {"user": SECRETS["env"], "roles": ["none"]}),
            )
            for method, wrong in calls:
                assert "error" in await peer.ask(method, **wrong)
            for sent in (
                f"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRETS['bearer']}\r\n\r\n",
                f"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRETS['bearer']}\r\n"
                "Content-Length: 2\r\n\r\n{}",
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n<hunter2>",
                f'{{"jsonrpc": "2.0", "method": "{SECRETS["env"]}',
                f"\0{SECRETS['env']}",
            ):
                async with running.peer() as other:
                    await other.stream.send_all(sent.encode())
                    await other.stream.send_eof()
                    while await other.stream.receive_some():
                        pass
    said = log()
    text = repr(said)

    assert any(each.get("task") == task["id"] and each["dbg"] == "mine" for each in said)
    assert [each for each in said if "traceback" in each] == []
    for secret in ("hunter2", "hunter3", "h" * 43):
        assert secret not in text
