"""What a serving system has besides calls: queues, batches, caches, and the age of what it reads.

    waiting = mlobs.queue("inference")
    features = mlobs.cache("feature_read")

    with waiting.wait():                 # the length while inside, the duration at the end
        batch = take_batch()
    mlobs.batch(len(batch))
    row = lookup(key)
    features.looked(row is not None)
    mlobs.feature_age("balance", now - row.updated)

Inside an observed call the model is that call's; elsewhere say it. Nothing here raises: a value that is no
finite number, or a size or duration below 0, is not counted, and the guard counts that. One of these costs
about 2 us.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from weakref import WeakKeyDictionary

from mlobs import names
from mlobs.sdk.api import default_runtime
from mlobs.sdk.buckets import Bounds, plain_bounds
from mlobs.sdk.call import CURRENT, USE, Call, call_of
from mlobs.sdk.meter import COUNTER, GAUGE, HISTOGRAM, Family, Meter, clean_label
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.values import BATCH, SIZES, add_value

HIT, MISS, ERROR = "hit", "miss", "error"

_AT = (names.MODEL, names.STAGE)
LENGTH = Family(names.QUEUE_LENGTH, GAUGE, _AT, "What waits before the stage.", "living")
WAIT = Family(names.QUEUE_DURATION, HISTOGRAM, _AT, "Seconds that something waited before the stage.")
LOOKS = Family(names.CACHE_REQUESTS, COUNTER, (*_AT, names.RESULT), "Looks into the stage's cache.")
AGE = Family(
    names.FEATURE_AGE, HISTOGRAM, (names.MODEL, names.FEATURE), "Age of a feature's value when it was used."
)

_WAITS = plain_bounds(names.DEFAULT_BUCKETS)
_AGES = (1, 5, 15, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000)
"""Edges of an age in seconds; one at every freshness threshold is added."""

_age_bounds: WeakKeyDictionary[Meter, dict[str, Bounds]] = WeakKeyDictionary()
"""Settled at a model's first age, for as long as its cells live: a later `init` keeps them."""


def observe_value(
    runtime: Runtime, family: Family, values: tuple[str, ...], bounds: Bounds, value: float
) -> None:
    """Count `value` in a histogram's cells. Raises ValueError as `add_value` does."""
    add_value(runtime.meter, family, values, bounds, value)


def model_of_call(given: str | None = None) -> str:
    """The model named, else the running call's, else the empty text."""
    if given is not None:
        return clean_label(given)
    marker = CURRENT.get()
    owner = None if marker is None else marker[0]
    if type(owner) is Call:
        owner = owner.binding
    return str(getattr(owner, "model", ""))


def batch(size: int, *, model: str | None = None) -> None:
    """A batch of `size` rows goes to the model: `mlobs_batch_size`."""
    USE.notice()
    runtime = default_runtime()
    try:
        observe_value(runtime, BATCH, (model_of_call(model),), SIZES, size)
    except Exception as problem:  # noqa: BLE001 - the guard's
        runtime.guard.swallow("batch", problem)


def feature_age(feature: str, seconds: float, *, model: str | None = None) -> None:
    """How old a feature's value was when it was used: `mlobs_feature_age_seconds`; ahead of us counts as 0.

    The bucket edges hold every freshness threshold of the model's objectives. `feature` is a name from the
    code, never a key: beyond the cap it is `__other__`. Beyond the least threshold of a freshness
    objective on this metric the running call is stale: no good prediction.
    """
    USE.notice()
    runtime = default_runtime()
    try:
        name = model_of_call(model)
        age = float(seconds)
        values = (name, clean_label(feature))
        observe_value(runtime, AGE, values, _bounds_of_ages(runtime, name), 0.0 if age < 0 else age)
        marker = CURRENT.get()
        if marker is not None and age > _oldest(runtime, name):
            call_of(marker).fresh = False
    except Exception as problem:  # noqa: BLE001 - the guard's
        runtime.guard.swallow("feature_age", problem)


def _bounds_of_ages(runtime: Runtime, model: str) -> Bounds:
    known = _age_bounds.setdefault(runtime.meter, {})
    found = known.get(model)
    if found is None:
        thresholds = [
            float(one.sli.threshold)
            for one in runtime.settings.slo.objectives
            if one.sli.kind == "freshness" and one.sli.threshold and one.model in (model, "")
        ]
        found = known[model] = plain_bounds([*map(float, _AGES), *thresholds])
    return found


