"""What an observed function counts into and how it is drawn: settled by `init` or by the first call."""

from __future__ import annotations

import threading
import types
import zlib
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, cast

from mlobs.sdk import meter
from mlobs.sdk.call import CURRENT, USE, Target
from mlobs.sdk.capture import Extractors
from mlobs.sdk.guard import Guard
from mlobs.sdk.rows import Batch
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.sampling import NEVER, crc_limit, geometric, say_that_no_entity_is_named
from mlobs.sdk.trace import INCOMING
from mlobs.sdk.wrap import Mode, closure_cells, code_of, make_wrapper, names_used

UNMARKED_AFTER = 1000
"""Calls after which a function that nobody asked about goes without a marker."""

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


class Pending:
    """Stands for the cells of a function that is not settled: its first use settles it and goes to the real.

    So a call that began before another thread settled ends where it was counted. Reading and writing are two
    steps here: each thread writes what it added, in one step.
    """

    def __init__(self, binding: Settled) -> None:
        self._binding = binding
        self._seen = threading.local()

    def __getitem__(self, place: int) -> float:
        self._binding._settled()
        found = self._seen.value = self._binding._own()[place]
        return found

    def __setitem__(self, place: int, value: float) -> None:
        added, own = value - self._seen.value, self._binding._own()
        own[place] += added


