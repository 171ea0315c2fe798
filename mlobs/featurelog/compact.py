"""Spool segments -> Parquet, by batches that are done whole or done again.

    1. note the batch (its segments, its time) in `spool/batch.json`
    2. write its Parquet files
    3. write its manifest entry: the commit
    4. remove the segments, then the note

A run that finds a note finishes that batch first: with all its segments there it is done again and gives
the same files; with one missing and its entry there, the rest is removed. A segment with a broken stretch
is set aside in `spool/aside` and not removed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from mlobs.errors import Problem, UnavailableError
from mlobs.featurelog.blocks import block_numbers, gone_numbers
from mlobs.featurelog.columns import LABEL_COLUMNS, RECORD_COLUMNS, Part, kept_rows, table
from mlobs.featurelog.cursor import Account
from mlobs.featurelog.frames import LABELS, RECORDS
from mlobs.featurelog.lake import (
    LAKE_VERSION,
    MANIFEST,
    Entry,
    LakeFile,
    newest_commit,
    parquet_bytes,
    partition,
)
from mlobs.featurelog.segments import KNOWN_KINDS, Counts, GoneError, fresh, model_of, segment_blocks
from mlobs.featurelog.sequences import Ranges, Seen
from mlobs.featurelog.ship import load_position
from mlobs.featurelog.spool import SPOOL, Segment, list_segments, seal_stale, sync_folder
from mlobs.featurelog.storage import DiskStorage, Storage

NOTE: Final = "batch.json"
ASIDE: Final = "aside"
LOCK: Final = "compact.lock"
_SIZES: Final = {"f": 8, "i": 8, "b": 1, "s": 1, "x": 1}
"""What a row takes in a column, by its code: bytes, or items of a list."""


class Note(msgspec.Struct, frozen=True):
    batch: str
    committed: float
    segments: list[str]


@dataclass(slots=True)
class Compacted:
    """What a run did."""

    segments: int = 0
    records: int = 0
    labels: int = 0
    files: int = 0
    bytes: int = 0
    duplicates: int = 0
    unreadable: int = 0
    torn: int = 0
    set_aside: list[str] = field(default_factory=list)
    held: int = 0
    """Segments left because `mlobs log ship` has not shipped them yet."""
    writing: int = 0
    """Segments left because a living process still writes to them."""


@dataclass(slots=True)
class _Batch:
    """The readable content of a batch of segments."""

    parts: dict[str | None, list[Part]] = field(default_factory=dict)
    """By model; None: labels."""
    accounts: dict[str, Account] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    broken: list[str] = field(default_factory=list)
    gone: dict[str, Seen] = field(default_factory=dict)
    """Numbers that were erased from the segments, by writer."""


def compact(
    folder: Path,
    storage: Storage,
    now: float,
    *,
    batch_bytes: int = 128 << 20,
    progress: Callable[[int, int], None] | None = None,
) -> Compacted:
    """Turn the sealed segments of the log at `folder` into Parquet in `storage`.

    `now` (seconds) dates the commits; `progress(done, total)` is told bytes. Raises UnavailableError where
    another run holds the spool or the storage does not answer; the segments then stay as they are.
    """
    result = Compacted()
    with _held(folder):
        finish_noted(folder, storage, result)
        seal_stale(folder)
        segments = list_segments(folder)
        sealed = [segment for segment in segments if segment.sealed]
        result.writing = len(segments) - len(sealed)
        shipped = load_position(folder)
        if shipped is not None:
            ready = [each for each in sealed if each.number < shipped.at.get(each.writer, (0, 0))[0]]
            result.held, sealed = len(sealed) - len(ready), ready
        sizes = {segment.name: segment.path.stat().st_size for segment in sealed}
        total, done = sum(sizes.values()), 0
        for batch in _batches(sealed, sizes, batch_bytes):
            # Readers pass over entries far older than the newest: a clock set back must not hide ours.
            newest = newest_commit(storage)
            committed = max(now, newest + 1e-6)
            note = Note(_batch_name(batch), committed, [segment.name for segment in batch])
            spool = DiskStorage(folder / SPOOL)
            spool.write(NOTE, msgspec.json.encode(note))
            _do(folder, storage, note, batch, result)
            done += sum(sizes[segment.name] for segment in batch)
            if progress is not None:
                progress(done, total)
    return result


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The lock of the spool: one compaction at a time."""
    (folder / SPOOL).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / SPOOL / LOCK, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnavailableError(
                Problem(str(folder), "no other compaction or erasure", "one that runs", "wait for its end")
            ) from None
        yield
    finally:
        os.close(handle)


