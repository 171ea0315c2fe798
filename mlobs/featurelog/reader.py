"""The reading half: `LogReader(source).poll(cursor)` gives what is new, in columns, from lake and spool
alike.

The cursor is opaque and says it all: how far each writer's segments were read, which numbers were seen,
which lake entries are done with, which type each feature has. Whoever stores it together with what was made
of the chunk reads every record once, whatever is killed in between, also when a segment moves into the lake
between two polls.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from mlobs.featurelog.aliases import NONE, Aliases, aliases_of, renamed, under_both
from mlobs.featurelog.columns import LABEL_COLUMNS, RECORD_COLUMNS, Part, combine, kept_rows
from mlobs.featurelog.cursor import State, load_cursor
from mlobs.featurelog.frames import LABELS, RECORDS
from mlobs.featurelog.kafka import SCHEME, parse_address
from mlobs.featurelog.kafkasource import KafkaSource
from mlobs.featurelog.lake import LATE_COMMITS, Entry, Lake, LakeFile, commit_time, stamp, standing
from mlobs.featurelog.lookback import LOOKS, Places, find, scan
from mlobs.featurelog.segments import Counts, built, fresh, model_of, spool_blocks
from mlobs.featurelog.spool import Segment, list_segments
from mlobs.featurelog.storage import NoStorage, open_storage
from mlobs.records import FeatureRecord
from mlobs.settings import Settings

_REMEMBERED: Final = 7 * 86400.0
"""Seconds of commits for which a writer is remembered after its last one."""


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
    """Broken stretches in the middle of a segment, blocks and files that could not be understood."""
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


class LogReader:
    """Reads the feature log at `source`: a directory (spool and lake), `s3://bucket/prefix` (lake) or
    `kafka://host:port/topic`; of a topic `poll` reads, `find` and `scan` find nothing.

    Keeps nothing between polls but what cannot change; safe beside writers, compaction and erasure.
    """

    def __init__(
        self,
        source: str | Path,
        environ: Mapping[str, str] | None = None,
        lake: str | None = None,
        aliases: Mapping[str, Aliases] | None = None,
        part: str = "",
    ) -> None:
        """`lake`: where the lake is, if not in `source`; `aliases`: by model, names in force by old name;
        `part`: behind the name of a topic's group.
        """
        self._aliases = aliases or {}
        self.source = str(source)
        remote = "://" in self.source and not self.source.startswith("file://")
        self.folder = None if remote else Path(self.source.removeprefix("file://"))
        self._kafka: KafkaSource | None = None
        if self.source.startswith(SCHEME):
            address = parse_address(self.source)
            if part:
                address = replace(address, group=f"{address.group}-{part}")
            self._kafka = KafkaSource(address, os.environ if environ is None else environ)
            self.lake = Lake(NoStorage(self.source))
        else:
            self.lake = Lake(open_storage(lake or self.source, environ))
        # Of sealed segments that were scanned: they do not change any more.
        self._spans: dict[str, tuple[float, float]] = {}

    def poll(self, cursor: bytes | None = None, limit: int = 100_000) -> Chunk:
        """What came after `cursor` (None: from the beginning), up to about `limit` records and labels.

        Raises UnreadableError for a cursor that is none. A log that does not exist yet is an empty one.
        """
        state, counts = load_cursor(cursor), Counts()
        found = _Found(limit)
        more = False
        if self._kafka is not None:
            parts, more = self._kafka.poll(state, counts, limit)
            for model, part in parts:
                found.add_part(model, part)
        # The spool is listed before the lake: a segment that is in neither list cannot be.
        segments = self._segments()
        if self._poll_lake(state, counts, found):
            self._poll_spool(segments, state, counts, found)
            if state.entries_from:
                before = stamp(max(0.0, commit_time(state.entries_from) - _REMEMBERED))
                state.forget(before, {segment.writer for segment in segments})
        tables = {}
        for model in found.models():
            types = state.types_of(f"m:{model}")
            aliases = self._aliases.get(model, NONE)
            tables[model] = found.table(model, RECORD_COLUMNS, types, counts, aliases)
        labels = found.table(None, LABEL_COLUMNS, state.types_of("labels"), counts)
        stats = ReadStats(
            sum(len(each) for each in tables.values()),
            len(labels),
            counts.duplicates,
            state.gaps,
            counts.unreadable,
            counts.torn,
        )
        return Chunk(tables, labels, state.dump(), stats, more or found.full())

    def close(self, cursor: bytes | None = None) -> None:
        """Let go of a topic's broker, which hears that `cursor` is stored; nothing else is held open."""
        if self._kafka is not None:
            self._kafka.close(load_cursor(cursor))

    def find(
        self,
        *,
        trace_ids: Iterable[str] = (),
        prediction_ids: Iterable[str] = (),
        start: float = -math.inf,
        end: float = math.inf,
        limit: int = 100,
        looks: int = LOOKS,
    ) -> list[FeatureRecord]:
        """Records by trace or prediction id whose event time lies in `[start, end]`: evidence for a page.

        Each once, by time. What masking changed is as the log has it. At most `looks` files are opened and a
        GiB of the spool searched, beginning with the newest, or with an `end` at `start`: of what is further
        away nothing is found. An id that is not there costs a few KB a file.
        """
        wanted = {"trace_id": set(trace_ids), "prediction_id": set(prediction_ids)}
        wanted = {name: ids for name, ids in wanted.items() if ids}
        return find(self._places(), wanted, start, end, limit, looks) if wanted else []

    def scan(self, start: float, end: float, model: str = "", limit: int = 20_000) -> pa.Table:
        """The newest `limit` records with event time in `[start, end]`, by time; `model` "" is all of them.

        The columns of `poll`. Segments and files are read from the newest backwards, and one whose span of
        time is known and lies outside is not opened; nor is, once there are enough, what ended before all of
        them. So the rows of several writers are the newest of all, not those of the last to have written.
        """
        return scan(self._places(), start, end, model, limit)

    # -- polling ------------------------------------------------------------------------------------

    def _places(self) -> Places:
        return Places(self._segments, self.lake, self._aliases, self._spans)

    def _segments(self) -> list[Segment]:
        return [] if self.folder is None else list_segments(self.folder)

    def _poll_lake(self, state: State, counts: Counts, found: _Found) -> bool:
        """Take what the lake has and the cursor has not; False when the limit ended it."""
        names = self.lake.names()
        for name in names:
            if name < state.entries_from:
                continue
            entry = self.lake.entry(name)
            if name in state.entries or entry is None:
                continue
            if not self._poll_entry(entry, state, counts, found):
                return False
            state.entries.add(name)
            state.last.update(dict.fromkeys(entry.offered, name))
        if names:
            bound = max(0.0, commit_time(max(names)) - LATE_COMMITS)
            state.entries_from = max(state.entries_from, stamp(bound))
            state.entries = {name for name in state.entries if name >= state.entries_from}
            state.begun = {name: at for name, at in state.begun.items() if name >= state.entries_from}
        return True

    def _poll_entry(self, entry: Entry, state: State, counts: Counts, found: _Found) -> bool:
        for writer, ranges in entry.gone.items():
            for start, end in ranges:
                state.account(writer).seen.add_range(start, end)
        moved = _read_in_spool(entry, state)
        done = state.begun.pop(entry.name, 0)
        for place, file in enumerate(entry.files[done:], done):
            if state.has(file.numbers):
                counts.duplicates += state.meet(file.numbers, file.rows, moved)
                continue
            if found.full():
                state.begun[entry.name] = place
                return False
            try:
                one = standing(self.lake.table(file), entry)
            except FileNotFoundError:
                continue  # expired since the manifest was listed
            except pa.ArrowException:
                counts.unreadable += 1
                continue
            found.add_table(file.model, _new(one, file, state, moved, counts))
        for writer, offered in entry.offered.items():
            account = state.account(writer)
            # Of a writer that we heard of before, what is missing below is a gap: a broken file perhaps.
            unheard, account.offered = not account.offered, max(account.offered, offered)
            first = entry.first.get(writer, 0)
            if first and unheard and not account.seen.overlaps(0, first):
                account.first = max(account.first, first)
        counts.duplicates += entry.duplicates
        counts.unreadable += entry.unreadable
        counts.torn += entry.torn
        return True

    def _poll_spool(self, segments: list[Segment], state: State, counts: Counts, found: _Found) -> None:
        if found.full():
            return
        # Between its commit and its removal a segment is in both places: that is no duplicate.
        moved = self.lake.segments()
        for read in spool_blocks(segments, state.positions, counts, moved):
            account = state.account(read.block["writer"])
            part = fresh(read.block, account, read.segment.number == 0, counts)
            position = state.positions[read.segment.writer]
            position.number, position.offset = read.segment.number, read.end
            if part is not None and read.kind in (RECORDS, LABELS):
                found.add_part(None if read.kind == LABELS else model_of(read.block), part)
                if found.full():
                    return


