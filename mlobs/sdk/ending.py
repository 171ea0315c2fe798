"""The end of an observed call: its count, and for a kept one what is handed over."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from mlobs import names
from mlobs.sdk import meter, rows
from mlobs.sdk.beginning import Beginning
from mlobs.sdk.call import FIRST_LAP, Call, Marker, call_of
from mlobs.sdk.capture import Extractor
from mlobs.sdk.good import spoiled
from mlobs.sdk.keep import drop_context, keep
from mlobs.sdk.rows import Batch
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.settled import Args, Kwargs


class Ending(Beginning):
    """Called from the wrapper; none of these raises."""

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
                if (
                    call.decision is not None
                    or self.extractors.decision is not None
                    or self.batch is not None
                ):
                    self._guarded("decision", self._decide, call, runtime, result)
            if runtime.keeps and self._keeps(call, outcome, took, result):
                began = runtime.begin_price() if runtime.turn() else None
                self._complete(call, runtime, args, kwargs)
                take = self.extractors.entity
                entity = None if take is None else self._guarded("entity", self._entity, take, args, kwargs)
                laps = [] if marker is None else marker[FIRST_LAP:]
                if self.batch is not None and call.chosen is not None and call.reason in ("error", "slow"):
                    rows.add(self.batch, call.chosen, range(len(call.chosen.rows)), call.reason)
                keep(runtime, self, call, laps, outcome, start, took, result, error, entity, args, kwargs)
                if began is not None:
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

    def _is_near(self, result: Any) -> bool:
        if self._near is None or not isinstance(result, int | float):
            return False
        threshold, distance = self._near
        return abs(result - threshold) <= distance

    def _entity(self, take: Extractor, args: Args, kwargs: Kwargs) -> str | None:
        found = take(*args, **kwargs)
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

    def _segment(self, args: Args, kwargs: Kwargs) -> str | None:
        take = self.extractors.segment
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
