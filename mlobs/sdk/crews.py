"""When a process comes to its crew, and the thread by which the others see what it does not count in cells.

Cells are shared as they are counted. Failures, the accounts of pipelines and the cost of kept calls are
written over every second, at a scrape of this process and at its exit: a kill -9 loses a second of those.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlobs.sdk.runtime import Runtime

if TYPE_CHECKING:
    from mlobs.sdk import workers

INTERVAL_S = 1.0
_FIRST_S = 0.1
"""A worker of gunicorn that root started becomes another user's just after the fork."""

BECAME_ANOTHERS: list[Callable[[Runtime], object]] = []
"""Told by the thread when its process is another user's by now, who `join`s anew."""


def join(runtime: Runtime, *, late: bool = False) -> bool:
    """Bring a worker's cells to where the other workers see them; True if that was done just now.

    A process without others makes no file. `late`: without a look at what this process is, which does not
    change, only whether others came to it.
    """
    try:
        from mlobs.sdk import workers  # weight: mmap, tempfile; where a runtime is set up
    except ImportError:  # no fcntl: each process is scraped for itself
        return False
    try:
        before = runtime.crew
        service = runtime.settings.service
        if before is None or before.service != service:
            crew = workers.crew_of(service, runtime.guard.swallow, late=late)
        elif before.is_anothers():
            crew = workers.crew_of(service, runtime.guard.swallow) or workers.crew_to_fork(
                service, runtime.guard.swallow
            )
        else:
            before.tell(runtime.guard.swallow)
            watch(runtime)
            return False
        if crew is None:
            return False
        if before is not None:
            crew.published = before.published  # it moves along with the cells
        moves = before is not None and before.service == service
        _move(runtime, crew, threaded=not moves)  # its thread goes on
        if before is not None:
            before.leave()
        return True
    except Exception as problem:  # noqa: BLE001 - the guard's
        runtime.guard.swallow("workers_join", problem)
        return False


def found(runtime: Runtime) -> bool:
    """Before a fork: found a crew, if there is none; True if that was done just now."""
    try:
        from mlobs.sdk import workers  # weight: as in `join`

        if runtime.crew is not None:
            return False
        crew = workers.crew_to_fork(runtime.settings.service, runtime.guard.swallow)
        if crew is None:
            return False
        _move(runtime, crew, threaded=False)  # who forks is better off with one thread
        return True
    except Exception as problem:  # noqa: BLE001 - the guard's
        runtime.guard.swallow("workers_join", problem)
        return False


def last_words(runtime: Runtime) -> None:
    """At exit: what was published is final."""
    if runtime.crew is not None:
        from mlobs.sdk import view  # weight: as in `join`

        try:
            runtime.meter.catch_up()
            view.publish(runtime)
        except Exception as problem:  # noqa: BLE001 - the guard's
            runtime.guard.swallow("workers_publish", problem)


def _move(runtime: Runtime, crew: workers.Crew, *, threaded: bool = True) -> None:
    from mlobs.sdk import view  # weight: as in `join`

    runtime.crew = crew
    runtime.meter.move(crew)
    view.publish(runtime)
    if threaded:
        watch(runtime)


def watch(runtime: Runtime) -> None:
    """Start the thread that publishes, if there is anybody to publish to; degraded where no thread is had."""
    if runtime.crew is None:
        return
    thread = threading.Thread(
        target=_publish, args=(weakref.ref(runtime),), name="mlobs-workers", daemon=True
    )
    try:
        thread.start()
    except RuntimeError as problem:
        runtime.guard.swallow("workers_thread", problem)


def _publish(found: weakref.ref[Runtime]) -> None:
    from mlobs.sdk import view  # weight: as in `join`

    pause = threading.Event()
    seconds = _FIRST_S
    while not pause.wait(seconds):
        seconds = INTERVAL_S
        runtime = found()
        if runtime is None or runtime.crew is None:
            return
        try:
            if runtime.crew.is_anothers():
                for tell in BECAME_ANOTHERS:
                    tell(runtime)
            view.publish(runtime)
        except Exception as problem:  # noqa: BLE001 - the guard's
            runtime.guard.swallow("workers_publish", problem)
        del runtime
