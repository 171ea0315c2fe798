"""The public functions over the process's default runtime: the only global state of the SDK."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from mlobs.errors import ConfigError, Problem
from mlobs.records import Scalar
from mlobs.sdk import crews
from mlobs.sdk.binding import Binding
from mlobs.sdk.call import USE
from mlobs.sdk.capture import Extractor, Extractors, as_extractor, as_function
from mlobs.sdk.given import check_function, label_given, refuse_unknown, seconds_given
from mlobs.sdk.options import make_settings
from mlobs.sdk.price import calibrate
from mlobs.sdk.rows import Batch, as_column, refuse_streams
from mlobs.sdk.runtime import Log, Runtime
from mlobs.sdk.spans import SpanPipeline
from mlobs.sdk.wrap import hides_its_end
from mlobs.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from prometheus_client import CollectorRegistry

F = TypeVar("F", bound=Callable[..., Any])

_EXIT_S = 2.0
"""Longest delay of the process's exit."""

_LOGGER = logging.getLogger("mlobs")
_LOCK = threading.RLock()
_BINDINGS: weakref.WeakSet[Binding] = weakref.WeakSet()
_REGISTRIES: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()
_default: Runtime | None = None
_initialised = False
_hooked = False


def default_runtime() -> Runtime:
    """The process's runtime; without `init` one for the service `default` that keeps nothing."""
    found = _default
    return _first_runtime() if found is None else found


def _first_runtime() -> Runtime:
    global _default
    with _LOCK:
        if _default is None:
            _hook()  # a fork resets the child's counts, whether or not anybody called init
            _default = Runtime(Settings(service="default"), calibrate=calibrate)
            crews.join(_default)
        return _default


def init(
    config: str | os.PathLike[str] | Settings | None = None,
    /,
    *,
    clock: Callable[[], float] | None = None,
    registry: CollectorRegistry | None = None,
    exporter: SpanExporter | None = None,
    strict: bool = False,
    **keywords: Any,
) -> None:
    """Set up the SDK of this process: `init("mlobs.yaml")`, or its keys: `init(service="fraud-api")`.

    `clock` gives the event time of records (seconds since the epoch; default `time.time`), and is called in
    the context of the call; `registry` is a prometheus-client registry to appear in (default: an own one, see
    `metrics_app`); `exporter` an OpenTelemetry span exporter in place of `otlp=`; `strict` lets our failures
    raise, for tests. Raises ConfigError with every problem at once; what ran before then runs on. A later
    `init` may change everything but the buckets of a model that has been counted.
    """
    parts = {"clock": clock, "registry": registry, "exporter": exporter, "strict": strict}
    settings = make_settings(config, keywords, parts)
    clock = time.time if clock is None else clock
    with _LOCK:
        before = _default
        if before is not None:
            _refuse_other_buckets(before, settings)
        runtime = Runtime(
            settings,
            clock=clock,
            strict=strict,
            log=None if settings.feature_log is None else _open_log(settings, clock),
            meter=None if before is None else before.meter,
            calibrate=calibrate,
        )
        runtime.spans = _open_spans(runtime, exporter)
        if before is not None:
            runtime.started = before.started
            runtime.crew = before.crew
        _hook()
        crews.join(runtime)
        _install(runtime)
        if registry is not None:
            _register(registry)
    if before is not None:
        before.close(_EXIT_S)
        crews.last_words(before)


def _refuse_other_buckets(before: Runtime, settings: Settings) -> None:
    after = Runtime(settings)
    problems = [
        Problem(
            "init()",
            f"the buckets that {model!r} is counted in since its first call",
            "other edges",
            "call init before the first observed call",
        )
        for model, bounds in before.used_bounds().items()
        if after.bounds(model) != bounds
    ]
    if problems:
        raise ConfigError(*problems)


def _open_log(settings: Settings, clock: Callable[[], float]) -> Log:
    from mlobs.featurelog.opening import open_log  # weight: only where records are kept

    assert settings.feature_log is not None
    return open_log(
        settings.feature_log,
        service=settings.service,
        mask=settings.mask,
        durability=settings.durability,
        clock=clock,
    )


