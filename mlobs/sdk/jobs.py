"""Training runs and batch pipelines: how long, how many rows, when it last worked, how old its data is.

    @mlobs.job(textfile="/var/lib/prometheus/node-exporter")     # or otlp="http://collector:4318"
    def train() -> None:
        rows = load()
        run = mlobs.current_job()
        run.rows(len(rows))
        run.data(rows.newest)                     # epoch seconds, or a datetime with a zone
        save(model)
        run.checkpoint("fraud")

A process that lives to be scraped shows the same on `/metrics`. The job's result and exception stay; what
fails in here is swallowed and counted by the guard.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from datetime import datetime
from typing import Any, TypeVar, cast, overload

from mlobs import names
from mlobs.errors import Problem, UsageError
from mlobs.sdk.api import default_runtime
from mlobs.sdk.given import (
    ADDRESS,
    ADDRESS_EXAMPLE,
    check_function,
    fits,
    is_address,
    is_path,
    label_given,
    refuse,
    refuse_unknown,
    without_login,
)
from mlobs.sdk.meter import COUNTER, clean_label
from mlobs.sdk.runtime import Runtime

F = TypeVar("F", bound=Callable[..., Any])


class JobRun:
    """One run of a job under way; what it says is shown when it ends, whatever the outcome."""

    def __init__(self, name: str) -> None:
        self.name = clean_label(name)
        self._began = time.perf_counter()
        self._rows = 0.0
        self._data: float | None = None
        self._checkpoints: dict[str, float] = {}

    def rows(self, count: int) -> None:
        """`count` more rows went through."""
        self._guarded(lambda: self._add(float(count)))

    def data(self, newest: float | datetime) -> None:
        """Time of the newest data that the run used; the age of the data is reckoned from it."""
        self._guarded(lambda: setattr(self, "_data", _seconds(newest)))

    def checkpoint(self, model: str, at: float | datetime | None = None) -> None:
        """A checkpoint of the model was made, now or `at`: `mlobs_checkpoint_timestamp_seconds`."""
        self._guarded(
            lambda: self._checkpoints.update({clean_label(model): _seconds(_now() if at is None else at)})
        )

    def _add(self, count: float) -> None:
        if not 0 <= count < float("inf"):
            raise ValueError("rows are a count")
        self._rows += count

    def _guarded(self, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as problem:  # noqa: BLE001 - the guard's
            default_runtime().guard.swallow("job", problem)

    def end(self, error: BaseException | None, textfile: str | None, otlp: str | None) -> None:
        """Show the run on `/metrics`, in the textfile, at the collector; each in a guard of its own."""
        from mlobs.sdk import jobfile  # weight: only where a job ends

        runtime = default_runtime()
        outcome = _outcome(error)
        run = jobfile.samples_of(
            jobfile.Ended(
                self.name,
                outcome,
                time.perf_counter() - self._began,
                runtime.clock(),
                self._rows,
                self._data,
                dict(self._checkpoints),
            )
        )
        settings = runtime.settings
        collector = otlp or settings.otlp
        ways: list[tuple[str, Callable[[], object]]] = [("job_metrics", lambda: _count(runtime, run))]
        if textfile is not None:
            path = jobfile.path_of(textfile, self.name)
            ways.append(("job_textfile", lambda: _keep(runtime, path, run)))
        if collector is not None:
            ways.append(("job_otlp", lambda: _push(runtime, collector, run)))
        for site, way in ways:
            try:
                way()
            except Exception as problem:  # noqa: BLE001 - the guard's
                runtime.guard.swallow(site, problem)


def _now() -> float:
    return default_runtime().clock()


def _outcome(error: BaseException | None) -> str:
    if isinstance(error, SystemExit):  # a script's way to end, well or not
        return names.ERROR if error.code else names.OK
    if error is None:
        return names.OK
    gone = not isinstance(error, Exception) or type(error).__name__ == "CancelledError"
    return names.CANCELLED if gone else names.ERROR


def _seconds(at: float | datetime) -> float:
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError("a datetime without a zone could be any time")
        return at.timestamp()
    number = float(at)
    if not 0 <= number < 1e11:
        raise ValueError("not in seconds since the epoch")
    return number


def _count(runtime: Runtime, run: Any) -> None:
    for (family, values), value in run.items():
        if family.kind == COUNTER:
            runtime.meter.add(family, values, value)
        else:
            cells = runtime.meter.block(family, values)
            cells[0], cells[1] = value, runtime.clock()


def _keep(runtime: Runtime, path: Any, run: Any) -> None:
    from mlobs.sdk import jobfile

    try:
        before = jobfile.read(path)
    except ValueError as problem:  # somebody else's text: counted, and begun anew
        runtime.guard.swallow("job_textfile_before", problem)
        before = {}
    jobfile.write(path, jobfile.render(jobfile.after(before, run), runtime.settings.service))


def _push(runtime: Runtime, url: str, run: Any) -> None:
    from mlobs.sdk.jobpush import push  # weight: only where it is asked for

    settings = runtime.settings
    if not push(run, service=settings.service, environment=settings.environment, url=url):
        raise ConnectionError("the collector did not take the job's metrics")


_running: ContextVar[JobRun | None] = ContextVar("mlobs_job", default=None)


def current_job() -> JobRun:
    """The running job's run; outside of any a detached one, so that code under test needs no decorator."""
    return _running.get() or JobRun("")


