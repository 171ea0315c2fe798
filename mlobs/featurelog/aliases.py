"""Renamed features: what older records call by another name is read under the one in force.

    features: {amount_eur: {aliases: [amount]}}

A record that has the old name alone gives its value to the new one, as if the feature had always been called
so. Where a record has both, the new one counts; an old value that differs, or is of another type, stands
beside it in `conflicts` and is never made to fit. Files and segments stay as they were written. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from mlobs.featurelog.columns import (
    CONFLICTS,
    FEATURES,
    Conflict,
    Types,
    bring,
    children,
    column_of,
    joined_conflicts,
    kind_of_arrow,
)
from mlobs.settings import Settings

Aliases = Mapping[str, str]
"""Name in force by old name."""
NONE: Final[Aliases] = {}
_MAP: Final = pa.map_(pa.string(), pa.string())


def aliases_of(settings: Settings) -> dict[str, Aliases]:
    """The aliases of each model that has some."""
    found = {
        model.name: {old: name for name, feature in model.features.items() for old in feature.aliases}
        for model in settings.models
    }
    return {model: aliases for model, aliases in found.items() if aliases}


def under_both(types: Types, aliases: Aliases) -> Types:
    """`types`, where an old name has the type of the one in force."""
    return {**types, **{old: types[new] for old, new in aliases.items() if new in types}}


def renamed(table: pa.Table, aliases: Aliases, types: Types) -> pa.Table:
    """The table with its features under the names in force. `types`: kinds of those that are known."""
    own = [field.name for field in children(table, FEATURES)]
    if not any(name in aliases for name in own) and not _names_conflicts(table, aliases):
        return table
    struct = column_of(table, FEATURES, "s")
    conflicts: list[Conflict] = []
    arrays: dict[str, pa.Array] = {}
    sources: dict[str, list[str]] = {}
    for name in own:
        sources.setdefault(aliases.get(name, name), []).append(name)
    for name, olds in sources.items():
        olds.sort(key=lambda old, new=name: old != new)  # type: ignore[misc]  # the name in force first
        parts = [(old, pc.struct_field(struct, old)) for old in olds]
        arrays[name] = parts[0][1] if len(parts) == 1 else _one(name, parts, types.get(name), conflicts)
    features = pa.StructArray.from_arrays(list(arrays.values()), list(arrays)) if arrays else struct
    table = table.set_column(table.schema.get_field_index(FEATURES), FEATURES, features)
    if CONFLICTS in table.column_names:
        place = table.schema.get_field_index(CONFLICTS)
        table = table.set_column(place, CONFLICTS, _under_new_names(table, aliases))
        table = table.set_column(place, CONFLICTS, joined_conflicts(table, conflicts))
    return table


def _one(
    name: str, parts: list[tuple[str, pa.Array]], known: str | None, conflicts: list[Conflict]
) -> pa.Array:
    """One column out of several: the first value of each row, the others beside it if they differ."""
    kinds = [kind_of_arrow(each.type) for _, each in parts if each.null_count < len(each)]
    kind = known or next((each for each in kinds if each), "s")
    if kind == "i" and "f" in kinds:
        kind = "f"
    whole: pa.Array | None = None
    for old, array in parts:
        here: list[Conflict] = []
        brought = bring(array, name, kind, here)
        if whole is None:
            whole = brought
            conflicts.extend(here)
            continue
        taken = whole.is_valid().to_pylist()
        for row, _, value in here:
            conflicts.append(Conflict(row, old if taken[row] else name, value))
        differs = pc.fill_null(pc.not_equal(whole, brought), False)
        for row in pc.indices_nonzero(differs).to_pylist():
            lost, stays = array[row].as_py(), whole[row].as_py()
            if lost == lost or stays == stays:  # NaN beside NaN is no difference
                conflicts.append(Conflict(row, old, lost))
        whole = pc.coalesce(whole, brought)
    assert whole is not None
    return whole


def _names_conflicts(table: pa.Table, aliases: Aliases) -> bool:
    if CONFLICTS not in table.column_names:
        return False
    column = table.column(CONFLICTS)
    if column.null_count == len(column):
        return False
    return any(name in aliases for entry in column.to_pylist() for name, _ in entry or ())


def _under_new_names(table: pa.Table, aliases: Aliases) -> pa.Array:
    column = column_of(table, CONFLICTS, "s")
    if column.null_count == len(column):
        return column
    found = [
        None if entry is None else [(aliases.get(name, name), value) for name, value in entry]
        for entry in column.to_pylist()
    ]
    return pa.array(found, _MAP)
