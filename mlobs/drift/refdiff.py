"""What changes from one reference to another: what it judges, and by what. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlobs.drift.checks import DayShares, Limit, limit_of
from mlobs.drift.moments import said
from mlobs.drift.reference import WHOLE, Reference, Slicing
from mlobs.drift.spec import CHECKS, DUPLICATES, FRESHNESS, ROWS, VOLUME, ColumnSpec
from mlobs.durations import format_duration, speak_duration

MARGIN = 0.05
NEWS = 0.01
"""A worst day that is worse or better by less is none: it is a fifth of the margin."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One change; `column` is empty where it is of the reference as a whole."""

    column: str
    what: str
    old: object
    new: object
    text: str


def differences(old: Reference, new: Reference) -> list[Difference]:
    """Columns, kinds, limits, categories; slices, segments, joint columns, checks of rows; checks that went
    on or off, and worst days that differ by a point or more, of the whole and of every segment."""
    found = list(_wholes(old, new))
    for name in sorted(old.spec.columns.keys() | new.spec.columns.keys()):
        before, after = old.spec.columns.get(name), new.spec.columns.get(name)
        if before is None or after is None:
            what = "added" if before is None else "removed"
            found.append(Difference(name, what, before is not None, after is not None, f"{name}: {what}"))
        else:
            found += _column(before, after)
    for segment in sorted(old.days.keys() & new.days.keys()):
        found += _days(segment, old, new)
    if old.id != new.id and not found:
        found.append(Difference("", "counts", None, None, "bins or counts differ"))
    return found


def rows_judged(reference: Reference) -> dict[str, dict[str, float]]:
    """Checks of rows as a whole that were asked for, with what the days say of them."""
    days = reference.days[WHOLE]
    found: dict[str, dict[str, float]] = {}
    if reference.spec.duplicates:
        found[DUPLICATES] = {"worst": days.limit(ROWS, DUPLICATES, MARGIN).worst}
    if reference.spec.volume:
        found[VOLUME] = {"least": min(days.rows), "most": max(days.rows)}
    if reference.spec.freshness:
        found[FRESHNESS] = {"longest_silence_seconds": max(days.silences)}
    return found


def rows_text(check: str, told: dict[str, float] | None) -> str:
    """One of them, for people."""
    if told is None:
        return "not judged"
    if check == VOLUME:
        return f"{told['least']:,.0f} to {told['most']:,.0f} rows a slice"
    if check == FRESHNESS:
        return f"longest silence {speak_duration(told['longest_silence_seconds'])}"
    return f"worst day {told['worst']:.1%}"


def slicing_text(slicing: Slicing) -> str:
    """How a reference is cut, for people."""
    if slicing.time is not None:
        cut = f"by {slicing.time}, {format_duration(slicing.window)} in {slicing.zone}"
    else:
        cut = "one whole" if slicing.day is None else f"by {slicing.day}"
    return cut + (f", segments by {slicing.segment}" if slicing.segment else "")


def _wholes(old: Reference, new: Reference) -> Iterator[Difference]:
    if old.model_version != new.model_version:
        yield _whole("model version", old.model_version or "any", new.model_version or "any")
    if old.slicing != new.slicing:
        yield _whole("slices", slicing_text(old.slicing), slicing_text(new.slicing))
    days = [reference.days[WHOLE].labels for reference in (old, new)]
    if days[0] != days[1] or old.rows != new.rows:
        was, now = ({"days": len(one.days[WHOLE].labels), "rows": one.rows} for one in (old, new))
        text = f"days: {len(days[0])} -> {len(days[1])}; rows: {old.rows:,} -> {new.rows:,}"
        yield Difference("", "days", was, now, text)
    segments = [sorted(set(reference.days) - {WHOLE}) for reference in (old, new)]
    if segments[0] != segments[1]:
        gone, come = (sorted(set(segments[at]) - set(segments[1 - at]))[:5] for at in (0, 1))
        text = f"segments gone {gone}, come {come}"
        yield Difference("", "segments", segments[0], segments[1], text)
    if old.spec.block != new.spec.block:
        yield _whole("joint", list(old.spec.block), list(new.spec.block))
    judged = rows_judged(old), rows_judged(new)
    for check in (DUPLICATES, VOLUME, FRESHNESS):
        before, after = (one.get(check) for one in judged)
        if before != after:
            texts = rows_text(check, before), rows_text(check, after)
            if texts[0] != texts[1]:
                yield Difference("", check, before, after, f"{check}: {texts[0]} -> {texts[1]}")