class _Around:
    """A run as a context manager; nothing of ours raises out of it."""

    def __init__(self, name: str, textfile: str | None, otlp: str | None) -> None:
        self._run = JobRun(name)
        self._ways = (textfile, otlp)
        self._token: Token[JobRun | None] | None = None

    def __enter__(self) -> JobRun:
        self._token = _running.set(self._run)
        return self._run

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if self._token is not None:
                _running.reset(self._token)
            self._run.end(error, *self._ways)
        except Exception as problem:  # noqa: BLE001 - the guard's
            default_runtime().guard.swallow("job", problem)


@overload
def job(fn: F, /) -> F: ...


@overload
def job(
    *, name: str | None = None, textfile: str | os.PathLike[str] | None = None, otlp: str | None = None
) -> Callable[[F], F]: ...


def job(
    fn: F | None = None,
    /,
    *,
    name: str | None = None,
    textfile: str | os.PathLike[str] | None = None,
    otlp: str | None = None,
    **unknown: Any,
) -> F | Callable[[F], F]:
    """Measure each run of a function or coroutine function; it behaves as before.

    `textfile` is the folder of the node exporter's textfile collector, `otlp` a collector's address (default:
    the one of `init`). Without either the run shows on `/metrics` alone. The end of a run waits 2 s for a
    collector at the most. Raises UsageError for a generator function, whose call is no run, and for arguments
    that cannot be meant.
    """
    refuse_unknown("job", unknown, ("name", "textfile", "otlp"))
    given = label_given("job(name=)", name)
    if textfile is not None and not fits(is_path, textfile):
        raise refuse("job(textfile=)", "a folder", textfile, "that of the node exporter's textfile collector")
    if otlp is not None and not fits(is_address, otlp):
        raise refuse("job(otlp=)", ADDRESS, without_login(otlp), ADDRESS_EXAMPLE)
    folder = None if textfile is None else os.fspath(textfile)

    def decorate(target: F) -> F:
        if isinstance(target, staticmethod | classmethod):
            return cast(F, type(target)(decorate(cast(F, target.__func__))))
        check_function("job", target)
        if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            raise UsageError(
                Problem(
                    f"@mlobs.job on {target.__qualname__}",
                    "a function or coroutine function",
                    "a generator",
                    "decorate the function that reads it",
                )
            )
        named = given or clean_label(getattr(target, "__name__", type(target).__name__))
        if inspect.iscoroutinefunction(target):

            @functools.wraps(target)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with _Around(named, folder, otlp):
                    return await target(*args, **kwargs)

            return cast(F, coroutine)

        @functools.wraps(target)
        def function(*args: Any, **kwargs: Any) -> Any:
            with _Around(named, folder, otlp):
                return target(*args, **kwargs)

        return cast(F, function)

    return decorate if fn is None else decorate(fn)