held = _held


def finish_noted(folder: Path, storage: Storage, result: Compacted) -> None:
    """Finish the batch of a run that died. The caller holds the spool."""
    note_path = folder / SPOOL / NOTE
    try:
        note = msgspec.json.decode(note_path.read_bytes(), type=Note)
    except FileNotFoundError:
        return
    except msgspec.MsgspecError:
        note_path.unlink()  # notes appear whole, so this one is not ours; every segment is still there
        return
    by_name = {segment.name: segment for segment in list_segments(folder)}
    batch = [by_name[name] for name in note.segments if name in by_name]
    committed = any(name.endswith(f"-{note.batch}.json") for name in storage.names(MANIFEST))
    if len(batch) == len(note.segments):
        if not committed:  # others may have committed for hours since: readers would pass over it
            note = msgspec.structs.replace(note, committed=max(note.committed, newest_commit(storage) + 1e-6))
            DiskStorage(folder / SPOOL).write(NOTE, msgspec.json.encode(note))
        _do(folder, storage, note, batch, result)
    elif committed:
        _remove(folder, batch, [])
    else:
        note_path.unlink()  # somebody else took a segment away: what is left goes into a batch of its own


def _do(folder: Path, storage: Storage, note: Note, batch: Sequence[Segment], result: Compacted) -> None:
    content = _read(batch)
    files = []
    for model, parts in content.parts.items():
        for file, data in _files(model, parts, note.batch):
            storage.write(file.name, data)
            files.append(file)
            result.bytes += len(data)
            if model is None:
                result.labels += file.rows
            else:
                result.records += file.rows
    counts = content.counts
    entry = Entry(
        LAKE_VERSION,
        note.batch,
        note.committed,
        note.segments,
        files,
        {writer: account.offered for writer, account in content.accounts.items()},
        {writer: account.first for writer, account in content.accounts.items() if account.first},
        counts.duplicates,
        counts.unreadable,
        counts.torn,
        {writer: seen.ranges() for writer, seen in content.gone.items()},
    )
    if files or counts.unreadable or entry.offered:
        storage.write(f"{MANIFEST}/{entry.name}", msgspec.json.encode(entry))
    _remove(folder, batch, content.broken)
    result.segments += len(batch)
    result.files += len(files)
    result.duplicates += counts.duplicates
    result.unreadable += counts.unreadable
    result.torn += counts.torn
    result.set_aside += content.broken


def _read(batch: Sequence[Segment]) -> _Batch:
    content = _Batch()
    for segment in batch:
        before = content.counts.unreadable
        strange = False
        for read in segment_blocks(segment, 0, content.counts, grows=False):
            writer = read.block["writer"]
            account = content.accounts.setdefault(writer, Account())
            part = fresh(read.block, account, segment.number == 0, content.counts)
            for number in gone_numbers(read.block):
                content.gone.setdefault(writer, Seen()).add(number)
            strange = strange or read.kind not in KNOWN_KINDS
            if part is None or read.kind not in (RECORDS, LABELS):
                continue
            model = None if read.kind == LABELS else model_of(read.block)
            if _sound(part):
                content.parts.setdefault(model, []).append(part)
            else:
                content.counts.unreadable += 1
        if content.counts.unreadable > before or strange:
            content.broken.append(segment.name)
    return content


