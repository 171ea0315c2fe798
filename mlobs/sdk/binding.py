"""One observed function: its cells, its sampler, and what happens to its kept calls."""

from __future__ import annotations

import threading
import types
import zlib
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextvars import Token
from dataclasses import replace
from time import perf_counter
from typing import Any, cast

from mlobs import names
from mlobs.records import BY_ENTITY, BY_RATE
from mlobs.sdk import meter, rows
from mlobs.sdk.call import CURRENT, FIRST_LAP, USE, Call, Marker, Target, call_of
from mlobs.sdk.capture import Extractors, first_mapping, snapshot
from mlobs.sdk.good import spoiled
from mlobs.sdk.guard import Guard
from mlobs.sdk.keep import drop_context, enter_trace, keep
from mlobs.sdk.rows import Batch
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.sampling import NEVER, crc_limit, geometric, kept_by_id, say_that_no_entity_is_named
from mlobs.sdk.trace import INCOMING
from mlobs.sdk.values import BATCH, SIZES, add_value
from mlobs.sdk.wrap import Mode, closure_cells, code_of, make_wrapper, names_used

_KEPT = -1.0
"""As the limit on a call's duration: over it whatever it took."""

_UNMARKED_AFTER = 1000
"""Calls after which a function that nobody asked about goes without a marker."""

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


