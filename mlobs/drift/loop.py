"""The drift service: reads the feature log, keeps windows, closes and judges them. `tick(now)` drives it.

A chunk of the log is worked in one transaction with its cursor: a restart in the middle of a window loses and
doubles nothing. A window closes when `now` has passed its end by `late`; rows that come after are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from mlobs.drift import keep
from mlobs.drift.arrivalbook import ArrivalBook
from mlobs.drift.arrivals import bare
from mlobs.drift.export import PIPELINE, DriftMetrics, LedgerCollector, gains_of
from mlobs.drift.keep import OpenKey
from mlobs.drift.persistence import persisting
from mlobs.drift.profile import profile
from mlobs.drift.read import current_breaches
from mlobs.drift.reference import WHOLE
from mlobs.drift.rows import cut, known_segment
from mlobs.drift.spec import Spec
from mlobs.drift.state import State, Stratum, empty_state, merge, merge_all
from mlobs.drift.truth import Truth
from mlobs.drift.unlike import LoggedAs
from mlobs.drift.verdicts import Stream, WindowVerdict, absent, judge, without_reference
from mlobs.drift.watch import Watched, load_references, notes_of, severity_of
from mlobs.featurelog.reader import reader_of
from mlobs.records import Breach, Ledger
from mlobs.settings import Settings
from mlobs.slices import slice_at, slices_between
from mlobs.store import Store

WALL_LATE = 5.0
"""Seconds that a window stays open by the wall clock when `drift.late` says nothing: writers commit with a
delay.
"""
POLL_ROWS = 100_000
MOST_ABSENT = 1440
"""Absent windows that one tick writes for a model: after a long sleep only the last are told one by one."""
MEASURE_EVERY = 60.0
_SOURCE = "feature_log"


class Chunk(Protocol):
    @property
    def records(self) -> dict[str, pa.Table]: ...
    @property
    def cursor(self) -> bytes: ...
    @property
    def more(self) -> bool: ...


class LogSource(Protocol):
    """What the stage reads from: `featurelog.reader.LogReader`, or a list of chunks in a test."""

    def poll(self, cursor: bytes | None = None, limit: int = POLL_ROWS) -> Chunk: ...

    def close(self, cursor: bytes | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class DriftTick:
    """What one tick did."""

    at: float
    rows: int
    late: int
    windows: tuple[WindowVerdict, ...]
    """Those that were closed, segments included."""
    breaches: tuple[Breach, ...]
    """All that are open now."""
    opened: int
    closed: int


class DriftStage:
    """One per `mlobs serve`. Not thread-safe: whoever calls `tick` calls it from one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        registry: CollectorRegistry,
        source: LogSource | None = None,
        export_ledger: bool = True,
        logged_as: LoggedAs = lambda _model, _feature: ("clear", 0),
    ) -> None:
        """Loads the references and the open windows. `logged_as`: what masking makes of each feature. Raises
        ConfigError or UnreadableError for a reference that cannot be read, all problems at once."""
        self.settings = settings
        self.store = store
        self._late = settings.drift.late or (WALL_LATE if settings.clock == "wall" else 0.0)
        self._source = source if source is not None else _reader(settings)
        self._watched = load_references(settings, logged_as)
        self._metrics = DriftMetrics(registry, [model.name for model in settings.models])
        self._truth = Truth(settings, registry)
        self._measured = float("-inf")
        if export_ledger:
            registry.register(LedgerCollector(self.ledger))
        self._last_tick: float | None = None
        with store.write() as connection:
            for model in settings.models:
                keep.save_notes(
                    connection, model.name, self._reference_name(model.name), self.notes(model.name)
                )
        with store.read() as connection:
            self._account = keep.load_account(connection, _SOURCE)
            self._open = self._still_fitting(keep.load_open(connection))
            self._closed_until = keep.closed_until(connection)
            self._arrivals = ArrivalBook(settings, self._watched, connection)
            self._metrics.add(keep.load_totals(connection))
            self._metrics.breaches(current_breaches(connection))

    def tick(self, now: float) -> DriftTick:
        """Read what is new, close what is due, judge it. `now` is event time in seconds."""
        before = self._account
        while self._source is not None:
            chunk = self._source.poll(self._account.cursor, POLL_ROWS)
            self._take(chunk, now)
            if not chunk.more:
                break
        windows, opened, closed = self._close(now)
        more, fewer = self._arrivals.settle(self.store, now)
        with self.store.read() as connection:
            firing = current_breaches(connection)
        self._metrics.breaches(firing)
        self._measure(now)
        self._last_tick = now
        return DriftTick(
            now,
            self._account.offered - before.offered,
            self._account.late - before.late,
            tuple(windows),
            tuple(firing),
            opened + more,
            closed + fewer,
        )

    def _measure(self, now: float) -> None:
        """Once a minute at most: what it costs grows with the predictions that are kept."""
        if not self._truth.models or now < self._measured + MEASURE_EVERY:
            return
        self._measured = now
        with self.store.write() as connection:
            self._truth.prune(connection, now)
        with self.store.read() as connection:
            self._truth.measure(connection, now)

    def close(self) -> None:
        """After the last tick: lets go of the source, which is told how far it was read."""
        if self._source is not None:
            self._source.close(self._account.cursor)

    def ledger(self) -> Ledger:
        """Rows: offered = delivered (in closed windows) + late + unusable + queued (in open windows)."""
        account = self._account
        return Ledger(
            PIPELINE,
            offered=account.offered,
            delivered=account.delivered,
            dropped={"late": account.late, "unusable": account.unusable},
            queued=sum(state.rows for state in self._open.values()),
            last_success=self._last_tick,
            event_time_in=account.event_time,
            event_time_out=max(self._closed_until.values(), default=None),
        )

    def notes(self, model: str) -> dict[tuple[str, str], str]:
        """Checks that are off, by (feature, check), with the reason."""
        return notes_of(self._watched.get(model), self.settings.model(model), self.settings.drift.margin)

    def spec_of(self, model: str, version: str) -> Spec | None:
        """By what rows of this version are judged; None without a reference that is of it."""
        watched = self._for_version(model, version)
        return None if watched is None else watched.spec

    def _reference_name(self, model: str) -> str:
        watched = self._watched.get(model)
        return watched.reference.name if watched else ""

    def _for_version(self, model: str, version: str) -> Watched | None:
        watched = self._watched.get(model)
        if watched is None or watched.reference.model_version not in ("", version):
            return None
        return watched

    def _still_fitting(self, found: dict[OpenKey, State]) -> dict[OpenKey, State]:
        """Open windows counted in the bins of another reference keep their number of rows and nothing
        else.
        """
        kept = {}
        for key, state in found.items():
            watched = self._for_version(key.stream.model, key.stream.version)
            fits = state.reference == (watched.reference.id if watched else "")
            kept[key] = state if fits else _only_rows(state)
        return kept

    def _take(self, chunk: Chunk, now: float) -> None:
        """Merge a chunk into the open windows and store both with its cursor, in one transaction."""
        touched: dict[OpenKey, State] = {}
        rows = late = lost = 0
        newest = self._account.event_time
        drift = self.settings.drift
        for model, records in chunk.records.items():
            rows += records.num_rows
            pieces, unusable = cut(records, drift.window, drift.zone)
            lost += unusable
            for piece in pieces:
                newest = max(newest or piece.newest, piece.newest)
                self._arrivals.seen(model, piece.newest, now)
                if piece.window.start < self._closed_until.get(model, float("-inf")):
                    late += piece.features.num_rows
                    continue
                watched = self._for_version(model, piece.version)
                segment = known_segment(piece.segment, watched.segments if watched else frozenset())
                key = OpenKey(Stream(model, piece.version, segment), piece.window.start, piece.window.end)
                known = touched.get(key, self._open.get(key))
                touched[key] = _grown(known, piece.features, piece.weights, watched)
        account = replace(
            self._account,
            cursor=chunk.cursor,
            offered=self._account.offered + rows,
            late=self._account.late + late,
            unusable=self._account.unusable + lost,
            event_time=newest,
        )
        if account == self._account:
            return
        with self.store.write() as connection:
            keep.save_open(connection, touched)
            keep.save_account(connection, _SOURCE, account)
            self._arrivals.save(connection)
            self._truth.take(connection, chunk.records, getattr(chunk, "labels", None))
        self._open.update(touched)
        self._account = account

    def _close(self, now: float) -> tuple[list[WindowVerdict], int, int]:
        due = sorted(
            (key for key in self._open if key.end + self._late <= now),
            key=lambda key: (key.start, key.stream.model, key.stream.version, key.stream.segment),
        )
        windows: list[tuple[WindowVerdict, State | None]] = [(gone, None) for gone in self._absences(now)]
        for stream, start, end in dict.fromkeys(
            (Stream(key.stream.model, key.stream.version, ""), key.start, key.end) for key in due
        ):
            parts = {key.stream.segment: self._open[key] for key in due if _belongs(key, stream, start)}
            windows.extend(self._judge(stream, start, end, parts))
        if not windows:
            return [], 0, 0
        account = replace(
            self._account, delivered=self._account.delivered + sum(self._open[key].rows for key in due)
        )
        opened = closed = 0
        windows.sort(key=lambda pair: pair[0].start)
        with self.store.write() as connection:
            keep.delete_open(connection, due)
            keep.save_account(connection, _SOURCE, account)
            for window, state in windows:
                keep.save_window(connection, window)
                if window.judged:
                    more, fewer = self._settle(connection, window, now)
                    opened, closed = opened + more, closed + fewer
                if window.stream.segment == WHOLE:
                    keep.add_totals(connection, gains_of(window, state))
            for model, start, end in sorted(
                {(window.stream.model, window.start, window.end) for window, _ in windows}
            ):
                states = [self._open[key] for key in due if (key.stream.model, key.start) == (model, start)]
                self._arrivals.closed(connection, model, start, end, states)
            for model in {window.stream.model for window, _ in windows}:
                for stream in keep.retired(connection, model, self.settings.drift.persistence[1]):
                    closed += keep.sync_breaches(connection, stream, [], now)[1]
                keep.prune(connection, model)
        self._account = account
        for key in due:
            del self._open[key]
        for window, state in windows:
            model = window.stream.model
            self._closed_until[model] = max(self._closed_until.get(model, window.end), window.end)
            if window.stream.segment == WHOLE:
                self._metrics.add(gains_of(window, state))
                self._metrics.show(window)
        return [window for window, _ in windows], opened, closed

    def _judge(
        self, stream: Stream, start: float, end: float, parts: dict[str, State]
    ) -> list[tuple[WindowVerdict, State | None]]:
        """The whole window first, then the segments that the reference knows."""
        watched = self._for_version(stream.model, stream.version)
        rows = sum(state.rows for state in parts.values())
        if watched is None:
            return [(without_reference(stream, start, end, rows), None)]
        drift = self.settings.drift
        fitting = {name: state for name, state in parts.items() if state.reference == watched.reference.id}
        whole = merge_all(fitting.values(), watched.reference.id)
        found: list[tuple[WindowVerdict, State | None]] = []
        for segment, state in [(WHOLE, whole), *sorted(fitting.items())]:
            if (segment == WHOLE and found) or segment not in watched.reference.days:
                continue
            own = replace(stream, segment=segment)
            found.append(
                (
                    judge(
                        own, start, end, state, watched.reference, watched.spec, drift.min_rows, drift.margin
                    ),
                    state,
                )
            )
        return found

    def _settle(self, connection: Connection, window: WindowVerdict, now: float) -> tuple[int, int]:
        k, n = self.settings.drift.persistence
        findings = persisting(keep.history(connection, window.stream, n), k, n)
        model = self.settings.model(window.stream.model)
        rated = [(finding, severity_of(model, finding.feature)) for finding in findings]
        return keep.sync_breaches(connection, window.stream, rated, now)

    def _absences(self, now: float) -> list[WindowVerdict]:
        """Windows in which a model that had traffic before has none in any version."""
        found: list[WindowVerdict] = []
        drift = self.settings.drift
        for model, until in self._closed_until.items():
            present = {key.start for key in self._open if key.stream.model == model}
            first = max(until, slice_at(now, drift.window, drift.zone).start - MOST_ABSENT * drift.window)
            whole = slices_between(first, now - self._late, drift.window, drift.zone)
            found.extend(absent(model, one.start, one.end) for one in whole if one.start not in present)
        return found


def _belongs(key: OpenKey, stream: Stream, start: float) -> bool:
    return (key.stream.model, key.stream.version, key.start) == (stream.model, stream.version, start)


def _grown(
    known: State | None, features: pa.Table, weights: npt.NDArray[np.float64], watched: Watched | None
) -> State:
    """The open window with more rows in it."""
    if watched is None or (known is not None and known.reference != watched.reference.id):
        fresh = State("", bare(weights))
        return fresh if known is None else merge(_only_rows(known), fresh)
    fresh = profile(features, watched.spec, weights)
    return merge(known if known is not None else empty_state(watched.reference.id), fresh)


def _only_rows(state: State) -> State:
    return State("", {weight: Stratum(one.rows, {}, {}) for weight, one in state.strata.items()})


def _reader(settings: Settings) -> LogSource | None:
    return reader_of(settings)