def _sound(part: Part) -> bool:
    """Every column of the block holds as many rows as it says."""
    rows = part.block["n"]
    try:
        for group in ("fields", "features", "stages"):
            for column in part.block[group].values():
                size = _SIZES.get(column[0])
                if size is not None and len(column[1]) != rows * size:
                    return False
    except (TypeError, IndexError, AttributeError):
        return False
    return True


def _files(model: str | None, parts: list[Part], batch: str) -> Iterator[tuple[LakeFile, bytes]]:
    """The Parquet files of one model, one an hour of event time."""
    whole = table(parts, LABEL_COLUMNS if model is None else RECORD_COLUMNS, {})
    times = whole.column("event_time").to_numpy(zero_copy_only=False).astype(float)
    times = np.where(np.isfinite(times), times, 0.0)  # a time that is none: the first hour of 1970
    times = np.clip(times, 0.0, 253402300799.0)
    hours = (times // 3600).astype(np.int64)
    writers, numbers = _identities(parts)
    for hour in distinct(hours).tolist():
        chosen = hours == hour
        rows = int(np.count_nonzero(chosen))
        own = whole if rows == len(whole) else whole.filter(pa.array(chosen))
        file = LakeFile(
            f"{partition(model, hour)}/{batch}.parquet",
            model,
            rows,
            float(times[chosen].min()),
            float(times[chosen].max()),
            ranges_of(writers, numbers, chosen),
        )
        yield file, parquet_bytes(own)


def _identities(parts: list[Part]) -> tuple[list[str], Any]:
    """The names of the writers, and for each row (index of the writer's name, number)."""
    names: dict[str, int] = {}
    pieces = []
    for block, keep in parts:
        numbers = np.asarray(block_numbers(block), dtype=np.int64)
        numbers = numbers if keep is None else numbers[keep]
        index = names.setdefault(block["writer"], len(names))
        pieces.append(np.stack([np.full(len(numbers), index), numbers], axis=1))
    return list(names), np.concatenate(pieces)


def distinct(values: Any) -> Any:
    """The values, each once, ascending. By sorting, for what is nearly sorted: a tenth of `np.unique`."""
    if len(values) == 0 or values.min() == values.max():
        return values[:1]
    ordered = np.sort(values, kind="stable")
    return ordered[np.concatenate(([True], np.diff(ordered) != 0))]


def ranges_of(writers: list[str], identities: Any, chosen: Any) -> Ranges:
    """The numbers of the chosen rows by writer, as half-open ranges."""
    found: Ranges = {}
    own = identities[chosen]
    for index in distinct(own[:, 0]).tolist():
        numbers = distinct(own[own[:, 0] == index, 1])
        breaks = np.flatnonzero(np.diff(numbers) != 1)
        starts = numbers[np.concatenate(([0], breaks + 1))]
        ends = numbers[np.concatenate((breaks, [len(numbers) - 1]))] + 1
        found[writers[index]] = list(zip(starts.tolist(), ends.tolist(), strict=True))
    return found


def _remove(folder: Path, batch: Sequence[Segment], broken: list[str]) -> None:
    spool = folder / SPOOL
    for segment in batch:
        if segment.name in broken:
            (spool / ASIDE).mkdir(exist_ok=True)
            os.replace(segment.path, spool / ASIDE / segment.path.name)
        else:
            segment.path.unlink(missing_ok=True)
    sync_folder(spool)
    (spool / NOTE).unlink(missing_ok=True)
    sync_folder(spool)


def _batches(sealed: Sequence[Segment], sizes: dict[str, int], batch_bytes: int) -> Iterator[list[Segment]]:
    batch: list[Segment] = []
    size = 0
    for segment in sealed:
        if batch and size + sizes[segment.name] > batch_bytes:
            yield batch
            batch, size = [], 0
        batch.append(segment)
        size += sizes[segment.name]
    if batch:
        yield batch


def _batch_name(batch: Sequence[Segment]) -> str:
    return blake2b("\n".join(segment.name for segment in batch).encode(), digest_size=8).hexdigest()


__all__ = ["Compacted", "GoneError", "compact", "held", "kept_rows"]