def _open_spans(runtime: Runtime, exporter: SpanExporter | None) -> SpanPipeline | None:
    settings = runtime.settings
    if exporter is None and settings.otlp is None:
        return None
    import mlobs.sdk.otelspans  # noqa: F401 - now and not in the sending thread: see `otlp._load_http`

    resource = {"service.name": settings.service}
    if settings.environment:
        resource["deployment.environment.name"] = settings.environment
    if exporter is not None:
        given = exporter
        return SpanPipeline(lambda: given, resource, runtime.guard, runtime.bits)
    from mlobs.sdk.otlp import exporter_for  # weight: only while tracing

    assert settings.otlp is not None
    return SpanPipeline(exporter_for(settings.otlp), resource, runtime.guard, runtime.bits)


def _hook() -> None:
    """What the interpreter tells us: that it ends, that it forked. No signal handler is installed."""
    global _hooked
    atexit.unregister(_at_exit)
    atexit.register(
        _at_exit
    )  # anew, to be called before what the feature log registered: one deadline for all
    if not _hooked:
        _hooked = True
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def _at_exit() -> None:
    if _default is not None:
        _default.close(_EXIT_S)
        crews.last_words(_default)


def _before_fork() -> None:
    """The children's counts and this process's shall be one from the first scrape on."""
    with _LOCK:
        if _default is not None and _default.crew is None and crews.found(_default):
            _settle_anew(_default)
        elif _default is not None:
            _follow(_default)


def _settle_anew(runtime: Runtime) -> None:
    for binding in list(_BINDINGS):
        if binding.runtime is runtime:
            binding.settle(runtime)


def scraped() -> Runtime:
    """The default runtime for a scrape: if workers have come to this process, it is one of them by now."""
    runtime = default_runtime()
    with _LOCK:
        if runtime.crew is None and crews.join(runtime, late=True):
            _settle_anew(runtime)
        _follow(runtime)
    return runtime


def _follow(runtime: Runtime) -> None:
    """Where this process became another user's (gunicorn's `user=`): go to where that one's workers meet."""
    with _LOCK:
        if runtime.crew is not None and runtime.crew.is_anothers() and crews.join(runtime):
            _settle_anew(runtime)


crews.BECAME_ANOTHERS.append(_follow)


def _after_fork() -> None:
    """In a forked child: its own locks, cells and queues; the parent keeps and sends what it had."""
    global _LOCK
    _LOCK = threading.RLock()
    if _default is not None:
        _default.after_fork()
        crews.watch(_default)
        for binding in list(_BINDINGS):
            binding.after_fork(_default)


def _register(registry: CollectorRegistry) -> None:
    from mlobs.sdk.collector import CellCollector  # weight: only where metrics are served

    if registry not in _REGISTRIES:
        registry.register(CellCollector(scraped))
        _REGISTRIES.add(registry)


def _install(runtime: Runtime | None) -> None:
    """Make `runtime` the default and settle every observed function on it; None unsettles them."""
    global _default, _initialised
    with _LOCK:
        _default, _initialised = runtime, runtime is not None
        for binding in list(_BINDINGS):
            if runtime is None:
                binding.unsettle()
            else:
                binding.settle(runtime)


@contextmanager
def installed(runtime: Runtime) -> Iterator[Runtime]:
    """`runtime` as the default within a `with` block, then what was there before: for tests."""
    before = _default if _initialised else None
    _install(runtime)
    try:
        yield runtime
    finally:
        _install(before)


def _mark_all() -> None:
    for binding in list(_BINDINGS):
        binding.mark()


USE.noticed.append(_mark_all)

_OBSERVES = (
    "model", "version", "variant", "prediction_id", "entity", "features", "decision", "segment", "batch",
)  # fmt: skip


@overload
def observe(fn: F, /) -> F: ...


@overload
def observe(
    *,
    model: str | None = None,
    version: str = "",
    variant: str | None = None,
    prediction_id: str | Extractor | None = None,
    entity: str | Extractor | None = None,
    features: str | Extractor | None = None,
    decision: Extractor | None = None,
    segment: str | Extractor | None = None,
    batch: str | Extractor | None = None,
) -> Callable[[F], F]: ...