class Settled:
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
        llm: bool = False,
        batch: Batch | None = None,
    ) -> None:
        self.model = meter.clean_label(model)
        self.version = meter.clean_label(version)
        self.variant = variant
        self.extractors = extractors
        self.llm = llm
        self.batch = batch
        self.stages: Any = {}
        self.guard = Guard()
        self.runtime: Runtime | None = None
        self._fn = fn
        self._asks = bool(names_used(fn) & {"current", "stage", "feature_age"})
        self._find_runtime = runtime
        self._lock = threading.RLock()
        self._due = self._next = 0.0
        self._slow = float("inf")
        self._fast: float | None = None
        self._rate = 0.0
        self._crc_limit = 0
        self._by_entity = False
        self._near: tuple[float, float] | None = None
        self._stand_in = Pending(self)
        self._cells = cast(meter.Cells, self._stand_in)
        self._fine: tuple[float, ...] = ()
        self._shards: meter.Shards | None = None
        self._mode = Mode()
        self.wrapper = make_wrapper(fn, self._free(), self._mode)
        self._closure: Mapping[str, types.CellType] = closure_cells(self.wrapper)

    def _free(self) -> dict[str, Any]:
        return {
            "fn": self._fn,
            "binding": self,
            # Code without shards, still under way in another thread, finds its shard behind the stand-in.
            "cells": self._cells if self._shards is None else self._stand_in,
            "shard": None if self._shards is None else self._shards.mine,
            "fine": self._fine,
            "due": self._due,  # 0.0 at first: the first call is due, and settles
            "slow": self._slow,
            "stages": self.stages,
            "crc_limit": self._crc_limit,
            "identify": self.extractors.entity if self._by_entity else self.extractors.prediction_id,
            "incoming": INCOMING.get,
            "enter": CURRENT.set,
            "leave": CURRENT.reset,
            "clock": perf_counter,
            "bisect": bisect_left,
            "crc32": zlib.crc32,
        }

    def settle(self, runtime: Runtime) -> None:
        """Take labels, buckets and sampler from `runtime`; calls under way finish in the cells they find."""
        bounds = runtime.bounds(self.model)
        values = (self.model, self.version)
        self.guard = runtime.guard
        self._fine = bounds.fine
        self._cells = runtime.meter.block(meter.REQUEST, values, bounds)
        self._shards = runtime.meter.shards(meter.REQUEST, values, bounds) if runtime.meter.sharded else None
        self.stages = {} if self._shards is None else meter.ThreadStages(self.new_stage)
        self._rate = runtime.rate_of(self.model)
        self._crc_limit = crc_limit(self._rate)
        own = runtime.settings.model(self.model)
        self._near = (
            None
            if own.decision_threshold is None or own.near_threshold is None or not runtime.keeps
            else (own.decision_threshold, own.near_threshold)
        )
        thresholds = runtime.settings.latency_thresholds(self.model)
        self._slow = thresholds[0] if thresholds and runtime.keeps else float("inf")
        self._fast = runtime.settings.good_threshold(self.model)
        self._by_entity = runtime.by_entity(self.model) and self._names_entities(runtime)
        ident = (self._by_entity or self.extractors.prediction_id is not None) and runtime.keeps
        ident = ident and self.batch is None
        if self._looks():
            self._next = 0.0
        elif ident:
            self._next = NEVER
        else:
            self._next = self._cells[0] + geometric(self._rate, runtime.random)
        unmarked_at = NEVER if self._asks or USE.seen else self._cells[0] + UNMARKED_AFTER
        self._due = min(self._next, unmarked_at)
        self.runtime = runtime
        self._become(
            Mode(
                marked=True,
                ident=ident,
                entity=ident and self._by_entity,
                traced=runtime.spans is not None,
                sharded=self._shards is not None,
            )
        )

    def after_fork(self, runtime: Runtime) -> None:
        """In a forked child: an own lock, and settled on its own cells if it was settled before."""
        self._lock = threading.RLock()
        if self.runtime is not None:
            self.settle(runtime)

    def unsettle(self) -> None:
        """Back to the state after decoration: the next call or `init` settles anew."""
        self.runtime = self._shards = None
        self.stages = {}
        self._due = self._next = 0.0
        self._cells, self._slow = cast(meter.Cells, self._stand_in), float("inf")
        self._become(Mode())

    def mark(self) -> None:
        """Somebody asked for a running call: every later call has a marker."""
        self._become(replace(self._mode, marked=True))

    def _names_entities(self, runtime: Runtime) -> bool:
        found = (self.extractors if self.batch is None else self.batch).entity is not None
        if not found and runtime.keeps:
            say_that_no_entity_is_named(self.model)
        return found

    def _looks(self) -> bool:
        """Whether the end of every call is looked at: for its decision, or how near the threshold it is."""
        return self.extractors.decision is not None or self._near is not None or self.batch is not None

    def _become(self, mode: Mode) -> None:
        code = code_of(self._fn, mode) if mode != self._mode else None
        self._mode = mode
        if mode.sharded:  # its code asks for shards: they must be there before it
            self._set_closure()
        if code is not None:
            self.wrapper.__code__ = code
        self._set_closure()

    def _set_closure(self) -> None:
        for name, value in self._free().items():
            self._closure[name].cell_contents = value

    def _settled(self) -> Runtime:
        runtime = self.runtime
        if runtime is None:
            runtime = self._find_runtime()
            with self._lock:
                if self.runtime is None:
                    self.settle(runtime)
        return runtime

    def _guarded(self, site: str, fn: Callable[..., Any], *args: Any) -> Any:
        """What `fn` gives, None when it raises: one extractor that fails does not cost the record."""
        try:
            return fn(*args)
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow(site, problem)
            return None

    def identified(self, args: Args, kwargs: Kwargs) -> str | None:
        """The prediction id that the extractor gives; None without one, or where it fails. Never raises."""
        return cast("str | None", self._guarded("prediction_id", self._ident, args, kwargs))

    def _ident(self, args: Args, kwargs: Kwargs) -> str | None:
        take = self.extractors.prediction_id
        found = None if take is None else take(*args, **kwargs)
        return None if found is None else meter.clean_label(found)

    def _own(self) -> meter.Cells:
        return self._cells if self._shards is None else self._shards.mine()

    def new_stage(self, name: str) -> Target:
        """Cells for a stage name that is seen for the first time (on this thread, where each has its own)."""
        runtime = self._settled()
        values = (self.model, self.version, meter.data_label(name))
        bounds = runtime.stage_bounds(self.model)
        if runtime.meter.sharded:
            cells = runtime.meter.shards(meter.STAGE, values, bounds).mine()
        else:
            cells = runtime.meter.block(meter.STAGE, values, bounds)
        target = (cells, bounds.fine, values[-1])
        if len(self.stages) < meter.MOST_SETS:
            self.stages[name] = target
        return target
