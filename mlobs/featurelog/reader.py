"""The reading half: `LogReader(source).poll(cursor)` gives what is new, in columns.

The cursor is opaque and says it all: how far each writer's segments were read, which numbers were seen,
which type each feature has. Whoever stores it together with what was made of the chunk reads every record
once, whatever is killed in between. Torn tails wait while their segment grows, and are passed over once it
cannot grow any more; broken frames are skipped and counted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from mlobs.errors import Problem, UnreadableError
from mlobs.featurelog.blocks import Block, block_numbers, unpack_block, unpack_column
from mlobs.featurelog.columns import LABEL_COLUMNS, RECORD_COLUMNS, Part, kept_rows, table
from mlobs.featurelog.frames import END, LABELS, RECORDS, Damage, unpack
from mlobs.featurelog.sequences import Seen
from mlobs.featurelog.spool import OPEN, SEALED, Segment, list_segments
from mlobs.records import FeatureRecord

CURSOR_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ReadStats:
    """What one poll met. `gaps` is a state and not an increment: the numbers missing by now, over all
    writers.
    """

    records: int = 0
    labels: int = 0
    duplicates: int = 0
    gaps: int = 0
    unreadable: int = 0
    """Broken stretches in the middle of a segment, and blocks that could not be understood."""
    torn: int = 0
    """Segments that end inside a frame: what their writer had in hand, and had not acknowledged, when it
    died.
    """


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one poll found. Tables hold rows in the order of each writer, writers merged by event time."""

    records: dict[str, pa.Table]
    labels: pa.Table
    cursor: bytes
    stats: ReadStats
    more: bool
    """The limit ended the poll: there is more to read at once."""


@dataclass(slots=True)
class _Position:
    """How far a writer was read: everything before byte `offset` of segment `number`."""

    number: int = 0
    offset: int = 0


@dataclass(slots=True)
class _Account:
    """Which numbers of a writer were seen, wherever they were read."""

    seen: Seen = field(default_factory=Seen)
    first: int = 0
    """Numbers below it are not missed: their segments were gone before this reader came."""
    offered: int = 0
    """Numbers that the writer is known to have given out."""


class LogReader:
    """Reads the feature log at `source`, its directory. Keeps nothing between polls; safe beside writers."""

    def __init__(self, source: str | Path) -> None:
        self.folder = Path(str(source).removeprefix("file://"))
        # Of sealed segments that were scanned: they do not change any more.
        self._spans: dict[str, tuple[float, float]] = {}

    def poll(self, cursor: bytes | None = None, limit: int = 100_000) -> Chunk:
        """What came after `cursor` (None: from the beginning), up to about `limit` records and labels.

        Raises UnreadableError for a cursor that is none. A log that does not exist yet is an empty one.
        """
        state = _load_cursor(cursor)
        positions, accounts, types = state.positions, state.accounts, state.types
        counts = _Counts()
        records: dict[str, list[Part]] = {}
        labels: list[Part] = []
        rows, more = 0, False
        for kind, block, writer, number, end in self._frames(positions, counts):
            account = accounts.setdefault(block["writer"], _Account())
            part = _fresh(block, account, number, counts)
            positions[writer] = _Position(number, end)
            if part is None or kind not in (RECORDS, LABELS):
                continue
            if kind == LABELS:
                labels.append(part)
            else:
                records.setdefault(_model_of(block), []).append(part)
            rows += kept_rows(part)
            if rows >= limit:
                more = True
                break
        tables = {}
        for model, parts in records.items():
            tables[model] = _build(parts, RECORD_COLUMNS, types.setdefault(f"m:{model}", {}), counts)
        label_table = _build(labels, LABEL_COLUMNS, types.setdefault("labels", {}), counts)
        stats = ReadStats(
            sum(len(each) for each in tables.values()),
            len(label_table),
            counts.duplicates,
            sum(each.seen.gaps(each.first, each.offered) for each in accounts.values()),
            counts.unreadable,
            counts.torn,
        )
        return Chunk(tables, label_table, _dump_cursor(state), stats, more)

    def find(
        self,
        *,
        trace_ids: Iterable[str] = (),
        prediction_ids: Iterable[str] = (),
        start: float = float("-inf"),
        end: float = float("inf"),
        limit: int = 100,
    ) -> list[FeatureRecord]:
        """Records by trace or prediction id whose event time lies in `[start, end]`: evidence for a page.

        Reads the whole log from its end; each id once. What masking changed is as the log has it.
        """
        wanted = {"trace_id": set(trace_ids), "prediction_id": set(prediction_ids)}
        found: dict[str, FeatureRecord] = {}
        counts = _Counts()
        for segment in reversed(list_segments(self.folder)):
            for kind, block, _end in _segment_blocks(segment, 0, counts, grows=True):
                if kind != RECORDS or not block["n"]:
                    continue
                for record in _matching(block, wanted, start, end):
                    found.setdefault(record.event_id, record)
            if len(found) >= limit:
                break
        return sorted(found.values(), key=lambda record: record.event_time)[:limit]

    def scan(self, start: float, end: float, model: str = "", limit: int = 20_000) -> pa.Table:
        """The newest `limit` records with event time in `[start, end]`, by time; `model` "" is all of them.

        The columns of `poll`. Segments are read from the newest backwards, and one whose span of time is
        known from an earlier scan and lies outside is not opened.
        """
        counts = _Counts()
        accounts: dict[str, _Account] = {}
        parts: list[Part] = []
        rows = 0
        for segment in sorted(list_segments(self.folder), key=_age):
            if not _overlaps(self._spans.get(segment.name), start, end):
                continue
            low, high = float("inf"), float("-inf")
            for kind, block, _end in _segment_blocks(segment, 0, counts, grows=True):
                if kind != RECORDS or not block["n"]:
                    continue
                times = _times(block)
                low = float(np.fmin.reduce(times, initial=low))
                high = float(np.fmax.reduce(times, initial=high))
                inside = (times >= start) & (times <= end)
                if not inside.any() or model not in ("", _model_of(block)):
                    continue
                part = _fresh(block, accounts.setdefault(block["writer"], _Account()), 0, counts)
                if part is not None:
                    keep = inside if part.keep is None else inside & part.keep
                    parts.append(Part(block, keep))
                    rows += int(np.count_nonzero(keep))
            if segment.sealed:
                self._spans[segment.name] = (low, high)
            if rows >= limit:
                break
        found = _build(parts, RECORD_COLUMNS, {}, counts).sort_by("event_time")
        return found.slice(max(0, len(found) - limit))

    def _frames(
        self, positions: dict[str, _Position], counts: _Counts
    ) -> Iterator[tuple[int, Block, str, int, int]]:
        """(kind, block, writer, segment, end) of all that is new, the writer that is furthest back first."""
        segments: dict[str, list[Segment]] = {}
        for segment in list_segments(self.folder):
            segments.setdefault(segment.writer, []).append(segment)
        heap: list[tuple[float, str, Iterator[tuple[int, Block, int, int]]]] = []
        for writer, own in segments.items():
            positions.setdefault(writer, _Position())
            stream = _writer_blocks(own, positions, counts)
            heap.append((float("-inf"), writer, stream))
        heapq.heapify(heap)
        while heap:
            time, writer, stream = heapq.heappop(heap)
            following = next(stream, None)
            if following is None:
                continue
            kind, block, number, end = following
            yield kind, block, writer, number, end
            heapq.heappush(heap, (_block_time(block, time), writer, stream))


