"""Looking back without a cursor: calls by their id, and the newest of a time range, out of spool and lake.

What is looked at for an id is bounded, for anybody can write an address with an id that never was: segments
are searched as bytes, Parquet files are asked by their Bloom filters, and after `LOOKS` files or
`SPOOL_BYTES` of the spool it ends. With a time it begins there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlobs.featurelog.aliases import NONE, Aliases, renamed
from mlobs.featurelog.columns import RECORD_COLUMNS, Part, combine, table
from mlobs.featurelog.frames import RECORDS
from mlobs.featurelog.lake import LATE_COMMITS, Entry, Lake, LakeFile, stamp, standing
from mlobs.featurelog.segments import Counts, GoneError, built, model_of, read_from, segment_blocks, times_of
from mlobs.featurelog.spool import Segment
from mlobs.records import FeatureRecord

LOOKS: Final = 2_000
"""Segments, manifest entries and Parquet files that are opened for an id at most."""
SPOOL_BYTES: Final = 1 << 30
"""Bytes of the spool that are searched for an id at most."""
_LAST_TIME: Final = 253402300799.0
"""The last second of 9999."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a log lies."""

    segments: Callable[[], list[Segment]]
    lake: Lake
    aliases: Mapping[str, Aliases]
    spans: dict[str, tuple[float, float]]
    """Event times of sealed segments that were scanned, by name: they do not change any more."""


def find(
    places: Places,
    wanted: Mapping[str, Collection[str]],
    start: float,
    end: float,
    limit: int,
    looks: int = LOOKS,
) -> list[FeatureRecord]:
    """Records whose column `name` is one of `wanted[name]`, as `LogReader.find` gives them."""
    found: dict[str, FeatureRecord] = {}
    for one in _holding(places, wanted, start, end, looks):
        times = one.column("event_time")
        inside = one.filter(pc.and_(pc.greater_equal(times, start), pc.less_equal(times, end)))
        for row in inside.to_pylist():
            found.setdefault(row["event_id"], _as_record(row))
        if len(found) >= limit:
            break
    return sorted(found.values(), key=lambda record: record.event_time)[:limit]


def scan(places: Places, start: float, end: float, model: str, limit: int) -> pa.Table:
    """The newest `limit` records of the time range, as `LogReader.scan` gives them."""
    tables, times, floor = [table([], RECORD_COLUMNS, {})], np.zeros(0), [-math.inf]
    seen: set[str] = set()
    for one in _newest_first(places, start, end, model, lambda: floor[0]):
        ids = one.column("event_id").to_pylist()
        fresh_rows = [each not in seen for each in ids]
        if not all(fresh_rows):
            one = one.filter(pa.array(fresh_rows))
        seen.update(ids)
        tables.append(one)
        own = np.asarray(one.column("event_time").to_numpy(), dtype=float)
        times = np.concatenate([times, np.where(np.isnan(own), -math.inf, own)])
        if 0 < limit <= len(times):
            times = np.partition(times, len(times) - limit)[-limit:]
            floor[0] = float(times[0])
    found = combine(tables, RECORD_COLUMNS, {}).sort_by("event_time")
    return found.slice(max(0, len(found) - limit))


# -- by id --------------------------------------------------------------------------------------------------


def _holding(
    places: Places, wanted: Mapping[str, Collection[str]], start: float, end: float, looks: int
) -> Iterator[pa.Table]:
    """Tables of rows with a wanted id; of other times too. At most `looks` files are opened."""
    needles = [each.encode() for ids in wanted.values() for each in ids]
    left, budget = looks, SPOOL_BYTES
    for segment in sorted(places.segments(), key=_age):
        if not _overlaps(places.spans.get(segment.name), start, end):
            continue
        left, budget = left - 1, budget - _size(segment)
        if left < 0 or budget < 0:
            return
        if _mentions(segment, needles):
            parts, _span = _parts_within(segment, start, end, "")
            if parts:
                yield _chosen(_in_force(places, built(parts, RECORD_COLUMNS, {}, Counts()), ""), wanted)
    for name in _entries(places.lake, start, end):
        left -= 1
        entry = places.lake.entry(name) if left >= 0 else None
        for file in () if entry is None else sorted(entry.files, key=lambda file: -file.end):
            if file.model is None or not _overlaps((file.start, file.end), start, end):
                continue
            left -= 1
            if left < 0:
                return
            try:
                rows = places.lake.rows_with(file, wanted)
            except (OSError, pa.ArrowException):
                continue  # expired, or broken: a poll counts it
            if rows is not None and entry is not None:
                yield _in_force(places, combine([standing(rows, entry)], RECORD_COLUMNS, {}), file.model)
        if left < 0:
            return


def _entries(lake: Lake, start: float, end: float) -> list[str]:
    """Names of the manifest entries that may hold what happened between `start` and `end`: those from soon
    after first where an end is given, else the newest. What an entry holds is older than its commit, were the
    clock that dated it hours behind.
    """
    bound = stamp(min(max(0.0, start - LATE_COMMITS), _LAST_TIME))
    names = [name for name in lake.names() if name >= bound]
    return names if end < math.inf else names[::-1]


