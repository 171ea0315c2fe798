"""What a backfill has done: the states of every slice, and the windows that they add up to.

A slice is kept in one transaction, in place of what was kept of the same path before, so that a run can be
stopped anywhere and no file counts twice. Windows are merged in order of the path, whatever order the
slices finished in; a window whose content changes gets a new revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
)

from mlobs.drift.codec import canonical_bytes, dump_state, load_state
from mlobs.drift.engines.base import FileSlice, Job, Key, Outcome
from mlobs.drift.state import State, merge_all
from mlobs.store import Schema, Store

_meta = MetaData()
_KEY = ("model", "version", "segment", "start")

slice_table = Table(
    "drift_backfill_slices",
    _meta,
    Column("job", String, primary_key=True),
    Column("path", String, primary_key=True),
    Column("identity", String, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("unusable", Integer, nullable=False),
    Column("problem", Text, nullable=False),
)

state_table = Table(
    "drift_backfill_states",
    _meta,
    Column("job", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("segment", String, primary_key=True),
    Column("start", Float, primary_key=True),
    Column("path", String, primary_key=True),
    Column("end", Float, nullable=False),
    Column("identity", String, nullable=False),
    Column("state", LargeBinary, nullable=False),
)

window_table = Table(
    "drift_backfill_windows",
    _meta,
    Column("job", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("segment", String, primary_key=True),
    Column("start", Float, primary_key=True),
    Column("end", Float, nullable=False),
    Column("revision", Integer, nullable=False),
    # Of the slices that went in; equal: nothing to merge again.
    Column("inputs", String, nullable=False),
    # Of the canonical bytes; equal: the same rows, no new revision.
    Column("digest", String, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("slices", Integer, nullable=False),
    Column("state", LargeBinary, nullable=False),
)

SCHEMA = Schema("drift_backfill", 1, _meta)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The rows of one key. `revision` counts from 1 and grows when rows came late, went, or changed."""

    key: Key
    revision: int
    rows: int
    slices: int
    state: State
    changed: bool
    """In this run."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Slices of a job that are done, that failed (with the problem), and rows without a usable time."""

    done: int
    failed: tuple[tuple[str, str], ...]
    rows: int
    unusable: int


def job_id(job: Job, sources: Sequence[str]) -> str:
    """The same reference, keying and sources are the same job, and go on where it stopped."""
    named = repr((sorted(set(sources)), job.keying)).encode()
    named += repr(sorted(job.aliases)).encode() if job.aliases else b""
    return sha256(named + sha256(job.reference).digest()).hexdigest()[:16]


def begin(store: Store, job: str, listed: Sequence[FileSlice]) -> list[FileSlice]:
    """The slices that are still to do. What was kept of files that are gone is dropped: their rows may be in
    another file now, as after a compaction."""
    with store.write() as connection:
        rows = connection.execute(
            select(slice_table.c.path, slice_table.c.identity, slice_table.c.problem).where(
                slice_table.c.job == job
            )
        )
        known = {row.path: row for row in rows}
        for path in known.keys() - {one.path for one in listed}:
            _drop(connection, job, path)
    return [
        one
        for one in listed
        if one.path not in known or known[one.path].identity != one.identity or known[one.path].problem
    ]


def keep(store: Store, job: str, outcome: Outcome) -> None:
    """Keep the outcome of a slice in place of an earlier one of the same path; one transaction.

    A slice with a problem counts nothing and is tried again by the next run.
    """
    one = outcome.slice
    with store.write() as connection:
        _drop(connection, job, one.path)
        connection.execute(
            insert(slice_table).values(
                job=job, path=one.path, identity=one.identity, rows=outcome.rows,
                unusable=outcome.unusable, problem=outcome.problem,
            )
        )  # fmt: skip
        if outcome.states:
            connection.execute(
                insert(state_table),
                [
                    {"job": job, "path": one.path, "identity": one.identity, "state": state, **key._asdict()}
                    for key, state in outcome.states
                ],
            )


def _drop(connection: Connection, job: str, path: str) -> None:
    for table in (slice_table, state_table):
        connection.execute(delete(table).where(table.c.job == job, table.c.path == path))


def progress(store: Store, job: str) -> Progress:
    """How far a job is."""
    with store.read() as connection:
        rows = connection.execute(
            select(slice_table).where(slice_table.c.job == job).order_by(slice_table.c.path)
        ).all()
    failed = tuple((row.path, row.problem) for row in rows if row.problem)
    return Progress(
        len(rows) - len(failed), failed, sum(row.rows for row in rows), sum(row.unusable for row in rows)
    )


def settle(store: Store, job: str, reference: str) -> list[Window]:
    """Bring the windows of a job up to its slices, in order of key; only what changed is merged.

    A window that lost all of its rows stays, empty, with a new revision. Cost: reading the changed states;
    some 2 us a column and slice to merge.
    """
    with store.write() as connection:
        known = {
            tuple(getattr(row, part) for part in _KEY): row
            for row in connection.execute(select(window_table).where(window_table.c.job == job))
        }
        inputs = connection.execute(
            select(state_table.c.path, state_table.c.identity, state_table.c.end, *_columns())
            .where(state_table.c.job == job)
            .order_by(*_columns(), state_table.c.path)
        ).all()
        grouped = {
            key: list(rows)
            for key, rows in groupby(inputs, lambda row: tuple(getattr(row, part) for part in _KEY))
        }
        return [
            _settled(connection, job, reference, key, grouped.get(key, []), known.get(key))
            for key in sorted(grouped.keys() | known.keys())
        ]


def _columns() -> list[Column[Any]]:
    return [state_table.c[part] for part in _KEY]


def _settled(
    connection: Connection,
    job: str,
    reference: str,
    key: tuple[Any, ...],
    inputs: Sequence[Row[Any]],
    before: Row[Any] | None,
) -> Window:
    print_of = sha256(repr([(row.path, row.identity) for row in inputs]).encode()).hexdigest()
    if before is not None and before.inputs == print_of:
        state = load_state(before.state, "the store")
        return Window(
            Key._make((*key, before.end)), before.revision, before.rows, before.slices, state, False
        )
    where = [
        state_table.c.job == job,
        *(column == part for column, part in zip(_columns(), key, strict=True)),
    ]
    blobs = connection.execute(select(state_table.c.state).where(*where).order_by(state_table.c.path))
    state = merge_all((load_state(row.state, "the store") for row in blobs), reference)
    digest = sha256(canonical_bytes(state)).hexdigest()
    changed = before is None or before.digest != digest
    revision = (before.revision if before is not None else 0) + changed
    end = inputs[0].end if before is None else before.end
    values = dict(zip(_KEY, key, strict=True)) | {
        "job": job, "end": end, "revision": revision, "inputs": print_of, "digest": digest,
        "rows": state.rows, "slices": len(inputs), "state": dump_state(state),
    }  # fmt: skip
    at = [window_table.c.job == job, *(window_table.c[p] == v for p, v in zip(_KEY, key, strict=True))]
    connection.execute(delete(window_table).where(*at))
    connection.execute(insert(window_table).values(**values))
    return Window(Key._make((*key, end)), revision, state.rows, len(inputs), state, changed)
