"""Samples of one scrape -> (bad, total) of every account: which series belongs where is worked out once a
series."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlobs import names
from mlobs.slo import exposition
from mlobs.slo.sli import Gauge, Indicator, Term

Vector = NDArray[np.float64]
"""Shape (accounts, 2): bad and total."""

BAD, TOTAL = 0, 1
EVENTS = ""
RAW = "raw"
"""Part that holds a sliced objective's requests; its events are the slices."""
UNJUDGED = "unjudged"

SPENT_BY = (names.MODEL_VERSION, names.SEGMENT, names.FEATURE)
"""Labels by which spending is told apart, where series carry them."""
_PARTS = 20
_CACHED_SERIES = 200_000

Place = tuple[str, str, str, str]
"""Model, feature, segment and severity: what a breach and its onset have in common."""

Route = tuple[int, float]
"""Where a sample goes: 2 x account + column, and its sign; -1 - account for a gauge's level."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A `mlobs_drift_breach` that stands at 1 or more."""

    labels: Mapping[str, str]
    since: float | None
    """Start of the first window that broke it, where the target says so."""

    @property
    def place(self) -> Place:
        return place(self.labels)


@dataclass(frozen=True, slots=True)
class Raw:
    """What one target showed: counters as they stood, and what else was found on the way."""

    counts: Vector
    seen: NDArray[np.bool_]
    started: float | None
    breaches: tuple[Broken, ...] = ()
    levels: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    """By account the values of its gauge."""
    missing: str = ""
    """Objectives whose threshold is no bucket edge here: their requests are unknown, neither fast nor
    slow."""
    refused: int = 0
    """Samples that were no count: NaN, infinite or negative."""