@dataclass(slots=True)
class _Counts:
    duplicates: int = 0
    unreadable: int = 0
    torn: int = 0


def _writer_blocks(
    segments: list[Segment], positions: dict[str, _Position], counts: _Counts
) -> Iterator[tuple[int, Block, int, int]]:
    """(kind, block, segment, end) of one writer's segments, from its position on."""
    writer = segments[0].writer
    number, offset = positions[writer].number, positions[writer].offset
    for place, segment in enumerate(segments):
        if segment.number < number:
            continue
        start = offset if segment.number == number else 0
        grows = not segment.sealed and place == len(segments) - 1
        for kind, block, end in _segment_blocks(segment, start, counts, grows):
            yield kind, block, segment.number, end
        if not grows:
            positions[writer] = _Position(segment.number + 1, 0)


def _segment_blocks(
    segment: Segment, start: int, counts: _Counts, grows: bool
) -> Iterator[tuple[int, Block, int]]:
    data = _read_from(segment.path, start)
    if data is None:
        counts.unreadable += 1
        return
    for frame in unpack(data):
        if isinstance(frame, Damage):
            if frame.torn:
                counts.torn += not grows
            else:
                counts.unreadable += 1
            continue
        try:
            block = unpack_block(frame.payload)
        except ValueError:
            counts.unreadable += 1
            continue
        yield frame.kind, block, start + frame.end


def _read_from(path: Path, start: int) -> bytes | None:
    """The file from byte `start` on, by its name of before or after sealing; None when unreadable."""
    for candidate in (path, path.with_suffix(SEALED), path.with_suffix(OPEN)):
        try:
            with candidate.open("rb") as handle:
                handle.seek(start)
                return handle.read()
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return b""  # compacted or expired since it was listed: what is gone is read elsewhere


def _fresh(block: Block, account: _Account, segment: int, counts: _Counts) -> Part | None:
    """The rows of `block` that were not seen before; marks them as seen."""
    account.offered = max(account.offered, int(block.get("offered", 0)))
    rows = block["n"]
    if not rows:
        return None
    numbers = block_numbers(block)
    if segment and not account.seen.starts:
        account.first = numbers[0]
    low, high = numbers[0], numbers[-1] + 1
    if high - low == rows and account.seen.overlaps(low, high) == 0:
        account.seen.add_range(low, high)
        return Part(block, None)
    keep = np.fromiter((account.seen.add(number) for number in numbers), bool, rows)
    fresh = int(np.count_nonzero(keep))
    counts.duplicates += rows - fresh
    if not fresh:
        return None
    return Part(block, None if fresh == rows else keep)