def _oldest(runtime: Runtime, model: str) -> float:
    """Greatest age that is fresh; infinite without an objective on ages."""
    return min(
        (
            float(one.sli.threshold)
            for one in runtime.settings.slo.objectives
            if one.sli.kind == "freshness"
            and one.sli.threshold
            and (one.sli.metric or names.FEATURE_AGE) == names.FEATURE_AGE
            and one.model in (model, "")
        ),
        default=math.inf,
    )


def _name_of(stage: object) -> str:
    """The stage's label; empty, counted, for an object that has no text."""
    try:
        return clean_label(stage)
    except Exception as problem:  # noqa: BLE001 - the guard's
        default_runtime().guard.swallow("stage", problem)
        return ""


class Queue:
    """Something waits before a stage: its length and how long. Made once, used from any thread or task."""

    def __init__(self, stage: str, model: str | None) -> None:
        self._stage, self._model = _name_of(stage), model

    def _values(self) -> tuple[str, str]:
        return model_of_call(self._model), self._stage

    def set_length(self, length: int) -> None:
        """What waits now, where you know it (`q.qsize()`); otherwise `wait` and `entered` count it."""
        runtime = default_runtime()
        try:
            waiting = float(length)
            if not math.isfinite(waiting):
                raise ValueError("not a finite number")
            runtime.meter.block(LENGTH, self._values())[0] = waiting
        except Exception as problem:  # noqa: BLE001 - the guard's
            runtime.guard.swallow("queue", problem)

    def entered(self) -> float:
        """Something begins to wait; give what this returns to `left`, in whatever thread."""
        self._count(1.0)
        return perf_counter()

    def left(self, entered: float) -> None:
        """It waits no longer."""
        now = perf_counter()
        self._count(-1.0)
        try:
            took = now - entered
        except Exception as problem:  # noqa: BLE001 - the guard's: not what `entered` gave
            default_runtime().guard.swallow("queue", problem)
            return
        self.waited(took)

    def waited(self, seconds: float) -> None:
        """Something waited for so long: the duration alone."""
        runtime = default_runtime()
        try:
            observe_value(runtime, WAIT, self._values(), _WAITS, seconds)
        except Exception as problem:  # noqa: BLE001 - the guard's
            runtime.guard.swallow("queue", problem)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """`with queue.wait(): ...` around the waiting itself, in threads and in tasks."""
        entered = self.entered()
        try:
            yield
        finally:
            self.left(entered)

    def _count(self, change: float) -> None:
        runtime = default_runtime()
        try:
            runtime.meter.add(LENGTH, self._values(), change)
        except Exception as problem:  # noqa: BLE001 - the guard's
            runtime.guard.swallow("queue", problem)


class Cache:
    """A cache before a stage, counted by result: `hit`, `miss`, `error`."""

    def __init__(self, stage: str, model: str | None) -> None:
        self._stage, self._model = _name_of(stage), model

    def looked(self, found: bool) -> None:
        """A look that found it, or not: anything that has a truth value."""
        try:
            result = HIT if found else MISS
        except Exception as problem:  # noqa: BLE001 - the guard's; a frame or an array has none
            default_runtime().guard.swallow("cache", problem)
            return
        self._count(result)

    def failed(self) -> None:
        """The cache itself did not answer."""
        self._count(ERROR)

    def _count(self, result: str) -> None:
        runtime = default_runtime()
        try:
            runtime.meter.add(LOOKS, (model_of_call(self._model), self._stage, result))
        except Exception as problem:  # noqa: BLE001 - the guard's
            runtime.guard.swallow("cache", problem)


def queue(stage: str = names.INFERENCE, *, model: str | None = None) -> Queue:
    """The queue before a stage: `mlobs_queue_length` and `mlobs_queue_duration_seconds`.

    What enters inside an observed call and leaves elsewhere needs `model`, or its length counts for two.
    """
    USE.notice()
    return Queue(stage, model)


def cache(stage: str = names.FEATURE_READ, *, model: str | None = None) -> Cache:
    """The cache of a stage: `mlobs_cache_requests_total{result}`."""
    USE.notice()
    return Cache(stage, model)