class Pending:
    """Stands for the cells of a function that is not settled: its first use settles it and goes to the real.

    So a call that began before another thread settled ends where it was counted. Reading and writing are two
    steps here: each thread writes what it added, in one step.
    """

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._seen = threading.local()

    def __getitem__(self, place: int) -> float:
        self._binding._settled()
        found = self._seen.value = self._binding._own()[place]
        return found

    def __setitem__(self, place: int, value: float) -> None:
        added, own = value - self._seen.value, self._binding._own()
        own[place] += added


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

    # -- settling ---------------------------------------------------------------------------------

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
        unmarked_at = NEVER if self._asks or USE.seen else self._cells[0] + _UNMARKED_AFTER
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

    # -- the beginning of a call; called from the wrapper, none of these raises ------------------------

    def prepare(
        self, marker: Marker | None, number: float, args: Args, kwargs: Kwargs
    ) -> tuple[float, Marker | None]:
        """Decide on a call that may be kept: the duration over which `finished` wants to see it, its marker.

        `number` is the call's, or negative where a sampled parent asks for its spans.
        """
        try:
            runtime = self.runtime
            if runtime is None:
                runtime = self._settled()
                own = self._own()
                own[0] += 1  # the wrapper counted in cells that are gone
                _, marker = self._begun(runtime, marker, own[0], args, kwargs)
                return _KEPT, marker  # `finished` counts it in the right ones
            return self._begun(runtime, marker, number, args, kwargs)
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow("prepare", problem)
            return self._slow, marker

    def _begun(
        self, runtime: Runtime, marker: Marker | None, number: float, args: Args, kwargs: Kwargs
    ) -> tuple[float, Marker | None]:
        if self.batch is not None:
            return self._begun_batch(self.batch, runtime, marker, number, args, kwargs)
        if number < 0:
            return self._kept(runtime, marker, None, "trace", args, kwargs)
        if number >= self._due and self._drawn(runtime, number):
            return self._kept(runtime, marker, None, BY_RATE, args, kwargs)
        return (_KEPT if self._looks() else self._slow), marker

    def _begun_batch(
        self,
        batch: Batch,
        runtime: Runtime,
        marker: Marker | None,
        number: float,
        args: Args,
        kwargs: Kwargs,
    ) -> tuple[float, Marker]:
        """A batch call: its rows are drawn, not the call, where they have ids."""
        began = runtime.begin_price()
        marker = [self, None, self.stages] if marker is None else marker
        call = call_of(marker)
        if call.chosen is None:
            call.chosen = rows.choose(
                batch, args, kwargs, self._rate, self._crc_limit, runtime.random, self._by_entity
            )
            add_value(runtime.meter, BATCH, (self.model,), SIZES, len(call.chosen.rows))
        if number < 0 and runtime.keeps:
            rows.add(batch, call.chosen, range(len(call.chosen.rows)), "trace")
        runtime.end_price(began)
        if call.chosen.reasons:
            call.captured = True
            return self._kept(runtime, marker, None, "trace" if number < 0 else BY_RATE, args, kwargs)
        return _KEPT, marker

    def _drawn(self, runtime: Runtime, number: float) -> bool:
        """Whether the draw ahead meets this call; draws the next one."""
        if self._mode.ident:
            self._unmark(number)
            return False
        if self._rate >= 1.0:  # every call is kept, whoever else is drawing
            self._unmark(number)
            return True
        if self._next == 0:  # every call is looked at anyway
            return runtime.random() < self._rate
        # Never waited for: a signal handler or a finaliser may call us while this thread holds it. Who finds
        # it taken goes on undrawn, and the draw stays due for the next call.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._shards is not None:
                own = self._shards.mine()
                own[-1] = own[0] + geometric(self._rate, runtime.random)
                return True
            if number < self._due:  # another thread was first
                return False
            drawn = number >= self._next
            if drawn:
                self._next = number + geometric(self._rate, runtime.random)
            self._due = self._next
        finally:
            self._lock.release()
        self._unmark(number)
        return drawn

    def _unmark(self, number: float) -> None:
        """After many calls that nobody asked about, go on without markers."""
        marked = USE.seen or self._asks or number < _UNMARKED_AFTER
        self._due = self._next
        mode = self._mode
        if mode.marked == marked:  # each kept call comes here: one cell, not all of them
            self._closure["due"].cell_contents = self._due
        else:
            self._become(replace(mode, marked=marked))

    def prepare_ident(
        self, marker: Marker | None, ident: str, args: Args, kwargs: Kwargs
    ) -> tuple[float, Marker | None]:
        """A call whose id is under the rate: kept."""
        try:
            runtime = self._settled()
            if self._by_entity:
                return self._kept(runtime, marker, self.identified(args, kwargs), BY_ENTITY, args, kwargs)
            return self._kept(runtime, marker, ident, BY_RATE, args, kwargs)
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow("prepare", problem)
            return self._slow, marker

    def strange_ident(
        self, marker: Marker | None, limit: float, problem: Exception, args: Args, kwargs: Kwargs
    ) -> tuple[float, Marker | None]:
        """An id that is no text, or an extractor that raised: the number's text, or a draw without an id."""
        try:
            runtime = self._settled()
            decides, reason = self.extractors.decisive(self._by_entity, args, kwargs)
            ident = self.identified(args, kwargs) if reason == BY_ENTITY else decides
            if runtime.random() < self._rate if decides is None else kept_by_id(decides, self._crc_limit):
                return self._kept(runtime, marker, ident, reason, args, kwargs)
            if ident is not None:
                marker = [self, None, self.stages] if marker is None else marker
                marker[1] = ident
        except Exception:  # noqa: BLE001 - the guard's
            self.guard.swallow("prediction_id", problem)
        return limit, marker

    def _kept(
        self,
        runtime: Runtime,
        marker: Marker | None,
        ident: str | None,
        reason: str,
        args: Args,
        kwargs: Kwargs,
    ) -> tuple[float, Marker]:
        began = runtime.begin_price()
        marker = [self, None, self.stages] if marker is None else marker
        if ident is not None:
            marker[1] = ident
        call = call_of(marker)
        if ident is not None:
            call._id = ident
        if reason == "trace" or not call.kept:  # always kept has weight 1, whether or not it was also drawn
            call.reason = reason
        if not call.kept:
            call.kept = True
            call.event_time = runtime.clock()
            if runtime.log is not None and not call.captured:
                call.captured = True
                call.features = self._guarded("features", self._features, args, kwargs)
            enter_trace(runtime, call)
        runtime.end_price(began)
        return _KEPT, marker

    def _features(self, args: Args, kwargs: Kwargs) -> dict[str, Any]:
        take = self.extractors.features or first_mapping
        return snapshot(take(*args, **kwargs))

    def broken(self, site: str, problem: Exception) -> None:
        """Something of ours failed in the wrapper."""
        self.guard.swallow(site, problem)

    # -- the end of a call -----------------------------------------------------------------------------

    def finished(
        self, marker: Marker | None, start: float, took: float, result: Any, args: Args, kwargs: Kwargs
    ) -> None:
        """A call that returned and is kept, slow, asked about or decided."""
        self._end(marker, names.OK, start, took, result, None, args, kwargs)

    def failed(
        self,
        marker: Marker | None,
        start: float,
        took: float,
        error: BaseException,
        args: Args,
        kwargs: Kwargs,
    ) -> None:
        """A call that raised: an Exception is an error; cancellation and exit are `cancelled`."""
        cancelled = not isinstance(error, Exception) or type(error).__name__ == "CancelledError"
        self._end(
            marker, names.CANCELLED if cancelled else names.ERROR, start, took, None, error, args, kwargs
        )

    def _end(
        self,
        marker: Marker | None,
        outcome: str,
        start: float,
        took: float,
        result: Any,
        error: BaseException | None,
        args: Args,
        kwargs: Kwargs,
    ) -> None:
        try:
            cells = self._own()
            at = 1 + names.OUTCOMES.index(outcome) * (len(self._fine) + 2)
            cells[at + 1 + bisect_left(self._fine, took)] += 1
            cells[at] += took
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow("count", problem)
        try:
            runtime = self._settled()
            call = call_of([self, None, self.stages] if marker is None else marker)
            if outcome == names.OK:
                if not (call.valid and call.fresh):
                    self._guarded("good", self._spoiled, call, took)
                self._guarded("decision", self._decide, call, runtime, result)
            if runtime.keeps and self._keeps(call, outcome, took, result):
                began = runtime.begin_price()
                self._complete(call, runtime, args, kwargs)
                entity = self._guarded("entity", self._entity, args, kwargs)
                laps = [] if marker is None else marker[FIRST_LAP:]
                if self.batch is not None and call.chosen is not None and call.reason in ("error", "slow"):
                    rows.add(self.batch, call.chosen, range(len(call.chosen.rows)), call.reason)
                keep(runtime, self, call, laps, outcome, start, took, result, error, entity, args, kwargs)
                runtime.end_price(began)
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow("keep", problem)
        if marker is not None:
            drop_context(marker, self.guard)

    def _spoiled(self, call: Call, took: float) -> None:
        reason = spoiled(bool(call.valid), self._fast is not None and took > self._fast)
        self._settled().meter.add(meter.GOOD, (self.model, self.version, reason))

    def _keeps(self, call: Call, outcome: str, took: float, result: Any) -> bool:
        """Errors, slow calls and those near the threshold are always kept; the rest if it was drawn."""
        if outcome != names.OK:
            call.reason, call.kept = "error", True
        elif took > self._slow:
            call.reason, call.kept = "slow", True
        elif self.batch is not None and self._near is not None:
            self._guarded("near", self._near_rows, self.batch, call, result)
        elif self._near is not None and self._guarded("near", self._is_near, result):
            call.reason, call.kept = "near_threshold", True
        return call.kept

    def _near_rows(self, batch: Batch, call: Call, result: Any) -> None:
        places = [place for place, value in enumerate(rows.as_sequence(result)) if self._is_near(value)]
        if places and call.chosen is not None:
            rows.add(batch, call.chosen, places, "near_threshold")
            call.reason, call.kept = "near_threshold", True

    def _guarded(self, site: str, fn: Callable[..., Any], *args: Any) -> Any:
        """What `fn` gives, None when it raises: one extractor that fails does not cost the record."""
        try:
            return fn(*args)
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow(site, problem)
            return None

    def _is_near(self, result: Any) -> bool:
        if self._near is None or not isinstance(result, int | float):
            return False
        threshold, distance = self._near
        return abs(result - threshold) <= distance

    def _entity(self, args: Args, kwargs: Kwargs) -> str | None:
        take = self.extractors.entity
        found = None if take is None else take(*args, **kwargs)
        return None if found is None else str(found)

    def _complete(self, call: Call, runtime: Runtime, args: Args, kwargs: Kwargs) -> None:
        """What the record of a kept call still lacks."""
        if runtime.log is not None and not call.captured and self.batch is None:
            taken = self._guarded("features", self._features, args, kwargs) or {}
            call.features = {**taken, **(call.features or {})}
        if call.segment is None and self.extractors.segment is not None:
            call.segment = self._guarded("segment", self._segment, args, kwargs)
        if call._id is None and self.extractors.prediction_id is not None:
            call._id = self.identified(args, kwargs)

    def identified(self, args: Args, kwargs: Kwargs) -> str | None:
        """The prediction id that the extractor gives; None without one, or where it fails. Never raises."""
        return cast("str | None", self._guarded("prediction_id", self._ident, args, kwargs))

    def _segment(self, args: Args, kwargs: Kwargs) -> str | None:
        take = self.extractors.segment
        found = None if take is None else take(*args, **kwargs)
        return None if found is None else meter.clean_label(found)

    def _ident(self, args: Args, kwargs: Kwargs) -> str | None:
        take = self.extractors.prediction_id
        found = None if take is None else take(*args, **kwargs)
        return None if found is None else meter.clean_label(found)

    def _decide(self, call: Call, runtime: Runtime, result: Any) -> None:
        if self.batch is not None and self.batch.decision is not None:
            for prediction in rows.as_sequence(result):
                value = meter.data_label(self.batch.decision(prediction))
                runtime.meter.add(meter.PREDICTIONS, (self.model, self.version, value))
            return
        if call.decision is None and self.extractors.decision is not None:
            call.decision = self.extractors.decision(result)
        if call.decision is not None:
            value = meter.data_label(call.decision)
            runtime.meter.add(meter.PREDICTIONS, (self.model, self.version, value))

    # -- generators ----------------------------------------------------------------------------------------

    def begin(self, args: Args, kwargs: Kwargs) -> Marker | None:
        """Start of a generator's call; None when we failed, and the generator runs bare."""
        try:
            runtime = self._settled()
            marker: Marker = [self, None, self.stages]
            call = call_of(marker)
            own = self._own()
            own[0] += 1
            parent = INCOMING.get() if runtime.spans is not None else None
            if parent is not None and parent.sampled:
                self._kept(runtime, marker, None, "trace", args, kwargs)
            call._id = self.identified(args, kwargs)
            entity = self._guarded("entity", self._entity, args, kwargs) if self._by_entity else None
            decides, reason = (call._id, BY_RATE) if entity is None else (entity, BY_ENTITY)
            if runtime.random() < self._rate if decides is None else kept_by_id(decides, self._crc_limit):
                self._kept(runtime, marker, call._id, reason, args, kwargs)
            call.start = perf_counter()
            return marker
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow("begin", problem)
            return None

    def enter(self, marker: Marker | None) -> Token[Marker | None] | None:
        """Make a generator's call the running one while its own code runs."""
        if marker is None:
            return None
        try:
            return CURRENT.set(marker)
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow("enter", problem)
            return None

    def leave(self, token: Token[Marker | None] | None) -> None:
        """Leave it again; closed from another context, there is nothing to restore there."""
        if token is not None:
            try:
                CURRENT.reset(token)
            except Exception as problem:  # noqa: BLE001 - the guard's
                self.guard.swallow("leave", problem)

    def gave(self, marker: Marker | None) -> None:
        """A generator gave a value."""
        if marker is not None:
            try:
                call = marker[0]
                call.items += 1
                if call.first_item is None:
                    call.first_item = perf_counter()
            except Exception as problem:  # noqa: BLE001 - the guard's
                self.guard.swallow("gave", problem)

    def stopped(self, marker: Marker | None, error: BaseException, args: Args, kwargs: Kwargs) -> None:
        """A generator's call that raised or was closed before its end."""
        if marker is not None:
            try:
                start = marker[0].start
                self.failed(marker, start, perf_counter() - start, error, args, kwargs)
            except Exception as problem:  # noqa: BLE001 - the guard's
                self.guard.swallow("stopped", problem)

    def ended(self, marker: Marker | None, result: Any, args: Args, kwargs: Kwargs) -> None:
        """A generator's call that ran to its end."""
        if marker is not None:
            try:
                start = marker[0].start
                self.finished(marker, start, perf_counter() - start, result, args, kwargs)
            except Exception as problem:  # noqa: BLE001 - the guard's
                self.guard.swallow("ended", problem)
