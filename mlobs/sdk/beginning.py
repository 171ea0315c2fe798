"""The beginning of an observed call: whether it is kept, and what is taken from it before it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlobs.records import BY_ENTITY, BY_RATE
from mlobs.sdk import rows
from mlobs.sdk.call import USE, Marker, call_of
from mlobs.sdk.capture import first_mapping, snapshot
from mlobs.sdk.keep import enter_trace
from mlobs.sdk.rows import Batch
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.sampling import geometric, kept_by_id
from mlobs.sdk.settled import UNMARKED_AFTER, Args, Kwargs, Settled
from mlobs.sdk.values import BATCH, SIZES, add_value

_KEPT = -1.0
"""As the limit on a call's duration: over it whatever it took."""


class Beginning(Settled):
    """Called from the wrapper; none of these raises."""

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
        began = runtime.begin_price() if runtime.turn() else None
        marker = [self, None, self.stages] if marker is None else marker
        call = call_of(marker)
        if call.chosen is None:
            call.chosen = rows.choose(
                batch, args, kwargs, self._rate, self._crc_limit, runtime.random, self._by_entity
            )
            add_value(runtime.meter, BATCH, (self.model,), SIZES, len(call.chosen.rows))
        if number < 0 and runtime.keeps:
            rows.add(batch, call.chosen, range(len(call.chosen.rows)), "trace")
        if began is not None:
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
        marked = USE.seen or self._asks or number < UNMARKED_AFTER
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
            decides, ident, reason = None, None, BY_RATE
            try:
                decides, reason = self.extractors.decisive(self._by_entity, args, kwargs)
                ident = self.identified(args, kwargs) if reason == BY_ENTITY else decides
            except Exception as failure:  # noqa: BLE001 - the guard's
                self.guard.swallow("prediction_id", failure)
                ident = f"{runtime.bits(128):032x}"  # or a kept call would ask the extractor once more
            else:
                if not isinstance(problem, AttributeError | UnicodeEncodeError):  # what a strange text raises
                    self.guard.swallow("prediction_id", problem)
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
        began = runtime.begin_price() if runtime.turn() else None
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
                if args and type(args[0]) is dict and self.extractors.features is None:  # the usual, at once
                    call.features = args[0].copy()
                else:
                    call.features = self._guarded("features", self._features, args, kwargs)
            enter_trace(runtime, call)
        if began is not None:
            runtime.end_price(began)
        return _KEPT, marker

    def _features(self, args: Args, kwargs: Kwargs) -> dict[str, Any]:
        take = self.extractors.features or first_mapping
        return snapshot(take(*args, **kwargs))

    def broken(self, site: str, problem: Exception) -> None:
        """Something of ours failed in the wrapper."""
        self.guard.swallow(site, problem)
