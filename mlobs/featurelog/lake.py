"""The lake: Parquet by model, date and hour, and a manifest that says what belongs to it.

    lake/model=<model>/date=2026-11-23/hour=14/<batch>.parquet
    lake/labels/date=2026-11-23/hour=14/<batch>.parquet
    lake/manifest/<commit time>-<batch>.json

A file counts when a manifest entry names it; writing the entry is the commit. The batch is named after the
segments that went in, so a batch that is done again writes the same files again. Times are UTC, by event
time.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import IO, Any, Final
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlobs.errors import Problem, UnavailableError
from mlobs.featurelog.bloom import may_hold, xxh64
from mlobs.featurelog.sequences import Ranges, Seen
from mlobs.featurelog.storage import Storage

LAKE_VERSION: Final = 1
MANIFEST: Final = "lake/manifest"
PENDING: Final = "lake/pending"
LABELS_FOLDER: Final = "lake/labels"

LATE_COMMITS: Final = 6 * 3600.0
"""Seconds by which the clocks of committing machines may differ."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP: Final = "%Y%m%dT%H%M%S%f"
_UNIQUE: Final = frozenset({"event_id", "prediction_id", "trace_id", "span_id"})
_SOUGHT: Final = ("prediction_id", "trace_id")
"""Of records: calls are looked up by these."""
_WRITES_BLOOM: Final = "bloom_filter_options" in inspect.signature(pq.write_table).parameters
_FALSE_HITS: Final = 0.01


class LakeFile(msgspec.Struct, frozen=True):
    """One Parquet file of an entry."""

    name: str
    model: str | None
    """None for labels."""
    rows: int
    start: float
    """Least and greatest event time in it, seconds."""
    end: float
    numbers: Ranges


class Entry(msgspec.Struct, frozen=True):
    """One commit: the segments that went in, the files that came out."""

    version: int
    batch: str
    committed: float
    segments: list[str]
    files: list[LakeFile]
    offered: dict[str, int]
    """Numbers that each writer is known to have given out."""
    first: dict[str, int] = {}
    """Numbers of a writer below this are not missed."""
    duplicates: int = 0
    unreadable: int = 0
    torn: int = 0
    gone: Ranges = {}
    """Numbers whose records were erased: they are not missed."""

    @property
    def name(self) -> str:
        return f"{stamp(self.committed)}-{self.batch}.json"


