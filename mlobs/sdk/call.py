"""The running call, and the stages within it.

A context variable carries the call, so it is right under threads, asyncio and task groups: a task started
inside a call sees that call, and two concurrent calls never see each other.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import MutableSequence
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Protocol

from mlobs.sdk.guard import Guard


class Owner(Protocol):
    """The observed function that a call belongs to, as a stage needs it."""

    guard: Guard
    stages: dict[str, tuple[MutableSequence[float], tuple[float, ...]]]

    def new_stage(self, name: str) -> tuple[MutableSequence[float], tuple[float, ...]]: ...


class Call:
    """What `mlobs.current()` gives: the running call, or a detached one outside of any.

    Fields that are rarely set live on the class, so that making a call is one allocation.
    """

    binding: Owner | None = None
    start: float = 0.0
    """`perf_counter` seconds."""
    event_time: float | None = None
    decision: Any = None
    kept: bool = False
    reason: str = "rate"
    segment: Any = None
    features: Any = None
    laps: list[Lap] | None = None
    items: int = 0
    """Values that a generator's call has given so far."""
    span: Any = None
    """`spans.CallSpan` while tracing."""
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
        """32 hex digits while a trace is known for this call, else None."""
        return None if self.span is None else str(self.span.trace_id)

    @property
    def span_id(self) -> str | None:
        """16 hex digits, or None like `trace_id`."""
        return None if self.span is None else str(self.span.span_id)

    def set_segment(self, segment: str) -> None:
        """The segment of this call (country, channel): for the record and the span, never a label."""
        self.segment = segment

    def set_decision(self, decision: str | bool) -> None:
        """What was decided (`approve`, `block`): counted in `mlobs_predictions_total` when the call ends."""
        self.decision = decision


MOST_LAPS = 256
"""Stage passages remembered for the record of one call; later ones are timed but not remembered."""

CURRENT: ContextVar[Call | None] = ContextVar("mlobs_call", default=None)


def current() -> Call:
    """The running call; outside of any a detached one, so that code under test needs no decorator."""
    call = CURRENT.get()
    return Call() if call is None else call


class Lap:
    """One passage through a stage, as a context manager. Times are `perf_counter` seconds."""

    __slots__ = ("end", "name", "start", "target")

    name: str
    start: float
    end: float
    target: tuple[MutableSequence[float], tuple[float, ...]] | None
    """Cells ([sum, fine counts ...]) of this stage and their bounds; None outside of any call."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.end = end = perf_counter()
        if self.target is not None:
            cells, fine = self.target
            took = end - self.start
            cells[bisect_left(fine, took) + 1] += 1
            cells[0] += took


def stage(name: str) -> Lap:
    """Time a part of the running call: `with mlobs.stage("inference"): ...`.

    Stages may nest and run at once in several tasks of the call. Outside of any call it does nothing, so the
    same code runs in a notebook. Never raises.
    """
    lap = Lap()
    lap.name = name
    lap.target = None
    call = CURRENT.get()
    if call is not None and call.binding is not None:
        try:
            try:
                lap.target = call.binding.stages[name]
            except KeyError:
                lap.target = call.binding.new_stage(name)
            laps = call.laps
            if laps is None:
                call.laps = [lap]
            elif len(laps) < MOST_LAPS:
                laps.append(lap)
        except Exception as problem:  # noqa: BLE001 - a name that cannot be hashed or shown is the guard's
            call.binding.guard.swallow("stage", problem)
    lap.start = perf_counter()
    return lap
