"""The feature log as a canary reads it: which rows are whose, what they scored and decided, which are bad."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa

from mlobs import names
from mlobs.drift import keep
from mlobs.drift.arrays import one_array
from mlobs.drift.loop import WALL_LATE, Chunk
from mlobs.drift.profile import profile
from mlobs.drift.rows import feature_table
from mlobs.drift.spec import Spec
from mlobs.errors import MlobsError
from mlobs.records import DRAWN
from mlobs.settings import Settings
from mlobs.slo import canary_keep
from mlobs.slo.canary_rows import Floats, Mask, Rows
from mlobs.store import Store

SpecOf = Callable[[str, str], Spec | None]
"""By what rows of a model's version are judged; None where nothing says so."""
_DRIFT = "feature_log"
"""The source under which the drift stage keeps its cursor."""


class LogSource(Protocol):
    """What is read: `featurelog.reader.LogReader`, or a list of chunks in a test."""

    def poll(self, cursor: bytes | None = None, limit: int = 100_000) -> Chunk: ...


class LogTail:
    """What is new in the feature log, for all canaries at once. One thread at a time."""

    def __init__(self, settings: Settings, store: Store, reader: LogSource) -> None:
        """Goes on where it was; for the first time from where the drift stage stands, not weeks before."""
        lake = settings.lake.to if settings.lake else None
        self._reader = reader
        self.source = f"{settings.feature_log} {lake or ''}".strip()
        self.late = settings.drift.late or (WALL_LATE if settings.clock == "wall" else 0.0)
        self.cursor = canary_keep.load_cursor(store, self.source)
        if self.cursor is None:
            with store.read() as connection:
                self.cursor = keep.load_account(connection, _DRIFT).cursor
        self.problem = ""
        """Why the log could not be read the last time; empty when it could."""

    def read(self, stopped: Callable[[], bool]) -> Iterator[Mapping[str, pa.Table]]:
        """By model the rows that are new. What is wrong with the log is a `problem`, never an exception."""
        self.problem = ""
        while not stopped():
            try:
                chunk = self._reader.poll(self.cursor)
            except MlobsError as problem:
                self.problem = str(problem)[:200]
                return
            except Exception as problem:  # noqa: BLE001 - told beside the verdict; read again with the next block
                self.problem = f"cannot be read: {type(problem).__name__}"  # its text may hold an address
                return
            self.cursor = chunk.cursor
            yield chunk.records
            if not chunk.more:
                return


def rows_of(table: pa.Table, version: str, spec: Spec | None, threshold: float | None) -> Rows:
    """The rows of one model version. `threshold`: from which prediction on the model decides otherwise, for
    records without a decision."""
    own = table.filter(pa.array(_words(table, "model_version") == version))
    scores = _numbers(one_array(own.column("prediction")))
    reasons = _words(own, "sampling_reason")
    weights = _numbers(one_array(own.column("weight")))
    return Rows(
        times=_numbers(one_array(own.column("event_time"))),
        weights=np.where(np.isfinite(weights) & (weights > 0), weights, 1.0),
        drawn=np.isin(reasons, DRAWN),
        ids=_words(own, "prediction_id").tolist(),
        scores=scores,
        decisions=_decisions(own, scores, threshold),
        judge=None if spec is None else _judge(own, spec),
    )


def _judge(own: pa.Table, spec: Spec) -> Callable[[Mask], tuple[int, int]]:
    """Of calls that did not fail: a failed one is an error already, and has no prediction."""
    answered = _words(own, "outcome") == names.OK

    def judged(chosen: Mask) -> tuple[int, int]:
        rows = own.filter(pa.array(chosen & answered))
        if not len(rows):
            return 0, 0
        state = profile(feature_table(rows), spec)
        return len(rows), sum(one.bad_rows.get(names.ANY_CHECK, 0) for one in state.strata.values())

    return judged


def _decisions(own: pa.Table, scores: Floats, threshold: float | None) -> list[str | None]:
    """The decision of each row; else on which side of the threshold it lies; else what was predicted."""
    said: list[str | None] = own.column("decision").to_pylist()
    predicted = one_array(own.column("prediction"))
    if None not in said:
        return said
    if not (pa.types.is_integer(predicted.type) or pa.types.is_floating(predicted.type)):
        other: list[str | None] = [None if one is None else str(one) for one in predicted.to_pylist()]
    elif threshold is not None:
        other = [None if np.isnan(one) else str(bool(one >= threshold)) for one in scores.tolist()]
    else:
        return said
    return [here if here is not None else there for here, there in zip(said, other, strict=True)]


def _numbers(array: pa.Array) -> Floats:
    """As float64; NaN where it is null or no number."""
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return np.full(len(array), np.nan)
    found = array.cast(pa.float64(), safe=False).fill_null(np.nan)
    values = np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _words(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    column = one_array(table.column(name)).cast(pa.string()).fill_null("")
    return np.array(column.to_pylist(), dtype=object)
