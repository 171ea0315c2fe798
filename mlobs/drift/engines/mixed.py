"""Columns that are not alike in all files of a table: said with the file, and judged all the same. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlobs.drift.engines.base import Outcome
from mlobs.drift.spec import Spec

_MOST = 3
"""Files that are named; the others are counted."""
_VALUES = re.compile(r"(?:dictionary<values=|run_end_encoded<run_ends: \w+, values: )(\w+)")
_FAMILIES = {
    "number": r"u?int\d+|halffloat|float|double|decimal.*",
    "text": r"(large_)?string(_view)?",
    "bytes": r"(large_)?binary(_view)?|fixed_size_binary.*",
    "moment": r"timestamp.*|date.*",
}


def types_of(outcomes: Sequence[Outcome], spec: Spec) -> tuple[dict[str, str], list[str]]:
    """(types of the columns over all files, a sentence on each column that is of another type, or missing, in
    some). An integer beside a float is no other type, nor is a file with nothing but nulls."""
    types: dict[str, str] = {}
    notes = []
    for name in dict.fromkeys([*spec.columns, *(name for one in outcomes for name, _ in one.types)]):
        files: dict[str, list[str]] = {}
        for one in outcomes:
            files.setdefault(dict(one.types).get(name, ""), []).append(one.slice.path)
        present = {kind: paths for kind, paths in files.items() if kind}
        if not present:
            continue
        families: dict[str, list[str]] = {}
        for kind in present:
            families.setdefault(_family(kind), []).append(kind)
        if len(families) > 1:
            families.pop("null", None)
        usual = max(
            (kind for found in families.values() for kind in found), key=lambda kind: len(present[kind])
        )
        odd = [kind for found in families.values() if usual not in found for kind in found]
        told = [f"{kind} in {_named(present[kind])}" for kind in odd]
        types[name] = ", ".join([usual, *told])
        if "" in files:
            told.append(f"missing in {_named(files[''])}")
        if told and name in spec.columns:
            notes.append(f"{name} is {usual}, but {', '.join(told)}")
    return types, notes


def _named(paths: Sequence[str]) -> str:
    names = ", ".join(path.partition("?")[0] for path in paths[:_MOST])
    return names + (f" and {len(paths) - _MOST} more files" if len(paths) > _MOST else "")


def _family(kind: str) -> str:
    """What Arrow's types have in common for whoever counts values, from the text of the type."""
    kind = found[1] if (found := _VALUES.match(kind)) else kind
    known = (family for family, pattern in _FAMILIES.items() if re.fullmatch(pattern, kind))
    return next(known, re.split(r"[<\[(]", kind)[0])