def _model_of(block: Block) -> str:
    try:
        return str(unpack_column(block["fields"]["model"], block["n"])[0] or "")
    except (KeyError, IndexError, TypeError, ValueError):  # a broken block; building its table counts it
        return ""


def _times(block: Block) -> Any:
    """Event times in seconds; NaN where there is none."""
    try:
        values = unpack_column(block["fields"]["event_time"], block["n"])
        return np.array([np.nan if value is None else value for value in values], float)
    except (KeyError, IndexError, TypeError, ValueError):  # as above
        return np.full(block["n"], np.nan)


def _age(segment: Segment) -> float:
    """Sorts the segment that was written to last to the front."""
    try:
        return -segment.path.stat().st_mtime
    except OSError:
        return 0.0  # sealed or gone since it was listed


def _overlaps(span: tuple[float, float] | None, start: float, end: float) -> bool:
    return span is None or (span[0] <= end and span[1] >= start)


def _block_time(block: Block, before: float) -> float:
    try:
        times = unpack_column(block["fields"]["event_time"], block["n"])
        return float(times[-1])
    except (KeyError, IndexError, TypeError, ValueError):  # an end frame, or a time that is none
        return before


def _build(parts: list[Part], columns: Any, types: dict[str, str], counts: _Counts) -> pa.Table:
    """The table of the parts; where a broken block spoils it, that block is left out and counted."""
    try:
        return table(parts, columns, types)
    except (ValueError, TypeError, KeyError, IndexError, pa.ArrowException):
        good = []
        for part in parts:
            try:
                table([part], columns, {})
                good.append(part)
            except (ValueError, TypeError, KeyError, IndexError, pa.ArrowException):
                counts.unreadable += 1
        return table(good, columns, types)


def _matching(block: Block, wanted: dict[str, set[str]], start: float, end: float) -> Iterator[FeatureRecord]:
    rows = block["n"]
    fields = block["fields"]
    hits: set[int] = set()
    for name, ids in wanted.items():
        if ids and name in fields:
            values = unpack_column(fields[name], rows)
            hits.update(row for row, value in enumerate(values) if value in ids)
    if not hits:
        return
    columns = {name: unpack_column(column, rows) for name, column in fields.items()}
    features = {name: unpack_column(column, rows) for name, column in block["features"].items()}
    stages = {name: unpack_column(column, rows) for name, column in block["stages"].items()}
    numbers = block_numbers(block)
    for row in sorted(hits):
        own = {name: values[row] for name, values in columns.items() if name in FeatureRecord._fields}
        if not start <= (own.get("event_time") or 0.0) <= end:
            continue
        yield FeatureRecord(
            **{
                **_ABSENT,
                **own,
                "event_id": f"{block['writer']}-{numbers[row]}",
                "features": {name: values[row] for name, values in features.items()},
                "stage_durations_s": {
                    name: values[row] for name, values in stages.items() if values[row] is not None
                },
            }
        )


_ABSENT: Final[dict[str, Any]] = {
    **dict.fromkeys(("prediction_id", "service", "model", "model_version", "outcome"), ""),
    **dict.fromkeys(("prediction", "decision")),
    **dict.fromkeys(("event_time", "duration_s"), 0.0),
}


@dataclass(slots=True)
class _State:
    """What a cursor says."""

    positions: dict[str, _Position] = field(default_factory=dict)
    accounts: dict[str, _Account] = field(default_factory=dict)
    types: dict[str, dict[str, str]] = field(default_factory=dict)


def _dump_cursor(state: _State) -> bytes:
    return msgspec.msgpack.encode(
        {
            "v": CURSOR_VERSION,
            "at": {writer: [each.number, each.offset] for writer, each in state.positions.items()},
            "seen": {
                writer: [each.first, each.offered, each.seen.ranges()]
                for writer, each in state.accounts.items()
            },
            "types": state.types,
        }
    )


def _load_cursor(cursor: bytes | None) -> _State:
    if not cursor:
        return _State()
    try:
        data = msgspec.msgpack.decode(cursor)
        if data["v"] != CURSOR_VERSION:
            raise ValueError("version")
        return _State(
            {writer: _Position(*at) for writer, at in data["at"].items()},
            {
                writer: _Account(Seen(ranges), first, offered)
                for writer, (first, offered, ranges) in data["seen"].items()
            },
            {name: dict(types) for name, types in data["types"].items()},
        )
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        raise UnreadableError(
            Problem(
                "feature log cursor",
                f"a cursor of version {CURSOR_VERSION}",
                "something else",
                "start without a cursor: every record that is still there is read again",
            )
        ) from None


__all__ = ["END", "Chunk", "LogReader", "ReadStats"]
