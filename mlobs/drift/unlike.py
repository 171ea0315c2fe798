"""A reference of raw values beside a feature log that masks them: which columns cannot be compared, and why.

What masking did to a text is seen in the values themselves (`ColumnSpec.meets_masked`); what it did to a
number, or by bucket, truncation and leaving out, only the masking schema tells. Such columns are not judged,
and said to be so: every value of them would look new, and nobody's data has changed. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from mlobs.drift.spec import CATEGORY, NUMBER, ColumnSpec

LoggedAs = Callable[[str, str], tuple[str, int]]
"""Model and feature -> how the masking schema lets it leave (`clear`, `drop`, `hash`, ...), and the length
that `truncate` leaves, else 0."""

REMEDY: Final = (
    "build the reference with the log's masking: `mlobs drift reference build --config mlobs.yaml`"
)
_BUCKET: Final = re.compile(r"(<|>=)\S+|\S+\.\.\S+")
_BECOMES: Final = {
    "hash": "keyed hashes",
    "tokenise": "tokens",
    "truncate": "beginnings",
    "bucket": "buckets",
}


def unlike(column: ColumnSpec, action: str, length: int) -> str:
    """Why the log's values of this column cannot be laid beside the reference's; "" where they can."""
    if action == "drop":
        return "the masking schema lets nothing of it leave"
    if action not in _BECOMES:
        return ""
    words = column.categories[:1000]
    raw = (
        column.kind == NUMBER
        or (action == "bucket" and column.kind == CATEGORY and not all(map(_BUCKET.fullmatch, words)))
        or (action == "truncate" and any(len(word) > length for word in words))
    )
    return f"the log has {_BECOMES[action]} of it and the reference raw values; {REMEDY}" if raw else ""


def unlike_columns(columns: Mapping[str, ColumnSpec], model: str, logged_as: LoggedAs) -> dict[str, str]:
    """Column -> why it cannot be compared."""
    found = {name: unlike(column, *logged_as(model, name)) for name, column in columns.items()}
    return {name: why for name, why in found.items() if why}
