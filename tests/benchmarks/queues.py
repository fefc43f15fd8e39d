# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator, no-any-unimported"
"""What the peers of ``steps`` do: ``python queues.py (dbos|taskflow|huey)``, in their venv, in an empty folder.

For each number on stdin, runs so many tasks, one after the other, and says on stdout how many seconds it took.
(What is imported here is not in the venv that mypy sees.)
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable


def dbos() -> Callable[[], None]:
    from dbos import DBOS

    DBOS(config={"name": "benchmark", "system_database_url": "sqlite:///dbos.sqlite", "log_level": "ERROR"})

    @DBOS.step()
    def step() -> str:
        return "done"

    @DBOS.workflow()
    def workflow() -> str:
        return str(step())

    DBOS.launch()

    def once() -> None:
        assert workflow() == "done"

    return once


def taskflow() -> Callable[[], None]:
    from taskflow import engines, task
    from taskflow.patterns import linear_flow
    from taskflow.persistence import backends

    backend = backends.fetch({"connection": "sqlite:///taskflow.sqlite"})
    backend.get_connection().upgrade()

    class Step(task.Task):  # type: ignore[misc]  # its class is not known here
        default_provides = "said"

        def execute(self) -> str:
            return "done"

    def once() -> None:
        assert engines.run(linear_flow.Flow("one").add(Step()), backend=backend)["said"] == "done"

    return once


def huey() -> Callable[[], None]:
    from huey import SqliteHuey

    queue = SqliteHuey(filename="huey.sqlite", fsync=True)

    @queue.task()
    def step() -> str:
        return "done"

    # It polls; as often as it can without keeping everybody else from the processor.
    consumer = queue.create_consumer(workers=1, periodic=False, initial_delay=0.001, backoff=1, max_delay=0.001)
    threading.Thread(target=consumer.start, daemon=True).start()

    def once() -> None:
        assert step().get(blocking=True, timeout=30, backoff=1, max_delay=0.001) == "done"

    return once


def main(name: str) -> None:
    logging.disable(logging.CRITICAL)
    once = {"dbos": dbos, "taskflow": taskflow, "huey": huey}[name]()
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            once()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
