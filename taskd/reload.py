"""SIGHUP: the settings are read again, and those that can change while the daemon runs do.

The law: a reload happens as a whole or not at all. Settings that cannot be read, or hold one fault, change
nothing, and the log says which. Which settings a reload takes is said where they are (``config.setting``); one
that wants a restart keeps the value that is in force, and the log says that too.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from taskd import systemd
from taskd.config import Config
from taskd.errors import ConfigError

logger = logging.getLogger("taskd")


class Running(Protocol):
    """What goes by settings while it runs."""

    config: Config

    async def apply(self, settings: Config) -> None:
        """From here on, go by these."""


async def on_hangup(
    read: Callable[[], Config],
    running: Running,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Reload on each SIGHUP, one after the other. Never returns; started when the signal is taken."""
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        task_status.started()
        async for _ in hangups:
            await reload(read, running)


async def reload(read: Callable[[], Config], running: Running) -> None:
    """``read`` the settings anew (it may block, and raise ConfigError) and ``apply`` what can be."""
    systemd.reloading()
    outcome = ""
    try:
        settings = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        changed, waiting = differences(running.config, settings)
        if waiting:
            logger.warning("a restart is needed before a change counts of %s", ", ".join(waiting))
        await running.apply(attrs.evolve(running.config, **{name: getattr(settings, name) for name in changed}))
        outcome = f"the settings are reloaded; changed: {', '.join(changed) or 'none'}"
        logger.info("%s", outcome)
    except (ConfigError, RuntimeError) as error:  # the latter: how Python says that there is no thread to read in
        outcome = f"the settings stay as they were: {error}"
        logger.error("%s", outcome)
    finally:
        systemd.ready(outcome)


def differences(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """The names of the settings that a reload changes, and of those that differ and want a restart."""
    differ = [field for field in attrs.fields(Config) if getattr(old, field.name) != getattr(new, field.name)]
    changed = [field.name for field in differ if field.metadata["reload"]]
    return changed, [field.name for field in differ if not field.metadata["reload"]]


def give(settings: Config, *holders: attrs.AttrsInstance) -> None:
    """Let ``holders`` go by ``settings``: each gets those that it has a field for, by name."""
    for holder in holders:
        for field in attrs.fields(Config):
            if field.metadata["reload"] and field.name in attrs.fields_dict(type(holder)):
                setattr(holder, field.name, getattr(settings, field.name))
