"""The composition root: store, registry, runner, service, sockets, and the order in which they stop.

The nesting of ``serve`` reads as that order, inside out: first no connection is accepted any more, then calls
in flight get their grace, then tasks are interrupted as a crash would, then the store is closed. There is no
other clean-up: the next start recovers (law L6).
"""

from __future__ import annotations

import faulthandler
import fcntl
import gc
import json
import logging
import math
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import attrs
import click
import trio

from taskd import (
    __version__,
    access,
    clock,
    codec,
    config,
    dialects,
    listener,
    logs,
    operations,
    peer,
    reload,
    rpc,
    systemd,
    web,
)
from taskd.config import Config
from taskd.connection import Calls, Connection, Limits, Rest
from taskd.dialects import koodrive, ucloud
from taskd.dialects.xenapi import XenApi
from taskd.errors import (
    ConfigError,
    LimitReached,
    NotServed,
    StoreError,
    StoreUnusable,
    TaskdError,
)
from taskd.metrics import Metrics
from taskd.model import Caller, now
from taskd.operations import Operations
from taskd.registry import Registry
from taskd.runner import Runner
from taskd.service import Service
from taskd.states import State
from taskd.store import Forgotten, Store, ignore
from taskd.store.sqlite import SqliteStore

logger = logging.getLogger("taskd")

# Seconds between two looks for tasks that are past their retention.
HOUR = 3600.0

# Callers that are remembered, and the most groups of one that is: who has a range of ids to play with could have
# others for every connection.
KNOWN = 1024
GROUPS = 256

