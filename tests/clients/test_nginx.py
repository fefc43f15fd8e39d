"""Behind a proxy that nobody here wrote: nginx passes on what callers send, and tokens tell who they are.

The kernel sees www-data alone, which the settings name as a proxy. ``taskctl token`` hands tokens out and takes
them back, and both count at once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, unix_connect

from tests.process import PATIENCE, DaemonProcess, listens

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a proxy as somebody else"),
    pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is not here"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here"),
]

PROXY = "www-data"

SETTINGS = """
daemon off;
user {user};
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen unix:{folder}/front;
        location / {{
            proxy_pass http://unix:{daemon};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""

TASKCTL = [sys.executable, "-c", "from taskd.cli import main; main()"]

COUNTING = Path(__file__).with_name("counting_to_three.sh")


@attrs.define(eq=False)
class Site:
    """A daemon, and nginx in front of it on the socket ``front``."""

    daemon: DaemonProcess

    @property
    def front(self) -> str:
        return str(self.daemon.folder / "front")

    def taskctl(self, *args: str) -> str:
        env = os.environ | {"TASKD_SOCKET": self.daemon.socket}
        done = subprocess.run([*TASKCTL, *args], env=env, capture_output=True, timeout=PATIENCE, check=True)
        return done.stdout.decode().strip()

    def token(self, user: str, role: str) -> str:
        return self.taskctl("token", "add", "--user", user, "--role", role)

    def revoke(self, token: str) -> None:
        self.taskctl("token", "rm", token.split("_")[1])

    def ask(self, method: str, path: str, body: Any = None, authorization: str | None = None) -> tuple[int, str]:
        """curl's word for it: the status, and the body."""
        command = ["curl", "-s", "--unix-socket", self.front, "-X", method, f"http://cloud{path}"]
        command += ["-w", "\\n%{http_code}"]
        if authorization is not None:
            command += ["-H", f"Authorization: {authorization}"]
        if body is not None:
            command += ["-d", body if isinstance(body, str) else json.dumps(body)]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True, text=True)
        text, _, status = done.stdout.rpartition("\n")
        return int(status), text

    def socket(self, path: str, **options: Any) -> ClientConnection:
        """To be used as a context."""
        made: ClientConnection = unix_connect(self.front, f"ws://cloud{path}", open_timeout=PATIENCE, **options)
        return made


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="taskd-") as name:
        folder = Path(name)
        os.chmod(folder, 0o755)
        daemon = DaemonProcess(folder, settings={"proxies": PROXY, "socket_mode": "0666"})
        (folder / "nginx.conf").write_text(SETTINGS.format(user=PROXY, folder=folder, daemon=daemon.socket))
        nginx: subprocess.Popen[bytes] | None = None
        try:
            daemon.start()
            nginx = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + PATIENCE
            while not listens(str(folder / "front")):
                assert nginx.poll() is None, (folder / "nginx.log").read_text()
                assert time.monotonic() < deadline
                os.sched_yield()
            yield Site(daemon)
        finally:
            if nginx is not None:
                nginx.send_signal(signal.SIGTERM)
                nginx.wait(PATIENCE)
            daemon.end()


def told(socket: ClientConnection) -> Any:
    """The next frame, but for signs of life."""
    while (frame := json.loads(socket.recv(PATIENCE))) == {"ping": "pong"}:
        pass
    return frame


def listen(socket: ClientConnection, bearer: str, stream: str = "0") -> None:
    """When this returns, the listen is in place: a call behind it was answered."""
    for call, id in (("task.listen", stream), ("task.nope", "behind")):
        socket.send(json.dumps({"call": call, "streamId": id, "payload": {}, "bearer": bearer}))
    assert told(socket)["streamId"] == "behind"


