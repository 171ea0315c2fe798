"""What two versions expose on /metrics -> blocks of a canary. Pure: texts come in, counts go out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlobs import names
from mlobs.slo.canary import Arm, Block
from mlobs.slo.exposition import samples, series

_COUNT = f"{names.REQUEST_DURATION}_count"
_BUCKET = f"{names.REQUEST_DURATION}_bucket"
Totals = dict[tuple[str, ...], float]
"""Cumulative counts of one target: (version, kind, part) -> value."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of one target at one scrape, and when its process started."""

    totals: Totals
    started: float = 0.0


@dataclass(frozen=True, slots=True)
class Feed:
    """The last reading of every target."""

    model: str
    candidate: str
    baseline: str
    at: float = -math.inf
    last: Mapping[str, Reading] = field(default_factory=dict)


def read(text: str, model: str, versions: tuple[str, str]) -> Reading:
    """The counters of one /metrics text. Raises ValueError for what is no exposition."""
    totals: Totals = {}
    started = 0.0
    for key, value in samples(text):
        if not key.startswith("mlobs_") or not math.isfinite(value):
            continue
        name, labels = series(key)
        if name == names.PROCESS_START:
            started = value
        if labels.get(names.MODEL) != model or labels.get(names.MODEL_VERSION) not in versions:
            continue
        version = labels[names.MODEL_VERSION]
        outcome = labels.get(names.OUTCOME, "")
        for part in _parts(name, labels, outcome):
            totals[(version, *part)] = totals.get((version, *part), 0.0) + value
    return Reading(totals, started)


def _parts(name: str, labels: Mapping[str, str], outcome: str) -> list[tuple[str, ...]]:
    if name == _COUNT and outcome != names.CANCELLED:  # the caller went away: no fault of the version
        return [("requests",), ("errors",)] if outcome == names.ERROR else [("requests",)]
    if name == _BUCKET and outcome == names.OK:
        return [("upto", repr(float(labels.get("le", "inf"))))]
    if name == names.PREDICTIONS:
        return [("decision", labels.get(names.DECISION, ""))]
    return []


def advance(feed: Feed, readings: Mapping[str, Reading], now: float) -> tuple[Feed, Block | None]:
    """The feed after the scrapes of time `now`, and the block since the last ones; None for the first.

    `readings` holds the targets that answered. What a target counted while it was not read is in the block
    of its next reading. A target that is new since the first scrape counts whole if its process began since
    then, as one that restarted does; an arm nobody exposed is None.
    """
    current = {**feed.last, **readings}
    after = Feed(feed.model, feed.candidate, feed.baseline, now, current)
    if feed.at == -math.inf:
        return after, None
    gains: Totals = {}
    for target, reading in readings.items():
        for key, value in _gain(feed.last.get(target), reading, feed.at).items():
            gains[key] = gains.get(key, 0.0) + value
    edges, decisions = _bins(gains, "upto"), sorted({key[2] for key in gains if key[1] == "decision"})
    known = {key[2] for one in current.values() for key in one.totals if key[1] == "decision"}
    decisions = sorted(known | set(decisions))
    arms = [_arm(gains, version, edges, decisions) for version in (feed.candidate, feed.baseline)]
    return after, Block(feed.at, now, arms[0], arms[1])


def _gain(before: Reading | None, now: Reading, since: float) -> Totals:
    if before is None:
        return dict(now.totals) if now.started >= since else {}
    reset = now.started > before.started or any(
        value < before.totals.get(key, 0.0) for key, value in now.totals.items()
    )
    if reset:
        return dict(now.totals)
    return {key: value - before.totals.get(key, 0.0) for key, value in now.totals.items()}


def _bins(gains: Totals, kind: str) -> list[float]:
    return sorted({float(key[2]) for key in gains if key[1] == kind})


def _arm(gains: Totals, version: str, edges: list[float], decisions: list[str]) -> Arm | None:
    requests = gains.get((version, "requests"))
    if requests is None:
        return None
    upto = [gains.get((version, "upto", repr(edge)), 0.0) for edge in edges]
    durations = tuple(
        max(0, round(here - below)) for here, below in zip(upto, [0.0, *upto][:-1], strict=True)
    )
    decided = tuple(round(gains.get((version, "decision", one), 0.0)) for one in decisions)
    errors = round(gains.get((version, "errors"), 0.0))
    return Arm(round(requests), errors, durations, decisions=decided)