def reader_of(settings: Settings, part: str = "") -> LogReader | None:
    """The reader of the settings' feature log and lake; None where there is none. `part`: what reads, where
    another reader of this service reads too, so that of a topic each tells a group of its own how far it is.
    """
    if settings.feature_log is None:
        return None
    lake = settings.lake.to if settings.lake else None
    return LogReader(settings.feature_log, lake=lake, aliases=aliases_of(settings), part=part)


class _Found:
    """Rows on their way into a chunk: blocks of the spool, tables of the lake."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows = 0
        self._parts: dict[str | None, list[Part]] = {}
        self._tables: dict[str | None, list[pa.Table]] = {}

    def full(self) -> bool:
        return self._rows >= self._limit

    def add_part(self, model: str | None, part: Part) -> None:
        self._parts.setdefault(model, []).append(part)
        self._rows += kept_rows(part)

    def add_table(self, model: str | None, one: pa.Table) -> None:
        if len(one):
            self._tables.setdefault(model, []).append(one)
            self._rows += len(one)

    def models(self) -> list[str]:
        return [model for model in dict.fromkeys([*self._tables, *self._parts]) if model is not None]

    def table(
        self,
        model: str | None,
        columns: Mapping[str, str | None],
        types: dict[str, str],
        counts: Counts,
        aliases: Aliases = NONE,
    ) -> pa.Table:
        tables, parts = self._tables.get(model, []), self._parts.get(model, [])
        if aliases:
            known = under_both(types, aliases)
            if parts:
                tables = [*tables, built(parts, columns, known, counts)]
            return combine([renamed(each, aliases, types) for each in tables], columns, types)
        if not tables:
            return built(parts, columns, types, counts)
        if parts:
            tables = [*tables, built(parts, columns, dict(types), counts)]
        return combine(tables, columns, types)


def _read_in_spool(entry: Entry, state: State) -> bool:
    """Segments of the entry were read before they moved: that its rows were seen makes them no duplicates."""
    for name in entry.segments:
        writer, _, number = name.rpartition("-")
        position = state.positions.get(writer)
        if position is not None and (position.number, position.offset) > (int(number), 0):
            return True
    return False


def _new(one: pa.Table, file: LakeFile, state: State, moved: bool, counts: Counts) -> pa.Table:
    """The rows of a lake file that the cursor has not seen; marks them as seen, and counts the others where
    they are there twice.
    """
    if state.is_new(file.numbers, len(one)):
        state.meet(file.numbers, len(one), moved)
        return one
    ids = one.column("event_id").to_pylist()
    keep = np.ones(len(ids), bool)
    for row, event_id in enumerate(ids):
        writer, _, number = event_id.rpartition("-")
        at = int(number)
        keep[row] = at not in state.account(writer).seen
        counts.duplicates += state.meet({writer: [(at, at + 1)]}, 1, moved)
    return one if keep.all() else one.filter(pa.array(keep))
