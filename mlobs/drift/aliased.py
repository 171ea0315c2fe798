"""Renamed columns of tables: what a file calls by another name is read under the one in force.

The rules are those of the feature log: where a row has a value under both names the one in force counts.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from mlobs.drift.arrays import kind_of, one_array, text_of
from mlobs.drift.columns import Columns, as_table
from mlobs.drift.spec import NUMBER
from mlobs.names import FEATURE_PREDICTION, PREDICTION

if TYPE_CHECKING:
    from mlobs.drift.readers import Source

Aliases = Mapping[str, str]
"""Name in force by old name."""
NONE: Final[Aliases] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Renamed:
    """A batch under the names in force, good as long as that batch."""

    batch: Columns
    schema: pa.Schema
    sources: tuple[tuple[int, ...], ...]
    """Of each column its places in the batch, that of the name in force first."""

    @property
    def num_rows(self) -> int:
        return self.batch.num_rows

    def column(self, place: int) -> pa.ChunkedArray:
        columns = [self.batch.column(at) for at in self.sources[place]]
        if len(columns) == 1:
            return columns[0]
        kind = self.schema.field(place).type
        return pa.chunked_array([pc.coalesce(*(_as(one_array(column), kind) for column in columns))])


def under_names_in_force(batch: Columns, aliases: Aliases) -> Columns:
    """The batch as it is where it has no old name."""
    if not any(name in aliases for name in batch.schema.names):
        return batch
    schema, sources = _renamed(batch.schema, aliases)
    return Renamed(batch, schema, sources)


def aliased(source: Source, aliases: Aliases) -> Source:
    """The table under the names in force."""
    if not any(name in aliases for name in source.schema.names):
        return source
    schema, _ = _renamed(source.schema, aliases)
    return replace(
        source,
        schema=schema,
        batches=lambda: (as_table(under_names_in_force(batch, aliases)) for batch in source.batches()),
        columnwise=lambda: (under_names_in_force(batch, aliases) for batch in source.scan()),
    )


def with_old_names(columns: Iterable[str], aliases: Aliases) -> list[str]:
    """The columns and what else they may be called in a file."""
    wanted = list(columns)
    return [*wanted, *(old for old, new in aliases.items() if new in wanted and old not in wanted)]


def names_of_score(score: str | None) -> Aliases:
    """Where the model's output is the column `score`, a column called as outputs are is a feature of that
    name, and stands apart."""
    return NONE if score in (None, PREDICTION) else {score: PREDICTION, PREDICTION: FEATURE_PREDICTION}


def _renamed(schema: pa.Schema, aliases: Aliases) -> tuple[pa.Schema, tuple[tuple[int, ...], ...]]:
    entries: list[tuple[str, list[int]]] = []
    first: dict[str, list[int]] = {}
    seen: set[str] = set()
    for place, own in enumerate(schema.names):
        name = aliases.get(own, own)
        if name in first and own not in seen:
            first[name].insert(0 if own == name else len(first[name]), place)
        else:  # a name that stands there twice stays twice
            entries.append((name, [place]))
            first.setdefault(name, entries[-1][1])
        seen.add(own)
    fields = [pa.field(name, _kind([schema.field(at).type for at in places])) for name, places in entries]
    return pa.schema(fields), tuple(tuple(places) for _, places in entries)


def _kind(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """Of one column out of several: numbers stay numbers, times of one sort times, and nulls fit all; what
    does not fit together is text."""
    if len(kinds) == 1:
        return kinds[0]
    values = (kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds)
    plain = {kind for kind in values if not pa.types.is_null(kind)} or {pa.null()}
    if len(plain) == 1:
        return plain.pop()
    times = sum(pa.types.is_temporal(kind) for kind in plain)
    if times == len(plain):
        try:  # the finer unit
            schemas = [pa.schema([("", kind)]) for kind in plain]
            return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        except pa.ArrowException:  # a date beside a moment
            return pa.string()
    numbers = not times and all(kind_of(kind) == NUMBER for kind in plain)
    return pa.float64() if numbers else pa.string()


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if pa.types.is_string(kind) and not pa.types.is_dictionary(array.type):
        return pa.array([None if value is None else text_of(value) for value in array.to_pylist()], kind)
    return pc.cast(array, kind, safe=False)
