"""Erasure: the records of a subject, and the labels of their predictions, go from spool and lake.

    1. look: which records hold a hash of the subject, and which prediction ids they have
    2. note both in `lake/erase/`: once a record is gone nothing else tells which labels were its own
    3. rewrite, each file whole or not at all: spool segments, those set aside, Parquet files
    4. look again: this is the proof
    5. remove the note

A run that finds a note finishes that erasure first. The numbers of what was erased are kept, so that they
are not taken for lost. What cannot be reached is named in `UNREACHED`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlobs.featurelog.blocks import Block, unpack_column
from mlobs.featurelog.compact import ASIDE, Compacted, finish_noted, held
from mlobs.featurelog.frames import LABELS, RECORDS
from mlobs.featurelog.lake import MANIFEST, Entry, Lake, LakeFile, parquet_bytes
from mlobs.featurelog.sequences import Seen
from mlobs.featurelog.ship import DEAD, LETTERS, lock
from mlobs.featurelog.spool import REWRITE, SEALED, SPOOL, list_segments, rewrite_segment, seal_stale
from mlobs.featurelog.storage import Storage
from mlobs.featurelog.without import cut, stretches

NOTES: Final = "lake/erase"
UNREACHED: Final = (
    "Kafka topics: what was shipped stays until their retention is over; a compacted topic needs a tombstone",
    "copies: backups, older versions in a versioned bucket, free blocks of the disk",
    "what left by other ways: spans at their collector, evidence in pages that were sent",
    "records that were logged without an entity, and those that come from now on",
)
"""What an erasure does not touch, for people."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked for."""

    hashes: frozenset[str]
    """All that the subject may be hashed as."""
    features: tuple[str, ...] = ()
    """Features that hold the subject, beside `entity_key`."""
    lost_keys: frozenset[str] = frozenset()
    """Ids of keys that exist no more: whose records they hashed nobody can tell."""

    @property
    def key_ids(self) -> frozenset[str]:
        """Keys whose records can be told, and those that are known to be lost."""
        return self.lost_keys | {each.partition(":")[0] for each in self.hashes}


class _Note(msgspec.Struct, frozen=True):
    hashes: list[str]
    features: list[str]
    prediction_ids: list[str]


@dataclass(slots=True)
class Erased:
    """What a run did, or would do."""

    records: int = 0
    labels: int = 0
    segments: int = 0
    files: int = 0
    letters: int = 0
    """Dead letters of `mlobs log ship`."""
    blanked: int = 0
    """Unreadable stretches that held a hash of the subject, overwritten with zeros."""
    unreadable: int = 0
    """Parquet files that could not be opened, and so not be looked into."""
    waiting: list[str] = field(default_factory=list)
    """Segments that hold the subject and are still written to."""
    remains: int = 0
    """Rows of the subject that the scan afterwards still found."""
    elsewhere: dict[str, int] = field(default_factory=dict)
    """Rows with a hash of the subject in another column: erased only when the feature is named."""
    strange_keys: dict[str, int] = field(default_factory=dict)
    """Rows whose entity is hashed by a key that was not given, by its id: the subject's may be among them."""

    @property
    def proved(self) -> bool:
        return not (self.remains or self.unreadable or self.waiting or self.elsewhere or self.strange_keys)


