"""What a person declared of a model's columns and rows, on top of what its reference says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from mlobs.drift.reference import Reference, chosen_columns, seal
from mlobs.drift.spec import CATEGORY, NUMBER, RANGE, TYPE, Spec
from mlobs.drift.state import State
from mlobs.settings import FeatureSettings, RowsSettings

_T = TypeVar("_T")
_KINDS = {"number": NUMBER, "category": CATEGORY, "boolean": CATEGORY}


def declare(spec: Spec, features: Mapping[str, FeatureSettings], rows: RowsSettings | None = None) -> Spec:
    """The spec with what was declared in place of what was inferred; `misfits` says what has no place."""
    columns = dict(spec.columns)
    for name, feature in features.items():
        column = columns.get(name)
        if column is None:
            continue
        column = replace(column, most=dict(feature.most))
        if feature.range is not None and column.kind == NUMBER:
            column = replace(
                column, limits=feature.range, declared=True, row_checks=column.row_checks | {RANGE}
            )
        if feature.categories is not None and column.kind == CATEGORY:
            extra = frozenset(feature.categories) - set(column.categories)
            column = replace(column, known=column.known | extra, declared=True)
        columns[name] = column
    most = rows.duplicates if rows is not None else None
    return replace(
        spec, columns=columns, duplicates=spec.duplicates or most is not None, most_duplicates=most
    )


def misfits(spec: Spec, features: Mapping[str, FeatureSettings]) -> dict[tuple[str, str], str]:
    """What was declared and cannot be judged, by (feature, check)."""
    found: dict[tuple[str, str], str] = {}
    for name, feature in features.items():
        column = spec.columns.get(name)
        if column is None:
            found[name, "schema"] = "declared, but the reference has no such column: nothing of it is judged"
            continue
        if feature.type is not None and _KINDS[feature.type] != column.kind:
            found[name, TYPE] = (
                f"declared as {feature.type}, but the reference holds it as {column.kind} ({column.arrow}): "
                f"judged as {column.kind}"
            )
    return found


def renamed_columns(reference: Reference, aliases: Mapping[str, str]) -> Reference:
    """The reference with the columns of old names under those in force (old -> new), and an id of its own.
    Where it has both, the old one is left out: what is read has its values under the name in force."""
    columns = reference.spec.columns
    doubled = {old for old, new in aliases.items() if old in columns and new in columns}
    if doubled:
        reference = chosen_columns(reference, [name for name in columns if name not in doubled])
        columns = reference.spec.columns
    names = {old: new for old, new in aliases.items() if old in columns and new not in columns}
    if not names:
        return reference

    def under(found: Mapping[str, _T]) -> dict[str, _T]:
        return {names.get(name, name): value for name, value in found.items()}

    strata = {}
    for weight, stratum in reference.state.strata.items():
        block = stratum.block
        if block is not None:
            block = replace(block, names=tuple(names.get(name, name) for name in block.names))
        strata[weight] = replace(stratum, columns=under(stratum.columns), block=block)
    fresh = {name: replace(column, name=name) for name, column in under(columns).items()}
    spec = replace(
        reference.spec,
        columns=fresh,
        block=tuple(names.get(name, name) for name in reference.spec.block),
    )
    days = {segment: replace(one, shares=under(one.shares)) for segment, one in reference.days.items()}
    state = State(reference.state.reference, strata)
    return seal(replace(reference, spec=spec, state=state, days=days))
