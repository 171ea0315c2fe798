"""The reference: bins, their counts over the whole reference, and the shares of its single days. Pure.

Built once from two passes over the data: the first takes a sample, which fixes the bins; the second counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlobs.drift.aliased import names_of_score, under_names_in_force
from mlobs.drift.arrays import codes, kind_of, numbers, one_array, plain, text_of
from mlobs.drift.checks import DayShares, check_shares, table_shares
from mlobs.drift.columns import Columns, as_table
from mlobs.drift.grid import Floats, grid_of, reference_edges
from mlobs.drift.profile import profile
from mlobs.drift.score import CONSTANT_TOLERANCE
from mlobs.drift.silences import Silences
from mlobs.drift.spec import (
    CATEGORY,
    HEAVY,
    HEAVY_ROWS,
    KNOWN_CAP,
    NULL,
    NUMBER,
    RANGE,
    RARE_CELLS,
    ROWS,
    UNSEEN,
    UNUSABLE,
    ColumnSpec,
    Spec,
)
from mlobs.drift.state import State, empty_state, merge
from mlobs.errors import NothingJudgedError, UsageError
from mlobs.names import PREDICTION
from mlobs.slices import slice_at

Batches = Callable[[], Iterator[Columns]]
"""The reference's rows, batch by batch, as often as asked for."""


SAMPLE = 262_144
"""Values of a column that fix its bins; the counts are of all rows."""
HABIT = 0.05
"""What a reference day does in more than this share of its rows makes no row bad."""
WHOLE = ""
"""Key of the unsegmented shares."""
_QUARTER = 900.0
"""No zone changes its clock but on a quarter of an hour."""
_UNTIMED = ""
"""Label of rows without a usable time: they count in the whole and in no day."""
SCORE = PREDICTION
"""The column of the model's own output."""