@dataclass(slots=True)
class _Look:
    """What a scan found."""

    records: int = 0
    labels: int = 0
    ids: set[str] = field(default_factory=set)
    segments: dict[Path, int] = field(default_factory=dict)
    """Sealed ones with hits, and how many."""
    files: list[tuple[Entry, LakeFile]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    letters: int = 0
    """Dead letters of the shipping."""
    blanks: int = 0
    unreadable: int = 0
    stray: int = 0
    """Rows in Parquet files that no entry names."""
    elsewhere: dict[str, int] = field(default_factory=dict)
    strange_keys: Counter[str] = field(default_factory=Counter)


Progress = Callable[[int, int], None]


def erase(
    folder: Path | None,
    storage: Storage,
    target: Target,
    *,
    dry_run: bool = False,
    pause: Callable[[list[str]], bool] = lambda _names: False,
    progress: Progress | None = None,
) -> Erased:
    """Erase `target` from the spool in `folder` (None: there is none here) and the lake in `storage`.

    `pause(segments)` is asked while a segment that a process still writes to holds the subject: True looks
    again, False goes on without it. `progress(done, total)` counts files. Raises UnavailableError where a
    compaction or another erasure runs, or the storage does not answer; the next run then goes on.
    """
    with ExitStack() as stack:
        if folder is not None and not dry_run:
            stack.enter_context(held(folder))
            finish_noted(folder, storage, Compacted())
            seal_stale(folder)
            for left in (folder / SPOOL).rglob(f".*{REWRITE}"):
                left.unlink(missing_ok=True)
        if dry_run:
            return _would(_look(folder, storage, target, set(), progress))
        result = Erased()
        for name in storage.names(NOTES):
            note = msgspec.json.decode(storage.read(f"{NOTES}/{name}"), type=_Note)
            if frozenset(note.hashes) != target.hashes:
                of_note = Target(frozenset(note.hashes), tuple(note.features))
                _run(folder, storage, of_note, Erased(), pause, None)
        _run(folder, storage, target, result, pause, progress)
        return result


def _run(
    folder: Path | None,
    storage: Storage,
    target: Target,
    result: Erased,
    pause: Callable[[list[str]], bool],
    progress: Progress | None,
) -> None:
    name = f"{NOTES}/{_digest(target)}.json"
    ids = _noted(storage, name)
    look = _look(folder, storage, target, ids, progress)
    while look.open and pause(look.open):
        look = _look(folder, storage, target, ids, progress)
    if look.ids or look.labels or look.segments or look.letters:
        note = _Note(sorted(target.hashes), list(target.features), sorted(look.ids))
        storage.write(name, msgspec.json.encode(note))
    for path in look.segments:
        _rewrite_segment(path, target, look.ids, result)
    if look.letters and folder is not None:
        result.letters = _rewrite_letters(folder, target, look.ids)
    for entry, files in _by_entry(look.files):
        _rewrite_entry(storage, entry, files, target, look.ids, result)
    after = _look(folder, storage, target, look.ids, progress)
    result.remains = after.records + after.labels + after.blanks + after.stray + after.letters
    result.unreadable = after.unreadable
    result.waiting, result.elsewhere = after.open, after.elsewhere
    result.strange_keys = dict(after.strange_keys)
    if not (result.remains or result.waiting):
        storage.delete(name)


def _would(look: _Look) -> Erased:
    return Erased(
        look.records,
        look.labels,
        len(look.segments),
        len(look.files),
        look.letters,
        look.blanks,
        look.unreadable,
        look.open,
        0,
        look.elsewhere,
        dict(look.strange_keys),
    )


def _noted(storage: Storage, name: str) -> set[str]:
    try:
        return set(msgspec.json.decode(storage.read(name), type=_Note).prediction_ids)
    except FileNotFoundError:
        return set()


def _digest(target: Target) -> str:
    return blake2b("\n".join(sorted(target.hashes)).encode(), digest_size=8).hexdigest()


# -- looking ----------------------------------------------------------------------------------------


def _look(
    folder: Path | None, storage: Storage, target: Target, ids: set[str], progress: Progress | None
) -> _Look:
    """Records first, wherever they are: only then are the ids known whose labels are to be found."""
    look = _Look(ids=set(ids))
    paths = [] if folder is None else _paths(folder)
    lake = Lake(storage)
    files = [(entry, file) for entry in lake.entries() for file in entry.files]
    named = {file.name for _, file in files}
    stray = [name for name in storage.walk("lake") if name.endswith(".parquet") and name not in named]
    total, done = 2 * len(paths) + len(files) + len(stray), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    for path in paths:
        _look_at_segment(path, target, look, RECORDS)
        step()
    for labels in (False, True):
        for entry, file in files:
            if (file.model is None) == labels:
                count = _look_at_file(lake, file.name, target, look, labels)
                if count:
                    look.files.append((entry, file))
                step()
    for path in paths:
        _look_at_segment(path, target, look, LABELS)
        step()
    if folder is not None:
        look.letters = len(_letters(folder)) - len(_other_letters(folder, target, look.ids))
    for name in stray:
        before = look.records, look.labels
        look.stray += _look_at_file(lake, name, target, look, name.startswith("lake/labels/"))
        look.records, look.labels = before
        step()
    return look


def _paths(folder: Path) -> list[Path]:
    aside = folder / SPOOL / ASIDE
    return [segment.path for segment in list_segments(folder)] + sorted(aside.glob(f"*{SEALED}"))


def _look_at_segment(path: Path, target: Target, look: _Look, wanted: int) -> None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # sealed since it was listed
        path = path.with_suffix(SEALED)
        data = path.read_bytes() if path.exists() else b""
    needles, hits = _needles(target), 0
    for stretch, frame, block in stretches(data):
        if frame is None or block is None:
            found = wanted == RECORDS and any(needle in stretch for needle in needles)
            look.blanks += found
            hits += found
        elif frame.kind == wanted and block["n"]:
            rows = _rows_of_block(wanted, block, target, look.ids)
            count = int(np.count_nonzero(rows))
            hits += count
            if wanted == LABELS:
                look.labels += count
                continue
            look.records += count
            ids = unpack_column(block["fields"].get("prediction_id", ["n"]), block["n"])
            look.ids.update(ids[row] for row in np.flatnonzero(rows) if ids[row])
            _other_columns(block, ~rows, target, look)
            entities = unpack_column(block["fields"].get("entity_key", ["n"]), block["n"])
            _strange_keys(entities, target, look)
    if not hits:
        return
    if path.suffix == SEALED:
        look.segments[path] = look.segments.get(path, 0) + hits
    elif path.stem not in look.open:
        look.open.append(path.stem)


def _rows_of_block(kind: int, block: Block, target: Target, ids: set[str]) -> Any:
    rows = block["n"]
    if kind == LABELS:
        return _matches(block["fields"].get("prediction_id"), rows, ids)
    found = _matches(block["fields"].get("entity_key"), rows, target.hashes)
    for name in target.features:
        found |= _matches(block["features"].get(name), rows, target.hashes)
    return found


def _matches(column: Any, rows: int, wanted: frozenset[str] | set[str]) -> Any:
    if column is None or column[0] not in ("s", "c", "x"):
        return np.zeros(rows, bool)
    return np.array([type(value) is str and value in wanted for value in unpack_column(column, rows)], bool)


def _other_columns(block: Block, keep: Any, target: Target, look: _Look) -> None:
    for group in ("fields", "features"):
        for name, column in block[group].items():
            count = int(np.count_nonzero(_matches(column, block["n"], target.hashes) & keep))
            if count:
                look.elsewhere[name] = look.elsewhere.get(name, 0) + count


def _look_at_file(lake: Lake, name: str, target: Target, look: _Look, labels: bool) -> int:
    """Rows of a Parquet file that are to go; 0 for one that has expired."""
    try:
        one = pa.table(lake.table_at(name))
    except FileNotFoundError:
        return 0
    except (pa.ArrowException, OSError):
        look.unreadable += 1
        return 0
    rows = _rows_of_table(one, target, look.ids, labels)
    count = int(np.count_nonzero(rows))
    if labels:
        look.labels += count
        return count
    look.records += count
    if count:
        chosen = one.filter(pa.array(rows)).column("prediction_id").to_pylist()
        look.ids.update(each for each in chosen if each)
    hashes = pa.array(sorted(target.hashes), pa.string())
    if "entity_key" in one.column_names:
        _strange_keys(one.column("entity_key").to_pylist(), target, look)
    for label, column in _texts(one):
        other = int(np.count_nonzero(_is_in(column, hashes) & ~rows))
        if other:
            look.elsewhere[label] = look.elsewhere.get(label, 0) + other
    return count


def _rows_of_table(one: pa.Table, target: Target, ids: set[str], labels: bool) -> Any:
    rows = np.zeros(len(one), bool)
    if labels:
        return rows | _is_in(one.column("prediction_id"), pa.array(sorted(ids), pa.string()))
    hashes = pa.array(sorted(target.hashes), pa.string())
    for name, column in _texts(one):
        if name in ("entity_key", *target.features):
            rows |= _is_in(column, hashes)
    return rows


def _strange_keys(entities: Iterable[Any], target: Target, look: _Look) -> None:
    """Count the rows whose entity was hashed by a key that is not the target's."""
    known = target.key_ids
    for entity, rows in Counter(entities).items():
        key, colon, _ = str(entity or "").partition(":")
        if colon and key not in known:
            look.strange_keys[key] += rows


def _texts(one: pa.Table) -> Iterable[tuple[str, Any]]:
    """Text columns by name, features by their own."""
    for name in one.column_names:
        kind = one.schema.field(name).type
        if pa.types.is_string(kind):
            yield name, one.column(name)
        elif pa.types.is_struct(kind) and name == "features":
            for inner in kind:
                if pa.types.is_string(inner.type):
                    yield inner.name, pc.struct_field(one.column(name), inner.name)


def _is_in(column: Any, wanted: pa.Array) -> Any:
    return np.asarray(pc.is_in(column, value_set=wanted), dtype=bool)


def _needles(target: Target) -> tuple[bytes, ...]:
    return tuple(each.encode() for each in sorted(target.hashes))


def _letters(folder: Path) -> list[bytes]:
    try:
        return (folder / SPOOL / DEAD / LETTERS).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _other_letters(folder: Path, target: Target, ids: set[str]) -> list[bytes]:
    """The dead letters that stay."""
    needles = _needles(target)
    return [
        line
        for line in _letters(folder)
        if not any(needle in line for needle in needles) and _subject_of(line) not in ids
    ]


def _subject_of(line: bytes) -> str:
    try:
        return str(msgspec.json.decode(line)["event"].get("subject", ""))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):  # the torn last line of a killed run
        return ""