def _whole(what: str, old: object, new: object) -> Difference:
    texts = [", ".join(map(str, one)) or "none" if isinstance(one, list) else str(one) for one in (old, new)]
    return Difference("", what, old, new, f"{what}: {texts[0]} -> {texts[1]}")


def _column(before: ColumnSpec, after: ColumnSpec) -> Iterator[Difference]:
    name = before.name
    if before.kind != after.kind:
        text = f"{name}: kind {before.kind} -> {after.kind}"
        yield Difference(name, "kind", before.kind, after.kind, text)
        return
    if before.arrow != after.arrow:
        text = f"{name}: type {before.arrow} -> {after.arrow}"
        yield Difference(name, "type", before.arrow, after.arrow, text)
    if before.limits != after.limits:
        text = f"{name}: limits {span_text(before)} -> {span_text(after)}"
        yield Difference(name, "limits", before.limits, after.limits, text)
    was, now = ({*column.categories, *column.known} for column in (before, after))
    if was != now:
        gone, come = (sorted(part) for part in (was - now, now - was))
        text = f"{name}: categories gone {gone[:5]}, come {come[:5]} ({len(was)} -> {len(now)})"
        yield Difference(name, "categories", gone[:50], come[:50], text)


def span_text(column: ColumnSpec) -> str:
    """The limits of a number, for people."""
    if column.limits is None:
        return "none"
    return " to ".join(said(limit, column.arrow) for limit in column.limits)


def _days(segment: str, old: Reference, new: Reference) -> Iterator[Difference]:
    for name, column in old.spec.columns.items():
        after = new.spec.columns.get(name)
        if after is None or after.kind != column.kind:
            continue
        for check in CHECKS:
            pair = (
                _limit(check, column, old.days[segment]),
                _limit(check, after, new.days[segment]),
            )
            if pair[0] is None or pair[1] is None:
                continue
            off = pair[0].off != pair[1].off
            if not off and (pair[0].off or abs(pair[0].worst - pair[1].worst) < NEWS):
                continue
            where = f"{name}: " if segment == WHOLE else f"segment {segment}: {name}: "
            text = f"{where}{check} {limit_text(pair[0])} -> {limit_text(pair[1])}"
            what = check if segment == WHOLE else f"{check} in segment {segment}"
            yield Difference(name, what, limit_json(pair[0]), limit_json(pair[1]), text)


def _limit(check: str, column: ColumnSpec, days: DayShares) -> Limit | None:
    limit = limit_of(check, column, days, MARGIN)
    return limit if check in days.shares.get(column.name, {}) else None


def limits_of(column: ColumnSpec, days: DayShares) -> dict[str, Limit]:
    """By check, what it is judged by; those alone that mean something for the column."""
    found = {check: _limit(check, column, days) for check in CHECKS}
    return {check: limit for check, limit in found.items() if limit is not None}


def limit_text(limit: Limit) -> str:
    """`worst day 2.0 % (2026-01-03)`, or that it is off."""
    day = f" ({limit.day})" if limit.day else ""
    return f"off{day}" if limit.off else f"worst day {limit.worst:.1%}{day}"


def limit_json(limit: Limit) -> dict[str, object]:
    """The same as plain data."""
    return {"share": limit.worst, "day": limit.day, "off": limit.off}