@dataclass(frozen=True, slots=True)
class Slicing:
    """How the reference is cut: by the values of `day`, or by the slices of event time `time`; and by
    `segment`.
    """

    day: str | None = None
    time: str | None = None
    window: float = 86400.0
    zone: str = "UTC"
    segment: str | None = None

    @property
    def length(self) -> float:
        """Seconds of a slice; 0 for a table that is one whole."""
        return self.window if self.time is not None else 86400.0 if self.day is not None else 0.0

    @property
    def helpers(self) -> frozenset[str]:
        """Columns that are no features; a segment may well be one."""
        return frozenset(name for name in (self.day, self.time) if name)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A built reference. `id` is a hash of all that follows it."""

    name: str
    id: str
    spec: Spec
    state: State
    days: Mapping[str, DayShares]
    """Shares by segment; `""` holds the whole traffic."""
    slicing: Slicing
    model_version: str = ""
    """The version it was trained with; empty: it serves every version."""
    source: str = ""

    @property
    def rows(self) -> int:
        return self.state.rows


def build_reference(
    data: pa.Table | Batches,
    name: str,
    *,
    features: Sequence[str] | None = None,
    score_column: str | None = None,
    slicing: Slicing | None = None,
    model_version: str = "",
    source: str = "",
    duplicates: bool = False,
    volume: bool = False,
    freshness: bool = False,
    block: Sequence[str] = (),
) -> Reference:
    """The reference over all rows of a table, or of batches that can be read twice.

    `features` are the columns that count (default: all but those of the slicing); `score_column` is profiled
    under the name `prediction`, and a feature of that name as `features.prediction`. `duplicates`, `volume`,
    `freshness`: judge repeated rows, the rows of a window, and how old the newest is, too; `block`: numeric
    columns whose means and covariances are kept.
    Raises UsageError for a column that is not there, NothingJudgedError without rows. Memory: one batch, the
    sample of 262,144 values a column, and one state a day and segment.
    """
    slicing = slicing or Slicing()
    batches = _batches(data, score_column)
    columns = None
    if features is not None:
        own = names_of_score(score_column)
        wanted = [*features, *([score_column] if score_column else [])]
        columns = list(dict.fromkeys(own.get(name, name) for name in wanted))
    spec = learn_spec(batches, columns, slicing.helpers, [slicing.segment] if slicing.segment else [])
    unfit = [name for name in block if name not in spec.columns or spec.columns[name].kind != NUMBER]
    if unfit:
        raise UsageError.of("reference", "numeric columns that count", ", ".join(unfit), "name others")
    if freshness and slicing.time is None:
        raise UsageError.of("--freshness", "--time: how long no row came", "none", "name the time column")
    spec = replace(spec, duplicates=duplicates, volume=volume, freshness=freshness, block=tuple(block))
    silences = Silences(slicing.window, slicing.zone)
    states: dict[tuple[str, str], State] = {}
    order: dict[str, float] = {}
    for batch in batches():
        if freshness and batch.num_rows:
            silences.add(_times(batch, slicing))
        for label, rank, segment, part in _cut(batch, slicing):
            order[label] = rank
            state = profile(part, spec)
            for key in {(WHOLE, label), (segment, label)}:
                states[key] = merge(states[key], state) if key in states else state
    if not states:
        raise NothingJudgedError.of("reference", "rows", "a table without any", "name a table with data")
    whole = empty_state(spec.reference)
    for (segment, _), state in states.items():
        if segment == WHOLE:
            whole = merge(whole, state)
    days = {
        segment: _day_shares(_days_of(states, segment, slicing), order, spec)
        for segment in sorted({segment for segment, _ in states})
    }
    if slicing.time is not None and days[WHOLE].labels == (_UNTIMED,):
        raise UsageError.of("--time", "times, or seconds", f"none in {slicing.time!r}", "name another column")
    if freshness:
        starts = [order[label] for label in days[WHOLE].labels]
        days[WHOLE] = replace(days[WHOLE], silences=silences.longest(starts))
    return seal(Reference(name, "", spec, whole, days, slicing, model_version, source))


def _days_of(states: Mapping[tuple[str, str], State], segment: str, slicing: Slicing) -> dict[str, State]:
    days = {label: state for (found, label), state in states.items() if found == segment}
    if slicing.time is not None and len(days) > 1:
        days.pop(_UNTIMED, None)
    return days


def _batches(data: pa.Table | Batches, score_column: str | None) -> Batches:
    read: Batches = (lambda: iter([data])) if isinstance(data, pa.Table) else data
    if score_column is None or score_column == SCORE:
        return read

    def renamed() -> Iterator[Columns]:
        for batch in read():
            if score_column not in batch.schema.names:
                raise UsageError.of(
                    "reference", f"the score column {score_column!r}", "none", "correct the name"
                )
            yield under_names_in_force(batch, names_of_score(score_column))

    return renamed


def seal(reference: Reference) -> Reference:
    """The reference with its id and the checks of rows settled."""
    hashed = sha256(repr((reference.name, reference.model_version, reference.slicing)).encode())
    for name, column in reference.spec.columns.items():
        hashed.update(repr((name, column.kind, column.categories, column.limits)).encode())
        if column.grid is not None:
            hashed.update(column.grid.edges.tobytes())
        for weight, stratum in sorted(reference.state.strata.items()):
            hashed.update(repr(weight).encode() + stratum.columns[name].cells.tobytes())
    name_of = hashed.hexdigest()
    columns = {
        name: replace(column, row_checks=_row_checks(name, reference.days[WHOLE]))
        for name, column in reference.spec.columns.items()
    }
    spec = replace(reference.spec, columns=columns, reference=name_of)
    return replace(reference, id=name_of, spec=spec, state=State(name_of, reference.state.strata))


def _row_checks(column: str, days: DayShares) -> frozenset[str]:
    habits = {
        check
        for check in (NULL, UNSEEN, RANGE)
        if max(days.shares.get(column, {}).get(check, (0.0,)), default=0.0) > HABIT
    }
    if column == SCORE:
        habits.add(NULL)  # a call that failed has no output, and availability counts it
    return ColumnSpec("", NUMBER).row_checks - habits


def chosen_columns(reference: Reference, columns: Sequence[str]) -> Reference:
    """The reference for some of its columns. Raises UsageError for one that it does not have."""
    lacking = [name for name in columns if name not in reference.spec.columns]
    if lacking:
        known = ", ".join(reference.spec.columns)[:200]
        raise UsageError.of(
            "--columns", f"columns of the reference: {known}", ", ".join(lacking), "correct it"
        )
    dropped = frozenset(reference.spec.columns) - set(columns)
    kept = {name: reference.spec.columns[name] for name in columns}
    return replace(
        reference, spec=replace(reference.spec, columns=kept, ignored=reference.spec.ignored | dropped)
    )


def learn_spec(
    batches: Batches, columns: Sequence[str] | None, ignored: frozenset[str], needed: Sequence[str] = ()
) -> Spec:
    """Kinds and bins from a pass over the data: a strided sample of the numbers, every category by count."""
    schema: pa.Schema | None = None
    samples: dict[str, _Sample] = {}
    words: dict[str, dict[str, int]] = {}
    for batch in batches():
        if schema is None:
            schema = batch.schema
            chosen = _choose(schema, columns, ignored, needed)
        for name in chosen:
            array = one_array(batch.column(batch.schema.names.index(name)))
            kind = kind_of(array.type)
            if kind == NUMBER:
                samples.setdefault(name, _Sample()).add(numbers(array).values)
            elif kind == CATEGORY:
                _count_words(array, words.setdefault(name, {}))
    if schema is None:
        raise NothingJudgedError.of("reference", "rows", "none", "name a table with data")
    specs = {}
    for name in chosen:
        kind_text = str(schema.field(schema.names.index(name)).type)
        specs[name] = _column(name, kind_text, samples.get(name), words.get(name))
    return Spec(specs, "", ignored)


class _Sample:
    """At most `2 * SAMPLE` values of a column, evenly strided: the stride doubles when they become too
    many.
    """

    def __init__(self) -> None:
        self.parts: list[Floats] = []
        self.held = 0
        self.stride = 1
        self.low, self.high = np.inf, -np.inf

    def add(self, values: Floats) -> None:
        finite = values[np.isfinite(values)]
        if not len(finite):
            return
        self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
        self.parts.append(finite[:: self.stride])
        self.held += len(self.parts[-1])
        while self.held > 2 * SAMPLE:
            self.parts = [np.concatenate(self.parts)[::2]]
            self.held = len(self.parts[0])
            self.stride *= 2

    def values(self) -> Floats:
        """The sample, with the least and the greatest of all values."""
        return np.concatenate([*self.parts, [self.low, self.high]]) if self.held else np.empty(0)


def _choose(
    schema: pa.Schema, columns: Sequence[str] | None, ignored: frozenset[str], needed: Sequence[str]
) -> list[str]:
    known = list(dict.fromkeys(schema.names))
    lacking = [name for name in (*(columns or ()), *ignored, *needed) if name not in known]
    if lacking:
        raise UsageError.of(
            "reference",
            f"columns of the table: {', '.join(known)[:200]}",
            ", ".join(lacking),
            "correct the name",
        )
    doubled = {name for name in known if schema.names.count(name) > 1}
    chosen = [name for name in (columns or known) if name not in doubled]
    return chosen if columns else [name for name in chosen if name not in ignored]


def _column(name: str, arrow: str, sample: _Sample | None, words: Mapping[str, int] | None) -> ColumnSpec:
    if sample is not None:
        values = sample.values()
        if not len(values):
            return ColumnSpec(name, NUMBER, arrow)
        low, high = sample.low, sample.high
        if low == high:
            low, high = low - abs(low) * CONSTANT_TOLERANCE, high + abs(high) * CONSTANT_TOLERANCE
        return ColumnSpec(name, NUMBER, arrow, grid_of(reference_edges(values)), limits=(low, high))
    if words is not None:
        return _category(name, arrow, words)
    return ColumnSpec(name, UNUSABLE, arrow)


def _category(name: str, arrow: str, words: Mapping[str, int]) -> ColumnSpec:
    total = sum(words.values())
    # Few categories are not chosen among many by chance: each may have its cell from few rows on.
    least = total * HEAVY if len(words) <= RARE_CELLS else max(total * HEAVY, HEAVY_ROWS)
    heavy = sorted(
        (word for word, count in words.items() if count >= least),
        key=lambda word: (-words[word], word),
    )
    rare = frozenset(words) - set(heavy)
    novel = sum(count == 1 for count in words.values()) / max(total, 1)
    if len(words) > KNOWN_CAP:
        return ColumnSpec(name, CATEGORY, arrow, categories=tuple(heavy), rare=RARE_CELLS, open_ended=True)
    cells = RARE_CELLS if len(rare) > 1 else 1
    return ColumnSpec(name, CATEGORY, arrow, categories=tuple(heavy), known=rare, rare=cells, novel=novel)


def _count_words(array: pa.Array, counts: dict[str, int]) -> None:
    position, words, _ = codes(array)
    for word, count in zip(words, np.bincount(position, minlength=len(words)).tolist(), strict=True):
        if count:
            counts[word] = counts.get(word, 0) + count


def _cut(read: Columns, slicing: Slicing) -> Iterator[tuple[str, float, str, Columns]]:
    """(label, rank, segment, rows) of each day and segment within a batch."""
    rows = read.num_rows
    if not rows:
        return
    if slicing.day is None and slicing.time is None and slicing.segment is None:
        yield "", 0.0, WHOLE, read
        return
    batch = plain(as_table(read))
    labels, ranks = _labels(batch, slicing)
    segments = (
        np.array([text_of(value) for value in batch.column(slicing.segment).to_pylist()], dtype=object)
        if slicing.segment
        else np.full(rows, WHOLE, dtype=object)
    )
    _, day = np.unique(labels.astype(str), return_inverse=True)
    _, group = np.unique(segments.astype(str), return_inverse=True)
    both = day.astype(np.int64) * (int(group.max()) + 1) + group
    for value in np.unique(both):
        chosen = np.flatnonzero(both == value)
        first = chosen[0]
        yield str(labels[first]), float(ranks[first]), str(segments[first]), batch.take(pa.array(chosen))


def _times(batch: Columns, slicing: Slicing) -> Floats:
    return numbers(one_array(batch.column(batch.schema.names.index(slicing.time)))).values


def _labels(batch: pa.Table, slicing: Slicing) -> tuple[npt.NDArray[np.object_], Floats]:
    rows = batch.num_rows
    if slicing.time is not None:
        times = numbers(one_array(batch.column(slicing.time)))
        starts = np.full(rows, -np.inf)
        at = np.arange(rows) if times.index is None else times.index
        usable = np.isfinite(times.values) & (np.abs(times.values) < 62e9)
        step = min(slicing.window, _QUARTER)
        steps, place = np.unique(np.floor(times.values[usable] / step), return_inverse=True)
        begun = [slice_at(float(number * step), slicing.window, slicing.zone).start for number in steps]
        starts[at[usable]] = np.array(begun)[place] if begun else 0.0
        known = np.unique(starts)
        texts = np.array([_label(float(one), slicing) for one in known], dtype=object)
        return texts[np.searchsorted(known, starts)], starts
    if slicing.day is not None:
        values = [text_of(value) for value in batch.column(slicing.day).to_pylist()]
        return np.array(values, dtype=object), np.zeros(rows)
    return np.full(rows, "", dtype=object), np.zeros(rows)


def _label(start: float, slicing: Slicing) -> str:
    """`2024-01-31`; of slices shorter than a day with the time and its offset."""
    if not np.isfinite(start):
        return _UNTIMED
    begin = datetime.fromtimestamp(start, ZoneInfo(slicing.zone))
    return f"{begin:%Y-%m-%d}" if slicing.window >= 86400.0 else begin.isoformat(timespec="seconds")


def _day_shares(states: Mapping[str, State], order: Mapping[str, float], spec: Spec) -> DayShares:
    labels = tuple(sorted(states, key=lambda label: (order[label], label)))
    shares: dict[str, dict[str, list[float]]] = {}
    for label in labels:
        for name, column in spec.columns.items():
            for check, share in check_shares(states[label], column).items():
                shares.setdefault(name, {}).setdefault(check, []).append(share)
        for check, share in table_shares(states[label]).items():
            shares.setdefault(ROWS, {}).setdefault(check, []).append(share)
    return DayShares(labels, tuple(states[label].rows for label in labels), shares)