# -- rewriting --------------------------------------------------------------------------------------


def _rewrite_segment(path: Path, target: Target, ids: set[str], result: Erased) -> None:
    done = cut(
        path.read_bytes(), lambda kind, block: _rows_of_block(kind, block, target, ids), _needles(target)
    )
    rewrite_segment(path, done.data)
    result.segments += 1
    result.records += done.records
    result.labels += done.labels
    result.blanked += done.blanked


def _rewrite_letters(folder: Path, target: Target, ids: set[str]) -> int:
    """How many went. Raises UnavailableError while the log is being shipped."""
    handle = lock(folder)
    try:
        before, staying = _letters(folder), _other_letters(folder, target, ids)
        rewrite_segment(folder / SPOOL / DEAD / LETTERS, b"".join(staying))
        return len(before) - len(staying)
    finally:
        os.close(handle)


def _by_entry(pairs: Sequence[tuple[Entry, LakeFile]]) -> list[tuple[Entry, list[LakeFile]]]:
    found: dict[str, tuple[Entry, list[LakeFile]]] = {}
    for entry, file in pairs:
        found.setdefault(entry.name, (entry, []))[1].append(file)
    return list(found.values())


def _rewrite_entry(
    storage: Storage,
    entry: Entry,
    files: Sequence[LakeFile],
    target: Target,
    ids: set[str],
    result: Erased,
) -> None:
    """The entry first: from then on nobody reads what is to go, wherever this run dies."""
    lake = Lake(storage)
    gone = {writer: Seen(ranges) for writer, ranges in entry.gone.items()}
    changed: dict[str, LakeFile] = {}
    tables: dict[str, pa.Table] = {}
    for file in files:
        one = lake.table(file)
        rows = _rows_of_table(one, target, ids, file.model is None)
        tables[file.name] = left = one.filter(pa.array(~rows))
        _mark(one.filter(pa.array(rows)).column("event_id").to_pylist(), gone)
        times = [value for value in left.column("event_time").to_pylist() if value is not None]
        span = {"start": min(times), "end": max(times)} if times else {}
        changed[file.name] = msgspec.structs.replace(file, rows=len(left), **span)
        count = int(np.count_nonzero(rows))
        result.files += 1
        if file.model is None:
            result.labels += count
        else:
            result.records += count
    fresh = msgspec.structs.replace(
        entry,
        files=[changed.get(file.name, file) for file in entry.files],
        gone={writer: seen.ranges() for writer, seen in gone.items()},
    )
    storage.write(f"{MANIFEST}/{entry.name}", msgspec.json.encode(fresh))
    for name, table in tables.items():
        storage.write(name, parquet_bytes(table))


def _mark(event_ids: Iterable[str], gone: dict[str, Seen]) -> None:
    for event_id in event_ids:
        writer, _, number = event_id.rpartition("-")
        gone.setdefault(writer, Seen()).add(int(number))


__all__ = ["UNREACHED", "Erased", "Target", "erase"]