@dataclass
class Router:
    """Knows which account a series feeds. `accounts` gives ids to (objective, part), new ones as they
    appear."""

    indicators: Mapping[str, Indicator]
    accounts: Accounts
    _routes: dict[str, tuple[Route, ...]] = field(default_factory=dict)
    _breaches: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _onsets: dict[str, Place] = field(default_factory=dict)
    _wanted: dict[str, list[tuple[str, str, int, Term]]] = field(default_factory=dict)
    _gauges: dict[str, list[tuple[str, Gauge]]] = field(default_factory=dict)
    _subtracting: dict[int, str] = field(default_factory=dict)
    """Slots of bad events that are a total less its fast ones, by objective."""

    def __post_init__(self) -> None:
        for name, indicator in self.indicators.items():
            events = RAW if indicator.sliced else EVENTS
            self.accounts.id(name, EVENTS)
            if indicator.gauge is not None:
                self._gauges.setdefault(indicator.gauge.selector.metric, []).append((name, indicator.gauge))
            for part, column, terms in (
                (events, BAD, indicator.bad),
                (events, TOTAL, indicator.total),
                (UNJUDGED, TOTAL, indicator.unjudged),
            ):
                for term in terms:
                    slot = 2 * self.accounts.id(name, part) + column
                    if term.sign < 0:
                        self._subtracting[slot] = name
                    self._wanted.setdefault(term.selector.metric, []).append((name, part, column, term))

    def read(self, samples: Iterable[tuple[str, float]]) -> Raw:
        """One target's samples, by series as written."""
        counts: dict[int, float] = {}
        edged: set[int] = set()
        levels: dict[int, list[float]] = {}
        started, refused = None, 0
        breaches: list[Mapping[str, str]] = []
        onsets: dict[Place, float] = {}
        routes = self._routes
        for key, number in samples:
            found = routes.get(key)
            if found is None:
                found = self._learn(key)
            if not found:
                if key.startswith(names.PROCESS_START) and math.isfinite(number):
                    started = number if started is None else max(started, number)
                elif number >= 1 and key in self._breaches:
                    breaches.append(self._breaches[key])
                elif key in self._onsets and 0 < number < math.inf:
                    onsets[self._onsets[key]] = number
                continue
            # Infinities and NaN are no numbers to count with; `0 <=` refuses NaN as well.
            if not 0 <= number < math.inf and not (found[0][0] < 0 and math.isfinite(number)):
                refused += 1
                continue
            for slot, sign in found:
                if slot < 0:
                    levels.setdefault(-1 - slot, []).append(number)
                else:
                    counts[slot] = counts.get(slot, 0.0) + sign * number
                    if sign < 0:
                        edged.add(slot)
        blind = [slot for slot in counts if slot in self._subtracting and slot not in edged]
        for slot in blind:  # without the bucket every request would look slow
            del counts[slot]
            counts.pop(slot + 1, None)
        flat = np.zeros(2 * len(self.accounts))
        slots = np.fromiter(counts, dtype=np.intp, count=len(counts))
        flat[slots] = np.fromiter(counts.values(), dtype=np.float64, count=len(counts))
        seen = np.zeros(len(self.accounts), dtype=np.bool_)
        seen[slots // 2] = True
        kept = {account: tuple(values) for account, values in levels.items()}
        missing = ", ".join(sorted({self._subtracting[slot] for slot in blind}))
        if missing:
            missing = f"no bucket edge at the threshold of {missing}"
        broken = tuple(Broken(labels, onsets.get(place(labels))) for labels in breaches)
        return Raw(flat.reshape(-1, 2), seen, started, broken, kept, missing, refused)

    def _learn(self, key: str) -> tuple[Route, ...]:
        if len(self._routes) > _CACHED_SERIES:  # a target that never repeats its series must not fill memory
            self._routes.clear()
            self._breaches.clear()
            self._onsets.clear()
        cut = key.find("{")
        name = (key if cut < 0 else key[:cut]).rstrip()
        found: tuple[Route, ...] = ()
        breach = name in (names.DRIFT_BREACH, names.DRIFT_BREACH_SINCE)
        if breach or name in self._wanted or name in self._gauges:
            _, labels = exposition.series(key)
            if name == names.DRIFT_BREACH:
                self._breaches[key] = labels
            elif breach:
                self._onsets[key] = place(labels)
            else:
                found = tuple(self._routes_of(name, labels))
        self._routes[key] = found
        return found

    def _routes_of(self, name: str, labels: Mapping[str, str]) -> Iterable[Route]:
        for slo, part, column, term in self._wanted.get(name, ()):
            if term.selector.matches(labels):
                yield 2 * self.accounts.id(slo, part) + column, float(term.sign)
                if part != UNJUDGED:
                    for label in SPENT_BY if name != names.GOOD_PREDICTIONS else (*SPENT_BY, names.RESULT):
                        if labels.get(label):
                            slot = 2 * self._part(slo, label, labels[label]) + column
                            if 2 * self.accounts.id(slo, part) + column in self._subtracting:
                                self._subtracting[slot] = slo
                            yield slot, float(term.sign)
        yield from self._checks(name, labels)
        for slo, gauge in self._gauges.get(name, ()):
            if gauge.selector.matches(labels):
                yield -1 - self.accounts.id(slo, EVENTS), 1.0

    def _checks(self, name: str, labels: Mapping[str, str]) -> Iterable[Route]:
        """Rows by the check that they failed, for what was spent on data quality; they may overlap."""
        check = labels.get(names.CHECK, "")
        if name != names.DATA_QUALITY_ROWS or check == names.ANY_CHECK or not check:
            return
        asked = {**labels, names.CHECK: names.ANY_CHECK}
        for slo, part, column, term in self._wanted[name]:
            if part == EVENTS and column == BAD and term.selector.matches(asked):
                yield 2 * self._part(slo, names.CHECK, check) + column, float(term.sign)

    def _part(self, slo: str, label: str, value: str) -> int:
        """The account of one value of a label; beyond the cap all further ones share one."""
        part = f"{label}={value}"
        if self.accounts.find(slo, part) is None:
            used = sum(1 for known, _ in self.accounts.parts(slo) if known.startswith(f"{label}="))
            if used >= _PARTS:
                part = f"{label}={names.OTHER}"
        return self.accounts.id(slo, part)


class Accounts:
    """Ids of (objective, part); an id is a row of every vector."""

    def __init__(
        self, fingerprints: Mapping[str, str], known: Sequence[tuple[int, str, str, str]] = ()
    ) -> None:
        """`known` are the store's rows: id, objective, part, fingerprint; other definitions' rows stay
        untouched."""
        self.fingerprints = fingerprints
        self._ids = {(slo, part): id_ for id_, slo, part, print_ in known if fingerprints.get(slo) == print_}
        self._parts: dict[str, dict[str, int]] = {}
        for (slo, part), id_ in self._ids.items():
            self._parts.setdefault(slo, {})[part] = id_
        self._count = max((row[0] for row in known), default=-1) + 1
        self.fresh: list[tuple[int, str, str]] = []
        """Ids given since they were last written to the store."""

    def __len__(self) -> int:
        return self._count

    def id(self, slo: str, part: str) -> int:
        found = self._ids.get((slo, part))
        if found is None:
            found = self._ids[slo, part] = self._count
            self._parts.setdefault(slo, {})[part] = found
            self._count += 1
            self.fresh.append((found, slo, part))
        return found

    def find(self, slo: str, part: str) -> int | None:
        return self._ids.get((slo, part))

    def parts(self, slo: str) -> list[tuple[str, int]]:
        """Every part of an objective with its id."""
        return list(self._parts.get(slo, {}).items())


def place(labels: Mapping[str, str]) -> Place:
    """Where a breach is."""
    return (
        labels.get(names.MODEL, ""),
        labels.get(names.FEATURE, ""),
        labels.get(names.SEGMENT, ""),
        labels.get(names.SEVERITY, ""),
    )


def grown(vector: Vector, count: int) -> Vector:
    """`vector` with rows of zero up to `count`: an account that did not exist yet had counted nothing."""
    if len(vector) >= count:
        return vector
    return np.vstack([vector, np.zeros((count - len(vector), 2))])
