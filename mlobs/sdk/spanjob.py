"""A kept call on its way to the collector. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mlobs.records import FeatureRecord
from mlobs.sdk.call import Lap
from mlobs.sdk.record import stage_spans
from mlobs.sdk.trace import TraceContext


class SpanJob(NamedTuple):
    """What a kept call's spans are built from, by the thread that sends them."""

    record: FeatureRecord
    context: TraceContext
    parent: TraceContext | None
    start: float
    """`perf_counter` seconds."""
    laps: Sequence[Lap]
    attributes: Mapping[str, Any] | None
    """More for the call's span."""
    error: str | None
    """Type of the exception; its text may hold what masking keeps out of the feature log."""
    at: float
    """End of the call by the clock of `init`, seconds since the epoch."""
    note: Callable[[tuple[str, ...], float, TraceContext, float], None]
    """Takes the call as an exemplar once its spans have arrived: series, seconds, context, `at`."""

    def arrived(self) -> None:
        """The collector has taken the spans."""
        record = self.record
        self.note(
            (record.model, record.model_version, record.outcome), record.duration_s, self.context, self.at
        )

    def stages(self) -> Sequence[tuple[str, float, float]]:
        """(name, start, end) of the passages that had ended when the call did, by `perf_counter`."""
        return list(stage_spans(self.laps, self.start + self.record.duration_s))

    @property
    def spans(self) -> int:
        """How many there will be; the same whenever it is asked."""
        return 1 + len(self.stages())
