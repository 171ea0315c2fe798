"""How many rows come, and how old the newest is: a model's traffic, all its versions together. Pure.

Volume is judged window by window, those with few rows or none included, and breaks in k of n windows like any
check. Freshness is judged whenever somebody looks: a silence that has lasted is evidence enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mlobs.drift.checks import DayShares
from mlobs.drift.persistence import Finding
from mlobs.drift.profile import round_weights
from mlobs.drift.reference import WHOLE, Reference
from mlobs.drift.spec import FRESHNESS, ROWS, VOLUME
from mlobs.drift.state import State, Stratum
from mlobs.drift.verdicts import CHECKS_PREFIX, DRIFTED, EVERY
from mlobs.durations import speak_duration
from mlobs.records import Verdict
from mlobs.settings import RowsSettings

HALF: Final = 0.5
"""Inferred: half the rows of the least reference day, or twice those of the greatest."""
LEAST_DAYS: Final = 7
SIGMAS: Final = 3.09
"""Of the sampling alone: p = 0.001, one-sided."""
TWICE: Final = 2.0
"""Inferred: the longest silence of the reference, so many times."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The rows of a model's window: as kept, and as they stand for traffic."""

    rows: int
    weighted: float
    rate: float
    """Rows of traffic that a kept one stands for, by traffic."""


def traffic(states: Iterable[State], rate: float) -> Traffic:
    """Over all versions and segments of a window; `rate` is that of the sampling where no row came."""
    rows, weighted, squares = 0, 0.0, 0.0
    for state in states:
        for weight, stratum in state.strata.items():
            rows += stratum.rows
            weighted += weight * stratum.rows
            squares += weight * weight * stratum.rows
    return Traffic(rows, weighted, squares / weighted if weighted else rate)


def bare(weights: npt.ArrayLike) -> dict[float, Stratum]:
    """Strata of rows that nothing is known of but their weights."""
    different, rows = np.unique(round_weights(weights), return_counts=True)
    return {
        weight: Stratum(count, {}, {})
        for weight, count in zip(different.tolist(), rows.tolist(), strict=True)
    }


def judge_volume(
    model: str, start: float, end: float, seen: Traffic, declared: RowsSettings, reference: Reference | None
) -> Verdict | None:
    """The failed check of a window, or None. Declared: fewer or more rows of traffic than the bounds, by more
    than the sampling explains (at the bound, three standard deviations). Inferred, where the reference was
    asked to and the window is as long as one of its seven days or more: away by a factor of two."""
    if declared.volume is not None:
        share, bound, text = _declared(seen, *declared.volume)
    elif reference is not None and reference.spec.volume and reference.slicing.length == end - start:
        share, bound, text = _inferred(seen, reference.days[WHOLE])
    else:
        return None
    if not text:
        return None
    detail = f"{seen.weighted:,.0f} rows, {text} (volume)"
    return _failed(model, VOLUME, start, end, share, bound, seen.rows, reference, detail)


def _declared(seen: Traffic, low: float, high: float) -> tuple[float, float, str]:
    """(share of the bound that is missing or too much, its bound, what is wrong or nothing)."""
    for bound, sign, word in ((low, 1.0, "fewer than the declared"), (high, -1.0, "more than the declared")):
        slack = SIGMAS * math.sqrt(bound * max(seen.rate - 1.0, 0.0))
        if sign * (bound - seen.weighted) > slack:
            return abs(bound - seen.weighted) / max(bound, seen.weighted), 0.0, f"{word} {bound:,.0f}"
    return 0.0, 0.0, ""


def _inferred(seen: Traffic, days: DayShares) -> tuple[float, float, str]:
    if len(days.rows) < LEAST_DAYS:
        return 0.0, HALF, ""
    least, most, rows = min(days.rows), max(days.rows), seen.weighted
    near = least if rows < least else most
    away = abs(rows - near) / max(rows, near, 1.0) if not least <= rows <= most else 0.0
    if away <= HALF:
        return away, HALF, ""
    label = days.labels[days.rows.index(near)]
    return away, HALF, f"{away:.0%} away from the nearest reference day {label} with {near:,}"


def silence_limit(declared: RowsSettings, reference: Reference | None) -> tuple[float, str] | None:
    """(seconds that the newest row may be old, where that comes from); None where it is not judged."""
    if declared.freshness is not None:
        return declared.freshness, "declared"
    if reference is None or not reference.spec.freshness:
        return None
    days = reference.days[WHOLE]
    longest = max(days.silences)
    label = days.labels[days.silences.index(longest)]
    return TWICE * longest, f"twice the longest silence of the reference, {label}"


def judge_freshness(
    model: str, now: float, newest: float, declared: RowsSettings, reference: Reference | None
) -> Verdict | None:
    """The failed check at `now`, or None while the newest row is young enough. Its value is the part of the
    silence that is too much, in [0, 1)."""
    limit = silence_limit(declared, reference)
    age = now - newest
    if limit is None or age <= limit[0]:
        return None
    detail = (
        f"the newest row is {speak_duration(age)} old, allowed are {speak_duration(limit[0])} ({limit[1]}) "
        "(freshness)"
    )
    return _failed(model, FRESHNESS, newest, now, 1.0 - limit[0] / age, 0.0, 0, reference, detail)


def as_finding(verdict: Verdict) -> Finding:
    """A silence as what breaks: since the newest row."""
    return Finding(ROWS, verdict.status, verdict.window_start, 1, verdict)


def of_windows(history: Sequence[tuple[float, Verdict | None]], k: int) -> list[Finding]:
    """Volume over the last windows, oldest first: broken in `k` of them or more."""
    found = [verdict for _, verdict in history if verdict is not None]
    if len(found) < k:
        return []
    return [Finding(ROWS, VOLUME, found[0].window_start, len(found), found[-1])]


def newer(known: Mapping[str, float], model: str, moment: float, now: float) -> float:
    """The newest event time of a model; a row that claims a later time than the clock came now."""
    return max(known.get(model, -math.inf), min(moment, now))


def _failed(
    model: str, check: str, start: float, end: float, share: float, bound: float, rows: int,
    reference: Reference | None, detail: str,
) -> Verdict:  # fmt: skip
    name = reference.name if reference is not None else ""
    return Verdict(
        model, EVERY, ROWS, start, end, DRIFTED, check, CHECKS_PREFIX + check, share, bound, rows, name, "",
        None, detail,
    )  # fmt: skip