class Lake:
    """Reads what was committed. Entries are immutable, so each is fetched once."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._known: dict[str, Entry] = {}

    def names(self) -> list[str]:
        """Names of the manifest entries, oldest first."""
        return [name for name in self.storage.names(MANIFEST) if name.endswith(".json")]

    def entry(self, name: str) -> Entry | None:
        """The entry, or None where it has expired. Raises UnavailableError for one of a newer mlobs."""
        if name not in self._known:
            try:
                data = self.storage.read(f"{MANIFEST}/{name}")
            except FileNotFoundError:
                return None
            self._known[name] = decode_entry(data, name)
        return self._known[name]

    def entries(self) -> list[Entry]:
        found = (self.entry(name) for name in self.names())
        return [entry for entry in found if entry is not None]

    def segments(self) -> set[str]:
        """Names of the segments that the entries fetched so far came from."""
        return {name for entry in self._known.values() for name in entry.segments}

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    def table(self, file: LakeFile) -> pa.Table:
        """The rows of a file. Raises FileNotFoundError (expired), pa.ArrowException (broken)."""
        return self.table_at(file.name)

    def table_at(self, name: str) -> pa.Table:
        """The rows of the file of that name; raises as `table`."""
        return pq.read_table(pa.BufferReader(self.storage.read(name)))

    def rows_with(self, file: LakeFile, wanted: Mapping[str, Collection[str]]) -> pa.Table | None:
        """The rows whose column `name` is one of `wanted[name]`, for any name; None without one.

        Costs a few KB of a file whose Bloom filters hold none of them, the columns `wanted` of any other,
        and the rest for rows that are there. Raises FileNotFoundError, OSError, pa.ArrowException.
        """
        with self.storage.open(file.name) as handle:
            parquet = pq.ParquetFile(handle)
            names = _may_hold(handle, parquet.metadata, wanted)
            if not names:
                return None
            columns = parquet.read(columns=names)
            hits = np.zeros(len(columns), bool)
            for name in names:
                hits |= np.asarray(
                    pc.is_in(columns.column(name), pa.array(sorted(wanted[name]), pa.string()))
                )
            return parquet.read().filter(pa.array(hits)) if hits.any() else None


def stamp(at: float) -> str:
    """`at` (seconds) as entry names begin with it: they sort by time."""
    return (_EPOCH + timedelta(microseconds=round(at * 1e6))).strftime(_STAMP)


def commit_time(name: str) -> float:
    """When the entry `name` was committed, seconds; 0.0 for a name that is not ours."""
    try:
        at = datetime.strptime(name.partition("-")[0], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return (at - _EPOCH) / timedelta(seconds=1)


def newest_commit(storage: Storage) -> float:
    return max((commit_time(name) for name in storage.names(MANIFEST)), default=0.0)


def decode_entry(data: bytes, name: str) -> Entry:
    try:
        entry = msgspec.json.decode(data, type=Entry)
    except msgspec.MsgspecError:
        raise UnavailableError(
            Problem(f"manifest entry {name}", "an entry of this version", "another form", "update mlobs")
        ) from None
    if entry.version > LAKE_VERSION:
        raise UnavailableError(
            Problem(f"manifest entry {name}", f"version {LAKE_VERSION}", f"{entry.version}", "update mlobs")
        )
    return entry


def partition(model: str | None, hour: int) -> str:
    """Folder of the files of `model` (None: labels) for the hour that begins at `hour` * 3600 seconds."""
    at = datetime.fromtimestamp(hour * 3600, UTC)
    head = LABELS_FOLDER if model is None else f"lake/model={quote(model, safe='')}"
    return f"{head}/date={at:%Y-%m-%d}/hour={at:%H}"


def standing(one: pa.Table, entry: Entry) -> pa.Table:
    """The rows of a file of `entry` that were not erased: an erasure notes them there before it rewrites the
    file, and may die in between.
    """
    if not entry.gone or not len(one):
        return one
    gone = {writer: Seen(ranges) for writer, ranges in entry.gone.items()}
    keep = []
    for event_id in one.column("event_id").to_pylist():
        writer, _, number = event_id.rpartition("-")
        keep.append(writer not in gone or int(number) not in gone[writer])
    return one if all(keep) else one.filter(pa.array(keep))


def _may_hold(handle: IO[bytes], metadata: Any, names: Mapping[str, Collection[str]]) -> list[str]:
    """Of the columns `names` those that may hold one of their values: all for which no Bloom filter tells."""
    places = {place: metadata.schema.column(place).path for place in range(metadata.num_columns)}
    found = []
    for place, name in places.items():
        hashes = [_hash(each) for each in names.get(name, ())]
        groups = (metadata.row_group(group).column(place) for group in range(metadata.num_row_groups))
        if hashes and any(_group_may_hold(handle, column, hashes) for column in groups):
            found.append(name)
    return found


@lru_cache(maxsize=256)
def _hash(text: str) -> int:
    """Once, and not for each file: an id out of an address may be as long as an address, 3 ms."""
    return xxh64(text.encode())


def _group_may_hold(handle: IO[bytes], column: Any, hashes: list[int]) -> bool:
    # A pyarrow that does not write filters does not tell of them either.
    start, size = (getattr(column, f"bloom_filter_{what}", None) for what in ("offset", "length"))
    if start is None or size is None:
        return True
    handle.seek(start)
    try:
        return may_hold(handle.read(size), hashes)
    except ValueError:
        return True


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file: zstd, text as dictionaries, Bloom filters for the ids of calls."""
    empty = [field.name for field in table.schema if pa.types.is_struct(field.type) and not list(field.type)]
    table = table.drop_columns(empty)  # Parquet has no struct without children
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **writer_options(table.schema), **_filters(table))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _filters(table: pa.Table) -> dict[str, Any]:
    """Bloom filters for the ids of calls, where this pyarrow writes them: one to four bytes a row each."""
    if not _WRITES_BLOOM or not len(table) or not set(_SOUGHT) <= set(table.column_names):
        return {}  # labels are not looked up
    sized = {"ndv": len(table), "fpp": _FALSE_HITS}
    there = [name for name in _SOUGHT if table.column(name).null_count < len(table)]
    return {"bloom_filter_options": dict.fromkeys(there, sized)} if there else {}


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    text: list[str] = []
    for field in schema:
        if pa.types.is_string(field.type) and field.name not in _UNIQUE:
            text.append(field.name)
        elif pa.types.is_struct(field.type):
            text += [f"{field.name}.{inner.name}" for inner in field.type if pa.types.is_string(inner.type)]
    return {"compression": "zstd", "compression_level": 1, "use_dictionary": text, "write_statistics": False}