def observe(
    fn: F | None = None,
    /,
    *,
    model: str | None = None,
    version: str = "",
    variant: str | None = None,
    prediction_id: str | Extractor | None = None,
    entity: str | Extractor | None = None,
    features: str | Extractor | None = None,
    decision: Extractor | None = None,
    segment: str | Extractor | None = None,
    batch: str | Extractor | None = None,
    **unknown: Any,
) -> F | Callable[[F], F]:
    """Measure every call of a function and keep a share of them; the function behaves as before.

    Works on functions, coroutines, generators and async generators (each timed to its real end), methods,
    partials and callable objects; kind, signature, result and exception stay. `model` is the function's name
    unless given. The extractors `prediction_id`, `entity`, `features` and `segment` take the arguments of the
    function, `decision` takes its result; a text names a parameter, or else a key of the first mapping
    argument. Without them the features are the first argument that is a mapping, a pydantic model or a
    dataclass. Raises UsageError for an extractor that is neither callable nor a name, for a keyword that it
    does not know, and for what is no function.

    `batch` makes it a batch call: the rows among its arguments (a name or a callable), each a mapping, and a
    result that holds one prediction a row. It is one call with one duration, and a record for each kept row.
    The other extractors are then of a row: a callable takes the row (`decision`: its prediction), a name is a
    parameter with one value a row, or a key of each row.
    """

    refuse_unknown("observe", unknown, _OBSERVES)
    labels = {
        "model": label_given("observe(model=)", model),
        "version": label_given("observe(version=)", version),
        "variant": label_given("observe(variant=)", variant) or None,
    }
    named = {"prediction_id": prediction_id, "entity": entity, "segment": segment}
    decide = as_function(decision, "decision", "the result")

    def decorate(target: F) -> F:
        if isinstance(target, staticmethod | classmethod):
            return cast(F, type(target)(decorate(cast(F, target.__func__))))
        check_function("observe", target)
        taken = as_extractor(batch, "batch", target)
        by_row = None
        if taken is None:
            found = {field: as_extractor(given, field, target) for field, given in named.items()}
            extractors = Extractors(
                **found, features=as_extractor(features, "features", target), decision=decide
            )
        else:
            refuse_streams(target)
            extractors = Extractors()
            columns = {field: as_column(given, field, target) for field, given in named.items()}
            of_row = as_function(features, "features", "a row")
            by_row = Batch(taken, **columns, features=of_row, decision=decide)
        binding = Binding(
            target,
            model=labels["model"] or str(getattr(target, "__name__", type(target).__name__)),
            version=labels["version"] or "",
            variant=labels["variant"],
            extractors=extractors,
            runtime=default_runtime,
            batch=by_row,
        )
        if hides_its_end(target):
            _LOGGER.warning(
                "observe: %s is a plain function around a coroutine or generator function: if it gives out "
                "that one's coroutine or generator, only its making is timed; put observe below the other "
                "decorator",
                binding.model,
            )
        with _LOCK:
            _BINDINGS.add(binding)
            if _initialised and _default is not None:
                binding.settle(_default)
        return cast(F, binding.wrapper)

    return decorate if fn is None else decorate(fn)


def log_label(prediction_id: str, label: Scalar, *, event_time: float | None = None) -> None:
    """Ground truth for a prediction, whenever it becomes known and in any process; a later one corrects it.

    `event_time` is when the truth became known (default: now by the clock of `init`). Never blocks, never
    raises. Without a `feature_log` the label goes nowhere.
    """
    runtime = default_runtime()
    if runtime.log is None:
        _say_that_labels_are_lost()
    try:
        runtime.label(prediction_id, label, event_time)
    except Exception as problem:  # noqa: BLE001 - the guard's
        runtime.guard.swallow("log_label", problem)


@cache
def _say_that_labels_are_lost() -> None:
    """Once a process: a label that goes nowhere is a mistake that nobody would see."""
    _LOGGER.warning("log_label without a feature_log: the labels of this process are lost")


def flush(timeout: float = 2.0) -> bool:
    """Wait up to `timeout` seconds; True only when everything handed over is as durable as asked.

    Raises UsageError for a timeout that is no finite number; so does `close`.
    """
    return default_runtime().flush(seconds_given("flush", timeout))


def close(timeout: float = 2.0) -> bool:
    """Flush and end within `timeout` seconds; a later `init` starts afresh. True as in `flush`."""
    seconds = seconds_given("close", timeout)
    runtime = _default
    _install(None)
    if runtime is None:
        return True
    done = runtime.close(seconds)
    crews.last_words(runtime)
    return done