def run(site: Site, command: str, socket: str, *, by: str | None = None, **variables: str) -> Any:
    """One of the documentation's commands, in a shell; what it prints."""
    env = {"PATH": os.environ["PATH"], "socket": socket, "host": "http://cloud", **variables}
    become = [] if by is None else ["setpriv", "--reuid", by, "--regid", by, "--clear-groups"]
    shell = [*become, "bash", "-c", f"set -e\n{command}"]
    done = subprocess.run(shell, env=env, capture_output=True, timeout=PATIENCE, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("through", ["nginx", "the socket itself"])
def test_counting_to_three_as_it_is_written(site: Site, through: str) -> None:
    """The service by curl, the user on a WebSocket: the documentation's example, both sides of it."""
    service, user = site.token("_ucloud", "service"), site.token("User#1234", "user")
    socket, by = (site.front, None) if through == "nginx" else (site.daemon.socket, PROXY)
    create, *others = [each for each in COUNTING.read_text().split("\n\n") if each.startswith("curl")]
    assert len(others) == 4

    made = run(site, create, socket, by=by, accessToken=service)
    assert {**made, "jobId": "", "startedAt": 0, "modifiedAt": 0} == {
        "jobId": "",
        "owner": "User#1234",
        "processor": "_ucloud",
        "title": "We are counting to 3",
        "status": None,
        "complete": False,
        "startedAt": 0,
        "modifiedAt": 0,
    }
    with site.socket("/api/tasks") as heard:
        listen(heard, user)
        for command in others:
            assert run(site, command, socket, by=by, accessToken=service, id=made["jobId"]) == {}
        updates = [told(heard)["payload"] for _ in range(4)]
    same = {"jobId": made["jobId"], "newTitle": None, "speeds": [], "progress": None, "newStatus": None}
    assert updates == [
        *({**same, "complete": False, "messageToAppend": f"Count is now {n}"} for n in (1, 2, 3)),
        {**same, "complete": True, "messageToAppend": None},
    ]


def test_without_a_token_nobody_is_anybody(site: Site) -> None:
    call = {"jsonrpc": "2.0", "method": "Task.ls", "id": 1}
    for method, path, body in (
        ("GET", "/api/tasks", None),
        ("GET", "/koodrive/ose/v1/task/list", None),
        ("POST", "/jsonrpc", call),
        ("POST", "/RPC2", "<methodCall/>"),
    ):
        for authorization in (None, "Bearer nonsense", "Basic cm9vdDpyb290", "Bearer taskd_00000000_" + "x" * 43):
            status, _ = site.ask(method, path, body, authorization)
            assert status == 401, (path, authorization)
    assert site.ask("GET", "/healthz")[0] == 200


def test_a_token_says_who_calls_in_every_dialect(site: Site) -> None:
    """KooDrive's samples write ``Bearer+``."""
    alice, root = site.token("alice", "user"), site.token("boss", "admin")
    call = {
        "jsonrpc": "2.0",
        "method": "Task.start",
        "params": {"operation": "external", "label": "hers"},
        "id": 1,
    }
    made = json.loads(site.ask("POST", "/jsonrpc", call, f"Bearer {alice}")[1])["result"]
    assert (made["owner"], made["processor"]) == ("alice", "alice")
    for bearer, seen in ((alice, 1), (root, 1), (site.token("bob", "user"), 0)):
        for authorization in (f"Bearer {bearer}", f"Bearer+{bearer}", f"bearer {bearer}"):
            page = json.loads(site.ask("GET", "/koodrive/ose/v1/task/list", None, authorization)[1])
            assert (page["code"], len(page["taskList"])) == ("0", seen)
    page = json.loads(site.ask("GET", "/api/tasks", None, f"Bearer {alice}")[1])
    assert [each["jobId"] for each in page["items"]] == [made["id"]]
    login = "<methodCall><methodName>session.login_with_password</methodName><params/></methodCall>"
    assert site.ask("POST", "/RPC2", login, f"Bearer {alice}")[0] == 200
    # What the file of an operation would be opened with: nothing of this machine's.
    copy = {**call, "params": {"operation": "command", "params": {"argv": ["/bin/true"]}}}
    refused = json.loads(site.ask("POST", "/jsonrpc", copy, f"Bearer {alice}")[1])
    assert refused["error"]["message"] == "Permission_denied"


def test_a_token_that_is_taken_back_counts_no_more_also_on_what_is_open(site: Site) -> None:
    alice, other = site.token("alice", "user"), site.token("alice", "user")
    call = {"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}, "id": 1}
    id = json.loads(site.ask("POST", "/jsonrpc", call, f"Bearer {other}")[1])["result"]["id"]
    wait = json.dumps({"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": 1})
    command = ["curl", "-s", "--unix-socket", site.front, "http://cloud/jsonrpc", "-d", wait, "-w", "%{http_code}"]
    waiting = subprocess.Popen([*command, "-H", f"Authorization: Bearer {alice}"], stdout=subprocess.PIPE)
    with (
        site.socket("/jsonrpc", additional_headers={"Authorization": f"Bearer {alice}"}) as rpc,
        site.socket("/api/tasks") as heard,
    ):
        rpc.send('{"jsonrpc": "2.0", "method": "Task.watch", "params": {}, "id": 1}')
        assert [json.loads(rpc.recv(PATIENCE)) for _ in range(3)][-1]["params"]["event"] == "synced"
        listen(heard, alice)
        listen(heard, other, "1")

        site.revoke(alice)

        response = {"type": "response", "streamId": "0", "status": 401}
        assert told(heard) == {**response, "payload": {"why": "Unauthorized", "errorCode": None}}
        with pytest.raises(ConnectionClosed) as closed:
            rpc.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert waiting.communicate(timeout=PATIENCE)[0].endswith(b"401")
        assert site.ask("GET", "/api/tasks", None, f"Bearer {alice}")[0] == 401
        call = {**call, "method": "Task.complete", "params": {"id": id}}
        site.ask("POST", "/jsonrpc", call, f"Bearer {other}")
        frame = told(heard)
        assert (frame["streamId"], frame["payload"]["complete"]) == ("1", True)


def test_a_token_whose_time_is_over_ends_what_is_open(site: Site) -> None:
    """It lasts as long as this machine takes to listen with it."""
    with site.daemon.connect() as daemon, site.socket("/api/tasks") as heard:
        for life in (1, 4, 16):
            stream, behind = f"{life}", f"behind {life}"
            brief = daemon.add_token("alice", ["user"], expires_s=life).token
            for call, id in (("task.listen", stream), ("task.nope", behind)):
                heard.send(json.dumps({"call": call, "streamId": id, "payload": {}, "bearer": brief}))
            if told(heard)["streamId"] == behind:
                break  # the listen is in place
            assert told(heard)["streamId"] == behind
        last = told(heard)
        assert (last["streamId"], last["status"]) == (stream, 401)
    assert site.ask("GET", "/api/tasks", None, f"Bearer {brief}")[0] == 401


def test_only_a_proxy_of_the_settings_may_present_a_token(site: Site) -> None:
    """Not even root, who may do anything else: it would run as somebody else than it seems."""
    alice = site.token("alice", "user")
    command = ["curl", "-s", "--unix-socket", site.daemon.socket, "http://taskd/api/tasks", "-w", "%{http_code}"]
    for header in ([], ["-H", f"Authorization: Bearer {alice}"]):
        done = subprocess.run([*command, *header], capture_output=True, timeout=PATIENCE, check=True)
        assert done.stdout.endswith(b"401" if header else b"200")


def test_a_proxy_by_itself_is_nobody_on_the_stream_too(site: Site) -> None:
    call = b'{"jsonrpc": "2.0", "method": "Task.ls", "id": 1}\n'
    command = [
        "setpriv",
        "--reuid",
        PROXY,
        "--regid",
        PROXY,
        "--clear-groups",
        "nc",
        "-N",
        "-U",
        site.daemon.socket,
    ]
    done = subprocess.run(command, input=call, capture_output=True, timeout=PATIENCE, check=True)
    assert json.loads(done.stdout)["error"]["message"] == "Unauthenticated"
