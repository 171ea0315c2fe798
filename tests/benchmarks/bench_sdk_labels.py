"""A million distinct label values offered: what they cost in memory and at a scrape.

Ours come in where a careless user puts an id: as the name of a stage, as a decision, as the name of a
feature. The peer is prometheus-client with two histograms and a counter by the same values; a million would
need gigabytes and minutes of it: it gets fewer, and what a million would be is told by proportion. Each side
runs in a process of its own; memory is the growth of the resident set, a scrape CPU time, the least of three.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mlobs.testing import Seen

GOAL_MB = 64
GOAL_S = 0.25
CAP = 200
"""Label sets of a metric; the next value and all after it are `__other__`."""


class Cost(NamedTuple):
    """What `values` distinct values cost one side."""

    values: int
    offering_us: float
    memory_mb: float
    scrape_s: float
    page_mb: float


def resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def measured(values: int, offer: Callable[[int], None], scrape: Callable[[], bytes]) -> Cost:
    page = scrape()
    before = resident_mb()
    began = time.process_time()
    for number in range(values):
        offer(number)
    offering = time.process_time() - began
    took = []
    for _ in range(3):
        began = time.process_time()
        page = scrape()
        took.append(time.process_time() - began)
    return Cost(values, offering / values * 1e6, resident_mb() - before, min(took), len(page) / 1e6)


def ours(values: int) -> Cost:
    import mlobs
    from mlobs.sdk.serve import render
    from mlobs.testing import capture

    @mlobs.observe(model="careless", version="1")
    def score(number: int) -> None:
        with mlobs.stage(f"stage-{number}"):
            mlobs.current().set_decision(f"decision-{number}")
        mlobs.feature_age(f"feature-{number}", 1.0)

    with capture() as seen:
        seen.runtime.log = None  # nothing is kept: the records of a million calls are another matter
        found = measured(values, score, lambda: render("")[0])
        check(seen, values)
    return found


def check(seen: Seen, values: int) -> None:
    """Every value was counted, and each of those beyond the cap as such."""
    for metric, counted in (
        ("mlobs_stage_duration_seconds", "mlobs_stage_duration_seconds_count"),
        ("mlobs_predictions_total", "mlobs_predictions_total"),
        ("mlobs_feature_age_seconds", "mlobs_feature_age_seconds_count"),
    ):
        assert seen.value(counted) == values, metric
        beyond = seen.value("mlobs_label_overflow_total", metric=metric)
        assert beyond == values - CAP, (metric, beyond)


def peer(values: int) -> Cost:
    from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

    registry = CollectorRegistry()
    stage = Histogram("stage_seconds", "A stage.", ["stage"], registry=registry)
    decision = Counter("decisions", "Decisions.", ["decision"], registry=registry)
    age = Histogram("age_seconds", "Age.", ["feature"], registry=registry)

    def score(number: int) -> None:
        with stage.labels(f"stage-{number}").time():
            decision.labels(f"decision-{number}").inc()
        age.labels(f"feature-{number}").observe(1.0)

    return measured(values, score, lambda: generate_latest(registry))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--peer-values", type=int, default=20_000)
    given = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        us = pool.apply(ours, (given.values,))
        them = pool.apply(peer, (given.peer_values,))
    times = given.values / given.peer_values
    print(f"{'':34}{'ours':>12}{'goal':>10}{'peer':>12}{f'peer x {times:g}':>14}")
    for what, mine, goal, theirs in (
        ("distinct values, of three labels", us.values, None, them.values),
        ("memory, MB more", us.memory_mb, GOAL_MB, them.memory_mb),
        ("scrape, ms", us.scrape_s * 1e3, GOAL_S * 1e3, them.scrape_s * 1e3),
        ("page, MB", us.page_mb, None, them.page_mb),
    ):
        mark = "  missed" if goal is not None and mine >= goal else ""
        shown = "" if goal is None else f"< {goal:g}"
        print(f"{what:34}{mine:12.1f}{shown:>10}{theirs:12.1f}{theirs * times:14.0f}{mark}")
    print(f"{'a call with its three values, us':34}{us.offering_us:12.1f}{'':10}{them.offering_us:12.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
