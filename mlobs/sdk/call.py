"""The running call, and the stages within it.

A context variable carries a small list, the call's marker: `[owner, id, stages, lap, lap, ...]`. Its owner is
the observed function until somebody asks for the call, and the `Call` from then on: a call that nobody asks
about costs one list. `stages` are the function's targets by name. It is right under threads, asyncio and task
groups: a task started inside a call sees that call, and two concurrent calls never see each other.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Mapping, MutableSequence
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Protocol, cast

from mlobs.sdk.given import refuse_in_call
from mlobs.sdk.guard import Guard
from mlobs.sdk.trace import TraceContext

MOST_LAPS = 256
"""Stage passages remembered for the record of one call; later ones are timed but not remembered."""

FIRST_LAP = 3
"""Where a marker's laps begin."""
_FULL = FIRST_LAP + MOST_LAPS

Target = tuple[MutableSequence[float], tuple[float, ...], str]
"""Cells of a stage ([sum, counts ...]), their upper edges, and its name."""


class Owner(Protocol):
    """Whom a marker belongs to, as a stage needs it."""

    @property
    def guard(self) -> Guard: ...

    def new_stage(self, name: str) -> Target: ...


class Call:
    """What `mlobs.current()` gives: the running call, or a detached one outside of any.

    Fields that are rarely set live on the class, so that making a call is cheap.
    """

    binding: Owner | None = None
    start: float = 0.0
    """`perf_counter` seconds."""
    event_time: float | None = None
    decision: Any = None
    kept: bool = False
    reason: str = "rate"
    segment: Any = None
    features: dict[str, Any] | None = None
    captured: bool = False
    """Whether the extractor has been asked for the features."""
    context: TraceContext | None = None
    """The call's own trace and span id, once it has them."""
    parent: TraceContext | None = None
    items: int = 0
    """Values that a generator's call has given so far."""
    first_item: float | None = None
    """When a generator's call gave its first value, `perf_counter` seconds."""
    fresh: bool = True
    valid: bool = True
    attributes: Mapping[str, Any] | None = None
    """More for the call's span."""
    chosen: Any = None
    """Rows of a batch call, and which of them are kept."""
    detach: Any = None
    """Token of the OpenTelemetry context while our span is current."""
    _id: str | None = None

    @property
    def prediction_id(self) -> str:
        """The call's id: what the extractor gave, else made now, when somebody asks for it."""
        found = self._id
        if found is None:
            found = self._id = os.urandom(16).hex()
        return found

    @property
    def trace_id(self) -> str | None:
        """32 hex digits: the trace that the call is part of, None while there is none."""
        known = self.context or self.parent
        return None if known is None else known.trace_id

    @property
    def span_id(self) -> str | None:
        """16 hex digits of the call's own span, None unless it is kept."""
        return None if self.context is None else self.context.span_id

    def set_segment(self, segment: str) -> None:
        """The segment of this call (country, channel): for the record and the span, never a label."""
        self.segment = segment

    def set_features(self, features: Mapping[str, Any]) -> None:
        """Features that the function read by itself: copied now, over what the arguments gave."""
        try:
            self.features = {**(self.features or {}), **features}
        except Exception as problem:  # noqa: BLE001 - the guard's: a store may give None for a row
            self.guard.swallow("features", problem)

    def set_decision(self, decision: str | bool) -> None:
        """What was decided (`approve`, `block`): counted in `mlobs_predictions_total` when the call ends."""
        self.decision = decision

    def set_valid(self, valid: bool) -> None:
        """Whether the input passed your checks; False keeps the call out of the good predictions."""
        self.valid = valid

    def set_fresh(self, fresh: bool) -> None:
        """Whether the data it read was fresh enough; a `feature_age` beyond an objective says no."""
        self.fresh = fresh

    # A marker's owner answers for new stages, before and after somebody asked for the call.

    @property
    def guard(self) -> Guard:
        return self.binding.guard if self.binding is not None else _DETACHED

    def new_stage(self, name: str) -> Target:
        assert self.binding is not None
        return self.binding.new_stage(name)


_DETACHED = Guard()
Marker = list[Any]
CURRENT: ContextVar[Marker | None] = ContextVar("mlobs_call", default=None)
_marker = CURRENT.get


class Use:
    """Whether anybody in this process ever asked for the running call or a stage.

    Until then nobody can tell whether a call has a marker, and calls go without one. `noticed` are told once.
    """

    def __init__(self) -> None:
        self.seen = False
        self.noticed: list[Callable[[], None]] = []

    def notice(self) -> None:
        """From now on every call has a marker. Idempotent."""
        if not self.seen:
            self.seen = True
            for tell in self.noticed:
                tell()


USE = Use()


def call_of(marker: Marker) -> Call:
    """The call of a marker, made when first asked for."""
    found = marker[0]
    if type(found) is Call:
        return found
    call = Call()
    call.binding = found
    call._id = marker[1]
    marker[0] = call
    return call


def running() -> Call | None:
    """The running call, or None."""
    marker = CURRENT.get()
    return None if marker is None else call_of(marker)


def current() -> Call:
    """The running call; outside of any a detached one, so that code under test needs no decorator."""
    marker = CURRENT.get()
    if marker is None:
        USE.notice()
        return Call()
    return call_of(marker)


class Lap:
    """One passage through a stage, as a context manager. Times are `perf_counter` seconds."""

    __slots__ = ("start", "target", "took")

    start: float
    took: float
    """Not there before its end."""
    target: Target

    # Entering has nothing to do: a C function that takes nothing and returns None costs half of a Python one.
    __enter__ = cast(Callable[..., None], {}.clear)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.took = took = perf_counter() - self.start
        cells, edges, _ = self.target
        if took > edges[0]:
            cells[bisect_left(edges, took) + 1] += 1.0
        else:  # what is over so soon should not pay for the search
            cells[1] += 1.0
        cells[0] += took


class _Nowhere(Lap):
    """A stage outside of any call, or one that we failed to begin: nothing is timed."""

    __slots__ = ()

    def __exit__(self, kind: object, error: object, trace: object) -> None: ...


_NOWHERE = _Nowhere()


def stage(name: str) -> Lap:
    """Time a part of the running call: `with mlobs.stage("inference"): ...`.

    Stages may nest and run at once in several tasks of the call. Outside of any call it does nothing, so the
    same code runs in a notebook. Never raises.
    """
    lap = Lap()
    marker = _marker()
    try:
        lap.target = marker[2][name]  # type: ignore[index]
        if len(marker) < _FULL:  # type: ignore[arg-type]
            marker.append(lap)  # type: ignore[union-attr]
    except Exception as problem:  # noqa: BLE001 - no call, a new stage, a name that cannot be hashed
        return _unknown_stage(name, marker, lap, problem)
    lap.start = perf_counter()
    return lap


def _unknown_stage(name: str, marker: Marker | None, lap: Lap, problem: Exception) -> Lap:
    if marker is None:
        USE.notice()
        return _NOWHERE
    try:
        if not isinstance(problem, KeyError):
            raise refuse_in_call("stage()", "a name", name, "for example stage('inference')") from problem
        lap.target = marker[0].new_stage(name)
        if len(marker) < _FULL:
            marker.append(lap)
    except Exception as failure:  # noqa: BLE001 - the guard's
        marker[0].guard.swallow("stage", failure)
        return _NOWHERE
    lap.start = perf_counter()
    return lap
