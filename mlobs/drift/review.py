"""What a reference infers, as a file of checks for a person to go through and change. Pure.

Limits and categories stand there as they are, to be kept or changed; shares stand there commented out, with
the day that they come from: one that is not uncommented is inferred from every reference anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mlobs.drift.arrivals import LEAST_DAYS, TWICE
from mlobs.drift.checks import SKETCH, Limit
from mlobs.drift.moments import said, sort_of
from mlobs.drift.reference import SCORE, WHOLE, Reference
from mlobs.drift.spec import CATEGORY, DUPLICATES, NULL, NUMBER, RANGE, ROWS, TYPE, UNSEEN, ZERO, ColumnSpec
from mlobs.durations import format_duration, speak_duration

MOST_CATEGORIES = 50
"""More are no list to go through: the reference knows them."""
_SHARES = {NUMBER: (NULL, ZERO, RANGE, TYPE), CATEGORY: (NULL, UNSEEN, TYPE)}


def checks_text(reference: Reference, margin: float) -> str:
    """The file: YAML that `models[].checks` and `drift check --checks` read; with nothing changed in it the
    verdicts are those without it."""
    days = reference.days[WHOLE]
    lines = [
        f"# Checks inferred from reference {_comment(reference.name)}:",
        f"# {reference.rows:,} rows, {len(days.labels)} days.",
        "# Go through them line by line. What stands here holds whatever a later reference says; what is",
        "# commented out or taken out is inferred from the reference anew. `most` is the greatest share of",
        "# rows that may fail a check: it breaks beyond that and beyond chance (p < 0.001); 100% is off.",
        "features:",
    ]
    for column in reference.spec.columns.values():
        lines += [f"  {_text(column.name)}:", *(f"    {line}" for line in _column(column, reference, margin))]
    lines += ["rows:", *(f"  {line}" for line in _rows(reference, margin))]
    return "\n".join([*lines, ""])


def _column(column: ColumnSpec, reference: Reference, margin: float) -> Iterator[str]:
    kind = column.kind if column.kind in _SHARES else ""
    if column.name == SCORE and NULL not in column.row_checks:
        yield "# the model's output: a call that failed has none, and availability counts it"
    yield f"type: {kind}" if kind else f"{{}}  # {_comment(column.arrow)}: only nulls are counted"
    if not kind:
        return
    if column.limits is not None:
        times = [said(limit, column.arrow) for limit in column.limits] if sort_of(column.arrow) else []
        meant = f"  # seconds: {_comment(times[0])} to {_comment(times[1])}" if times else ""
        yield f"range: [{column.limits[0]!r}, {column.limits[1]!r}]{meant}"
    names = sorted({*column.categories, *column.known})
    if names and len(names) <= MOST_CATEGORIES:
        yield f"categories: [{', '.join(_text(name) for name in names)}]"
    elif names:
        yield f"# {len(names):,} categories, which the reference knows; name more with `categories: [...]`"
    limits = {
        check: reference.days[WHOLE].limit(column.name, check, margin)
        for check in _SHARES[kind]
        if check in reference.days[WHOLE].shares.get(column.name, {})
    }
    shares = ", ".join(f"{check}: {_percent(limit.worst + margin)}" for check, limit in limits.items())
    yield f"# most: {{{shares}}}"
    for check, limit in limits.items():
        if limit.off or limit.worst:
            yield f"#   {check}: {_why(limit)}"


def _rows(reference: Reference, margin: float) -> Iterator[str]:
    days = reference.days[WHOLE]
    critical = "critical: false  # a breach of these is a ticket; true: it pages"
    yield critical
    limit = days.limit(ROWS, DUPLICATES, margin)
    asked = reference.spec.duplicates and limit.days
    share = limit.worst + margin if asked else margin
    yield f"# duplicates: {_percent(share)}  # " + (
        f"{_why(limit)}; told by a sketch, within {SKETCH * 100:.0f} points"
        if asked
        else "not judged: build with --duplicates, or declare it here"
    )
    if days.rows:
        asked = reference.spec.volume and len(days.rows) >= LEAST_DAYS
        slice_of = (
            format_duration(reference.slicing.length) if reference.slicing.length else "the whole table"
        )
        yield f"# volume: [{min(days.rows) // 2}, {max(days.rows) * 2}]  # rows of traffic in a window; " + (
            f"half the least and twice the greatest slice of {slice_of}"
            if asked
            else f"slices of {slice_of}; not judged: build with --volume, or declare it here"
        )
    if days.silences:
        longest = max(days.silences)
        yield (
            f"# freshness: {format_duration(round(TWICE * longest))}  # twice the longest silence, "
            f"{speak_duration(longest)}, {_comment(days.labels[days.silences.index(longest)])}"
        )
    else:
        yield "# freshness: 15m  # not judged: build with --time and --freshness, or declare it here"


def _why(limit: Limit) -> str:
    worst = f"worst day {_percent(limit.worst)}" + (f" ({_comment(limit.day)})" if limit.day else "")
    return f"off, {worst}" if limit.off else worst


def _percent(share: float) -> str:
    return f"{min(share, 1.0) * 100:.3g}%"


def _text(word: str) -> str:
    """A name as YAML reads it back: quoted like JSON."""
    return json.dumps(word.encode("utf-8", "replace").decode())


def _comment(word: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in word)
