"""One observed function: its cells, its sampler and what happens to its kept calls."""

from __future__ import annotations

import threading
import types
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextvars import Token
from time import perf_counter, thread_time
from typing import Any

from mlobs import names
from mlobs.sdk import meter
from mlobs.sdk.call import CURRENT, Call
from mlobs.sdk.capture import Extractors, first_mapping, snapshot
from mlobs.sdk.guard import Guard
from mlobs.sdk.record import make_record
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.sampling import geometric, kept_by_id
from mlobs.sdk.wrap import closure_cells, make_wrapper

_KEPT = -1.0
"""As the limit on a call's duration: over it whatever it took."""


class Binding:
    """Ties one function to a runtime. Unsettled until `init` or the first call, whichever comes first."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        model: str,
        version: str,
        variant: str | None,
        extractors: Extractors,
        runtime: Callable[[], Runtime],
    ) -> None:
        self.model = meter.clean_label(model)
        self.version = meter.clean_label(version)
        self.variant = variant
        self.extractors = extractors
        self.stages: dict[str, tuple[meter.Cells, tuple[float, ...]]] = {}
        self.guard = Guard()
        self.runtime: Runtime | None = None
        self._find_runtime = runtime
        self._lock = threading.Lock()
        self._due = 0
        self._slow = float("inf")
        self._cells: meter.Cells = [0.0, 0.0, 0.0]
        self._fine: tuple[float, ...] = ()
        self.wrapper = make_wrapper(
            fn,
            {
                "fn": fn,
                "Call": Call,
                "binding": self,
                "cells": self._cells,
                "fine": self._fine,
                "due": 0,  # the first call is due: it settles
                "slow": self._slow,
                "prepare": self.prepare,
                "failed": self.failed,
                "finished": self.finished,
                "enter": CURRENT.set,
                "leave": CURRENT.reset,
                "clock": perf_counter,
                "bisect": bisect_left,
                "broken": self.broken,
            },
        )
        self._closure: Mapping[str, types.CellType] = closure_cells(self.wrapper)

    # -- settling ---------------------------------------------------------------------------------

    def settle(self, runtime: Runtime) -> None:
        """Take labels, buckets and sampler from `runtime`; calls under way finish in the cells they find."""
        bounds = runtime.bounds(self.model)
        self.guard = runtime.guard
        self._cells = runtime.meter.block(meter.REQUEST, (self.model, self.version), bounds)
        self._fine = bounds.fine
        self.stages = {}
        self.runtime = runtime
        if runtime.keeps:
            thresholds = runtime.settings.latency_thresholds(self.model)
            self._slow = thresholds[0] if thresholds else float("inf")
        else:
            self._slow = float("inf")
        every = self.extractors.decision is not None or (
            self.extractors.prediction_id is not None and runtime.keeps
        )
        self._due = 0 if every else int(self._cells[0]) + geometric(runtime.rate, runtime.random)
        self._set_closure()

    def unsettle(self) -> None:
        """Back to the state after decoration: the next call or `init` settles anew."""
        self.runtime = None
        self.stages = {}
        self._due = 0
        self._cells, self._fine = [0.0, 0.0, 0.0], ()
        self._set_closure()

    def _set_closure(self) -> None:
        for name, value in (
            ("cells", self._cells),
            ("fine", self._fine),
            ("due", self._due),
            ("slow", self._slow),
        ):
            if name in self._closure:
                self._closure[name].cell_contents = value

    def _settled(self) -> Runtime:
        runtime = self.runtime
        if runtime is None:
            runtime = self._find_runtime()
            with self._lock:
                if self.runtime is None:
                    self.settle(runtime)
        return runtime

    def new_stage(self, name: str) -> tuple[meter.Cells, tuple[float, ...]]:
        """Cells for a stage name that is seen for the first time."""
        runtime = self._settled()
        values = (self.model, self.version, meter.clean_label(name))
        bounds = runtime.bounds(self.model)
        target = (runtime.meter.block(meter.STAGE, values, bounds), bounds.fine)
        if len(self.stages) < meter.MOST_SETS:
            self.stages[name] = target
        return target

    # -- the call, called from the wrapper; none of these raises --------------------------------------

    def prepare(self, call: Call, number: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
        """Decide on a call that may be kept; returns the duration over which `finished` wants to see it."""
        try:
            if self.runtime is None:
                runtime = self._settled()
                number = self._cells[0] = self._cells[0] + 1
                if number < self._due:
                    return self._slow
            else:
                runtime = self.runtime
            if self._drawn(call, runtime, number, args, kwargs):
                began = thread_time()
                call.kept = True
                call.event_time = runtime.clock()
                if runtime.log is not None:
                    call.features = self._features(args, kwargs)
                runtime.spent += thread_time() - began
                return _KEPT
            return _KEPT if self.extractors.decision is not None else self._slow
        except Exception as problem:  # noqa: BLE001 - the guard\'s
            self.guard.swallow("prepare", problem)
            return self._slow

    def _drawn(
        self, call: Call, runtime: Runtime, number: float, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> bool:
        take = self.extractors.prediction_id
        if take is not None and runtime.keeps:
            found = take(*args, **kwargs)
            if found is not None:
                call._id = found if type(found) is str else str(found)
                return kept_by_id(call._id, runtime.crc_limit)
        if self._due == 0:  # looked at every call, for its decision or its id: no draw ahead
            return runtime.random() < runtime.rate
        with self._lock:
            if number < self._due:  # another thread was first
                return False
            self._due = int(number) + geometric(runtime.rate, runtime.random)
            self._set_closure()
        return True

    def _features(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        take = self.extractors.features or first_mapping
        return snapshot(take(*args, **kwargs))

    def finished(
        self, call: Call, took: float, result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """A call that returned and is kept, slow or decided."""
        self._end(call, names.OK, took, result, args, kwargs)

    def failed(
        self, call: Call, error: BaseException, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """A call that raised: an Exception is an error; anything else (cancellation, exit) is cancelled."""
        took = perf_counter() - call.start
        cancelled = not isinstance(error, Exception) or type(error).__name__ == "CancelledError"
        self._end(call, names.CANCELLED if cancelled else names.ERROR, took, None, args, kwargs)

    def broken(self, site: str, problem: Exception) -> None:
        """Something of ours failed in the wrapper."""
        self.guard.swallow(site, problem)

    def begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call | None:
        """Start of a generator's call; None when we failed, and the generator runs bare."""
        try:
            call = Call()
            call.binding = self
            number = self._cells[0] = self._cells[0] + 1
            if number >= self._due:
                self.prepare(call, number, args, kwargs)
            call.start = perf_counter()
            return call
        except Exception as problem:  # noqa: BLE001 - the guard\'s
            self.guard.swallow("begin", problem)
            return None

    def leave(self, token: Token[Call | None]) -> None:
        """Leave a generator's call; closed from another context, there is nothing to restore there."""
        try:
            CURRENT.reset(token)
        except Exception as problem:  # noqa: BLE001 - the guard\'s
            self.guard.swallow("leave", problem)

    def ended(self, call: Call, result: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A generator's call that ran to its end."""
        self._end(call, names.OK, perf_counter() - call.start, result, args, kwargs)

    # -- the end of a call ------------------------------------------------------------------------------

    def _end(
        self,
        call: Call,
        outcome: str,
        took: float,
        result: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        try:
            at = 1 + names.OUTCOMES.index(outcome) * (len(self._fine) + 2)
            self._cells[at + 1 + bisect_left(self._fine, took)] += 1
            self._cells[at] += took
        except Exception as problem:  # noqa: BLE001 - the guard\'s
            self.guard.swallow("count", problem)
        try:
            runtime = self._settled()
            if outcome == names.OK:
                self._decide(call, runtime, result)
            if not runtime.keeps:
                return
            if outcome != names.OK:
                call.reason, call.kept = "error", True
            elif took > self._slow:
                call.reason, call.kept = "slow", True
            if call.kept:
                began = thread_time()
                self._keep(call, runtime, outcome, took, result, args, kwargs)
                runtime.spent += thread_time() - began
        except Exception as problem:  # noqa: BLE001 - the guard\'s
            self.guard.swallow("end", problem)

    def _decide(self, call: Call, runtime: Runtime, result: Any) -> None:
        if call.decision is None and self.extractors.decision is not None:
            call.decision = self.extractors.decision(result)
        if call.decision is not None:
            value = meter.clean_label(call.decision)
            runtime.meter.block(meter.PREDICTIONS, (self.model, self.version, value))[0] += 1

    def _keep(
        self,
        call: Call,
        runtime: Runtime,
        outcome: str,
        took: float,
        result: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        if call.features is None and runtime.log is not None:
            call.features = self._features(args, kwargs)
        if call.segment is None and self.extractors.segment is not None:
            call.segment = self.extractors.segment(*args, **kwargs)
        entity = None if self.extractors.entity is None else self.extractors.entity(*args, **kwargs)
        if runtime.log is not None:
            runtime.log.offer(
                make_record(
                    call,
                    service=runtime.settings.service,
                    model=self.model,
                    version=self.version,
                    variant=self.variant,
                    outcome=outcome,
                    took=took,
                    result=result,
                    entity=entity,
                    now=runtime.clock(),
                    rate=runtime.rate,
                )
            )