Credentials: TypeAlias = tuple[int, int, frozenset[int]]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the state folder: it is made if need be, and one daemon at a time has it (law L6).

    Raises:
        StoreUnusable: another daemon holds it, or it cannot be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "workspace").mkdir(mode=0o700, exist_ok=True)
        held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnusable(f"the state folder {folder} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise StoreUnusable(f"another taskd is running on the state folder {folder}") from None
    try:
        yield
    finally:
        os.close(held)


@attrs.define(eq=False)
class Server:
    """The connections of one daemon, and who they belong to."""

    config: Config
    service: Service
    xenapi: XenApi
    rest: Rest = attrs.field(factory=Rest)
    _calls: Calls = attrs.field(init=False)
    _paths: web.Paths = attrs.field(init=False)
    _connections: dict[Connection, tuple[peer.Peer, Caller]] = attrs.field(factory=dict)
    _seats: listener.Seats = attrs.field(factory=listener.Seats)
    _known: dict[Credentials, Caller] = attrs.field(init=False)
    _stopping: bool = False

    def __attrs_post_init__(self) -> None:
        self._calls = Calls(dialects.table(), self.service)
        self._go_by(self.config)

    def _go_by(self, settings: Config) -> None:
        self.config, self._known = settings, {}
        self._seats.go_by(settings.connections_per_user, settings.running_tasks)
        self.service.unread.most = settings.unread_bytes_per_user
        wire: Literal["table", "example"] = "example" if settings.koodrive_wire == "example" else "table"
        self._paths = web.paths(ucloud.FACE, koodrive.face(wire))

    async def apply(self, settings: Config) -> None:
        """From here on, go by these ``settings``; a connection that is open keeps its limits.

        Whoever has another role by them than the one it called with is disconnected, and may come again.
        """
        self._go_by(settings)
        reload.give(settings, self.service, self.service.runner)
        logs.go_by(settings.log_level, settings.log_format)
        for connection, (found, who) in tuple(self._connections.items()):
            try:
                same = who == await self._caller(found)
            except (OSError, RuntimeError):  # it cannot be told now: no descriptor is left, or no thread
                same = False
            if not same:
                connection.stop(1008, "the roles of this caller have changed")

    async def connected(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. Whatever it does, nobody else notices."""
        try:
            async with stream:
                await self._serve(stream)
        except Exception as error:
            logger.warning("a connection could not be served: %r", error)

    async def _serve(self, stream: trio.SocketStream) -> None:
        found = peer.of(stream.socket.fileno())
        try:
            self._seats.take(found.uid)
        except LimitReached as error:
            await self._refuse(stream, error)
            return
        try:
            self._counted()
            try:
                who = await self._caller(found)
            except (OSError, RuntimeError) as error:  # no descriptor is left, or, in Python's word, no thread
                await self._refuse(stream, NotServed(str(error)))
                return
            if self._stopping:
                return
            connection = Connection(
                stream,
                who,
                self.service,
                self._calls,
                self.xenapi,
                self._paths,
                self.rest,
                self._limits(),
            )
            self._connections[connection] = found, who
            try:
                await connection.serve()
            finally:
                del self._connections[connection]
        finally:
            self._seats.leave(found.uid)
            self._counted()

    async def _refuse(self, stream: trio.SocketStream, error: TaskdError) -> None:
        refusal = codec.dumps(rpc.refuse(error, self.service.metrics.refused)) + b"\n"
        with trio.move_on_after(1):
            await stream.send_all(refusal)

    def _counted(self) -> None:
        self.service.health.connections = self.rest.present = self._seats.count

    async def _caller(self, found: peer.Peer) -> Caller:
        """Who that is, by the newest settings; looked up once, for as long as it is among the newest that were."""
        who = (found.uid, found.gid, found.groups)
        while True:
            settings, table = self.config, self._known
            known = table.get(who)
            if known is None:
                names = {name: getattr(settings, name) for name in ("admins", "services", "proxies")}
                known = await trio.to_thread.run_sync(
                    partial(access.caller, found.uid, found.gid, found.pid, found.groups, **names)
                )
                if len(found.groups) <= GROUPS:
                    table[who] = known
                if len(table) > KNOWN:
                    del table[next(iter(table))]
            if settings is self.config:
                return attrs.evolve(known, pid=found.pid)

    def _limits(self) -> Limits:
        return Limits(**{field.name: getattr(self.config, field.name) for field in attrs.fields(Limits)})

    def stop(self) -> None:
        """Stop all connections, and those whose callers are being looked up before they begin."""
        self._stopping = True
        for connection in tuple(self._connections):
            connection.stop()


async def forget_old(store: Store, in_force: Callable[[], Config], forgotten: Forgotten = ignore) -> None:
    """Forget what is past its retention, now and then every hour, and tell ``forgotten``. Never returns."""
    while True:
        settings = in_force()
        try:
            before = now() - settings.retention_days * 86400
            count = await store.prune(before=before, keep=settings.retention_count, forgotten=forgotten)
            if count:
                logger.info("forgot %d tasks past their retention", count)
        except StoreError as error:
            logger.error("cannot forget old tasks: %s", error)
        await trio.sleep(HOUR)


async def serve(
    settings: Config,
    table: Operations,
    store: Store,
    task_status: trio.TaskStatus[Service] = trio.TASK_STATUS_IGNORED,
    *,
    read: Callable[[], Config] | None = None,
    metrics: Metrics | None = None,
) -> None:
    """Recover, then serve until SIGTERM, SIGINT or cancelled. Started when calls are answered.

    On SIGHUP go by the settings that ``read`` gives; without it they stay. ``metrics`` counts what happens.

    Raises:
        ConfigError: it cannot listen, or is told nonsense by systemd.
    """
    watchdog_s = systemd.watchdog_s()
    metrics = metrics or Metrics()
    registry = Registry(noted=metrics.changed)
    workspace = str(Path(settings.state) / "workspace")
    runner = Runner(
        store,
        registry,
        table,
        codec.structure,
        workspace,
        log_lines=settings.log_lines,
        running_tasks=settings.running_tasks,
        running_per_owner=settings.running_per_owner,
        running_per_operation=settings.operation_limits,
    )
    service = Service(
        store,
        registry,
        runner,
        table,
        tasks_per_owner=settings.tasks_per_owner,
        max_text=settings.max_text,
        max_result_bytes=settings.max_result_bytes,
        roots=settings.roots,
        metrics=metrics,
    )
    server = Server(settings, service, XenApi(service))
    # Bound before anything is recovered: a socket that is taken is a reason not to start, and whoever connects
    # early waits in its queue.
    with listener.listeners(settings.socket, int(settings.socket_mode, 8), settings.socket_group) as sockets:
        await service.tokens.load()
        async with trio.open_nursery() as background:
            await background.start(registry.keep_revisions, store.reserve)
            await background.start(runner.run)
            background.start_soon(server.rest.run)
            background.start_soon(service.health.beat)
            background.start_soon(forget_old, store, lambda: server.config, registry.forget)
            background.start_soon(systemd.feed_watchdog, watchdog_s)
            background.start_soon(clock.watch)
            background.start_soon(systemd.keep_status, partial(status, registry), registry.feed.moved)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    await accepting.start(reload.on_hangup, read or (lambda: settings), server)
                    accepting.start_soon(_accept, sockets, server, connections)
                    with trio.open_signal_receiver(*_stop_signals()) as signals:
                        logger.info("taskd %s listens on %s", __version__, listener.names(sockets))
                        systemd.ready()
                        task_status.started(service)
                        async for number in signals:
                            logger.info("stopping on %s", signal.Signals(number).name)
                            break
                    accepting.cancel_scope.cancel()
                systemd.stopping()
                server.stop()
                connections.cancel_scope.deadline = trio.current_time() + server.config.stop_grace_s
            background.cancel_scope.cancel()


def _stop_signals() -> list[signal.Signals]:
    """SIGTERM, and SIGINT unless it is ignored, as a shell has it for what runs in its background."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGINT]


async def _accept(sockets: Sequence[trio.SocketListener], server: Server, connections: trio.Nursery) -> None:
    await trio.serve_listeners(server.connected, list(sockets), handler_nursery=connections)


def status(registry: Registry) -> str:
    """How many tasks have not ended, by state, for ``systemctl status``."""
    count = Counter(live.task.state for live in registry)
    return ", ".join(f"{count[state]} {state}" for state in State if count[state]) or "no unfinished tasks"


async def run(settings: Config, read: Callable[[], Config]) -> None:
    """The whole daemon: lock the folder, open the store, serve, close. ``read`` gives the settings anew.

    Raises:
        TaskdError: it cannot start; the sentence says why.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    table = operations.load()
    # What is loaded by now stays, and ten thousand connections are made of objects that live: by Python's own
    # numbers the search for cycles among them was most of what they cost, and everybody waits for it.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    with lock(Path(settings.state)):
        metrics = Metrics()
        store = await SqliteStore.open(Path(settings.state) / "taskd.sqlite", metrics.committed)
        try:
            await serve(settings, table, store, read=read, metrics=metrics)
        finally:
            with trio.CancelScope(shield=True):
                await store.close()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "file", metavar="FILE", help="Read settings from FILE (TOML).")
@click.option("--socket", metavar="PATH", help="Listen on PATH.")
@click.option("--state", metavar="DIR", help="Keep what must survive in DIR.")
@click.option("--log-level", metavar="LEVEL", help="Log LEVEL and worse: debug, info, warning, error.")
@click.option("--check-config", is_flag=True, help="Only read the settings; print them; exit 0 if they are good.")
@click.version_option(__version__, "--version", message="taskd %(version)s")
def main(
    file: str | None, socket: str | None, state: str | None, log_level: str | None, check_config: bool
) -> None:
    """Run and track long storage tasks that either completed or were never made.

    Runs in the foreground and logs to stderr until SIGTERM or SIGINT.
    """
    # Whoever started us may have it ignored, and an ignored SIGCHLD makes the kernel forget how a child ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 0
    try:
        flags = {"socket": socket, "state": state, "log_level": log_level}
        read = partial(config.load, file, flags=flags)
        settings = read()
        if check_config:
            for name, value in attrs.asdict(settings).items():
                # Not by the codec: a path may have bytes that are no UTF-8, and retention may be for ever.
                text = "inf" if value == math.inf else json.dumps(value, ensure_ascii=False)
                click.echo(f"{name} = {text}".encode(errors="surrogateescape"))
            return
        logs.begin(settings.log_level, settings.log_format)
        # A watchdog ends a loop that does not turn with SIGABRT: the log then shows where it stood.
        faulthandler.enable()
        trio.run(run, settings, read)
    except* (ConfigError, StoreError, OSError) as found:  # out of a nursery it comes in a group
        error: BaseException = found
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        logger.debug("it ends by this", exc_info=error)
        why = f"{error.filename or 'the system'}: {error.strerror}" if isinstance(error, OSError) else error
        click.echo(f"taskd: {why}", err=True)
        status = 2 if isinstance(error, ConfigError) else 1
    sys.exit(status)
