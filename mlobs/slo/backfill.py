"""Recorded rules for the past, as OpenMetrics text in pieces of a day: promtool makes blocks of them. Pure.

promtool's own backfill evaluates rules against raw series alone; ours stand on each other, so the counts
are asked for day by day and the ratios are worked out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mlobs.settings import Settings
from mlobs.slo import promql
from mlobs.slo.evaluate import Plan
from mlobs.slo.policy import window_lengths
from mlobs.slo.prometheus import DAY, Prometheus, past_of, pieces
from mlobs.slo.replay import Floats, Past, windowed
from mlobs.slo.rules import labels_of
from mlobs.slo.sli import quoted

STEP = 300.0
"""Seconds between backfilled points: what windows beyond 6 hours and whole periods read."""


@dataclass(frozen=True, slots=True)
class Piece:
    start: float
    end: float
    text: str


def backfill(
    settings: Settings,
    plans: list[Plan],
    server: Prometheus,
    start: float,
    end: float,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[Piece]:
    """One OpenMetrics text a day, oldest first: counts of 5 minutes and an hour, and every window's ratio.

    `progress` is called after each day that was asked for, of each objective."""
    start, end = start // STEP * STEP, end // STEP * STEP
    labels = labels_of(settings, plans)
    pasts = {
        each.name: past_of(each, server, start, end, STEP, settings.slo.slice, progress) for each in plans
    }
    for day_start, day_end in pieces(start, end):
        families: dict[str, list[str]] = {}
        for each in plans:
            _lines(each, pasts[each.name], labels[each.name], day_start, day_end, families)
        lines = [line for name in sorted(families) for line in (f"# TYPE {name} gauge", *families[name])]
        yield Piece(day_start, day_end, "\n".join([*lines, "# EOF"]) + "\n")


def _lines(
    each: Plan, past: Past, labels: dict[str, str], start: float, end: float, families: dict[str, list[str]]
) -> None:
    grid = np.arange(start + STEP, end + STEP / 2, STEP)
    places = np.searchsorted(past.times, grid, side="right") - 1
    for length in sorted({STEP, 3600.0, *window_lengths(each.tiers), each.period}):
        counted = windowed(past, length)
        name = promql.window(length)
        if length in (STEP, 3600.0):
            for events, array in (("bad", counted.bad), ("total", counted.total)):
                told = {**labels, "events": events, "sloth_window": name}
                _append(families, promql.EVENTS, told, grid, array[places])
        seen = (counted.total > 0)[places]
        ratio = counted.ratio[places]
        _append(
            families,
            promql.RATIO.format(window=name),
            {**labels, "sloth_window": name},
            grid[seen],
            ratio[seen],
        )


def _append(
    families: dict[str, list[str]], name: str, labels: dict[str, str], times: Floats, values: Floats
) -> None:
    inside = ",".join(f"{label}={quoted(value)}" for label, value in labels.items())
    lines = families.setdefault(name, [])
    lines += [
        f"{name}{{{inside}}} {value!r} {t:.0f}"
        for t, value in zip(times.tolist(), values.tolist(), strict=True)
    ]


def days(start: float, end: float) -> int:
    """How many pieces a backfill has."""
    return -int(-(end - start) // DAY)