def _mentions(segment: Segment, needles: list[bytes]) -> bool:
    """One of the texts is in the segment's bytes: texts stand there as they are."""
    try:
        data = read_from(segment.path)
    except (GoneError, OSError):
        return False  # in the lake by now, or away: a poll counts it
    return any(each in data for each in needles)


def _chosen(one: pa.Table, wanted: Mapping[str, Collection[str]]) -> pa.Table:
    hits = np.zeros(len(one), bool)
    for name, ids in wanted.items():
        hits |= np.asarray(pc.is_in(one.column(name), pa.array(sorted(ids), pa.string())))
    return one.filter(pa.array(hits))


def _size(segment: Segment) -> int:
    try:
        return segment.path.stat().st_size
    except OSError:
        return 0  # sealed or gone since it was listed


# -- by time ------------------------------------------------------------------------------------------------


def _newest_first(
    places: Places, start: float, end: float, model: str, floor: Callable[[], float]
) -> Iterable[pa.Table]:
    """Tables of rows within the time range, of the newest segment or file first; without those that ended
    before `floor()`: a segment at the latest when it was last written to.
    """
    for segment in sorted(places.segments(), key=_age):
        span = places.spans.get(segment.name)
        if not _overlaps(span, start, end):
            continue
        if (_written(segment) if span is None else span[1]) < floor():
            continue
        parts, span = _parts_within(segment, start, end, model)
        if segment.sealed and span is not None:
            places.spans[segment.name] = span
        if parts:
            yield _in_force(places, built(parts, RECORD_COLUMNS, {}, Counts()), model)
    for entry, file in _files_newest_first(places.lake, lambda: max(start, floor())):
        if (
            file.model is None
            or model not in ("", file.model)
            or not _overlaps((file.start, file.end), max(start, floor()), end)
        ):
            continue
        try:
            one = combine([standing(places.lake.table(file), entry)], RECORD_COLUMNS, {})
        except (FileNotFoundError, pa.ArrowException):
            continue  # expired, or broken: a poll counts it
        times = one.column("event_time")
        inside = one.filter(pc.and_(pc.greater_equal(times, start), pc.less_equal(times, end)))
        yield _in_force(places, inside, file.model)


def _files_newest_first(lake: Lake, since: Callable[[], float]) -> Iterator[tuple[Entry, LakeFile]]:
    """Files of the entry that was committed last first. One from before `since()`, by its name, is not
    even fetched: what it holds is older, were the clock that dated it hours behind.
    """
    for name in reversed(lake.names()):
        if name < stamp(min(max(0.0, since() - LATE_COMMITS), _LAST_TIME)):
            return
        entry = lake.entry(name)
        if entry is not None:
            for file in sorted(entry.files, key=lambda file: -file.end):
                yield entry, file


def _in_force(places: Places, one: pa.Table, model: str) -> pa.Table:
    """Features under the names in force; of a table of all models those of each."""
    if not places.aliases:
        return one
    if model:
        return renamed(one, places.aliases.get(model, NONE), {})
    parts = [
        renamed(one.filter(pc.equal(one.column("model"), each)), places.aliases.get(each, NONE), {})
        for each in one.column("model").unique().to_pylist()
    ]
    return combine(parts, RECORD_COLUMNS, {}) if parts else one


def _parts_within(
    segment: Segment, start: float, end: float, model: str
) -> tuple[list[Part], tuple[float, float] | None]:
    """Blocks of a segment that have rows in the time range, and the span of its event times when it was
    readable.
    """
    counts, parts = Counts(), []
    low, high = math.inf, -math.inf
    try:
        for read in segment_blocks(segment, 0, counts, grows=True):
            if read.kind != RECORDS or not read.block["n"]:
                continue
            times = times_of(read.block)
            low, high = float(np.fmin.reduce(times, initial=low)), float(np.fmax.reduce(times, initial=high))
            inside = (times >= start) & (times <= end)
            if inside.any() and model in ("", model_of(read.block)):
                parts.append(Part(read.block, inside))
    except (GoneError, OSError):
        return parts, None
    return parts, (low, high)


def _age(segment: Segment) -> float:
    """Sorts the segment that was written to last to the front."""
    try:
        return -segment.path.stat().st_mtime
    except OSError:
        return 0.0  # sealed or gone since it was listed


def _written(segment: Segment) -> float:
    """When the segment was last written to, seconds; infinity where that cannot be told any more."""
    return -_age(segment) or math.inf


def _overlaps(span: tuple[float, float] | None, start: float, end: float) -> bool:
    return span is None or (span[0] <= end and span[1] >= start)


def _as_record(row: Mapping[str, Any]) -> FeatureRecord:
    own = {name: value for name, value in row.items() if name in FeatureRecord._fields and value is not None}
    own["features"] = dict(row["features"] or {})
    stages = row["stage_durations_s"] or {}
    own["stage_durations_s"] = {name: value for name, value in stages.items() if value is not None}
    return FeatureRecord(**{**_ABSENT, **own})


_ABSENT: Final[dict[str, Any]] = {
    **dict.fromkeys(("event_id", "prediction_id", "service", "model", "model_version", "outcome"), ""),
    **dict.fromkeys(("prediction", "decision")),
    **dict.fromkeys(("event_time", "duration_s"), 0.0),
}
