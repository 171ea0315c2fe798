"""A month of a flights model as view values: two incidents, one open; what the pages are tried with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from mlobs.records import FeatureRecord, Ledger
from mlobs.slices import slices_between
from mlobs.web.model import (
    BudgetPoint,
    BurnView,
    CallLink,
    Detail,
    DriftCell,
    DriftRow,
    DriftView,
    IncidentView,
    PageView,
    SloView,
    StatusView,
    TargetView,
    TimelineEntry,
)

ZONE = "America/New_York"
START = 1362114000.0  # 1 March 2013, midnight in New York
DAY = 86400.0
NOW = START + 24 * DAY - 3600 + 5 * 3600  # 25 March 04:00; the clocks went forward on the 10th
FEATURES = (
    "carrier origin dest sched_hour distance temp dewp humid wind_dir wind_speed wind_gust precip pressure"
    " visib"
).split()
CELSIUS = range(14, 19)


def _score(feature: int, day: int) -> float | None:
    if FEATURES[feature] == "wind_gust" and day % 4 == 0:
        return None
    wave = abs(math.sin(feature * 2.3 + day * 0.61)) * (2.6 if 5 <= feature <= 9 else 0.18)
    return wave + (9.0 if FEATURES[feature] == "temp" and day in CELSIUS else 0.0)


def _cell(feature: str, day: int) -> DriftCell | None:
    if feature in ("precip", "visib", "wind_gust"):
        return None
    if day == 7 and feature == "pressure":
        return DriftCell("absent", "no_data", rows=0)
    if day == 0:
        return DriftCell("insufficient", "too_few", rows=41)
    if feature in ("temp", "dewp") and day in CELSIUS:
        share = 0.93 - 0.02 * (day % 3) - (0.4 if feature == "dewp" else 0)
        detail = f"{share:.0%} of rows below the smallest value of training"
        return DriftCell("drifted", "range", "check:range", share, 0.05, 930 - day, detail)
    return DriftCell("ok", "ok", "check:any", 0.0, 0.05, 912 + day * 3 % 40)


def drift() -> DriftView:
    windows = tuple((s.start, s.end) for s in slices_between(START, START + 24 * DAY, DAY, ZONE))
    rows = tuple(
        DriftRow(
            name,
            tuple(_cell(name, day) for day in range(len(windows))),
            tuple(_score(number, day) for day in range(len(windows))),
            {
                "precip": "constant on most reference days",
                "visib": "constant on 24 of 59 reference days",
                "wind_gust": "71 % missing in the reference, whole days missing",
            }.get(name, ""),
        )
        for number, name in enumerate(FEATURES)
    )
    return DriftView(
        "late",
        "2013-02-28",
        windows,
        rows,
        statistic="psi",
        reference="flights.mlref (January and February 2013)",
    )


def _history(drops: Sequence[tuple[float, float, float]]) -> tuple[BudgetPoint, ...]:
    points = []
    for step in range(24 * 8):
        at = START + step * 3 * 3600
        left = 1.0
        for begin, end, size in drops:
            left -= size * min(1.0, max(0.0, (at - START - begin * DAY) / ((end - begin) * DAY)))
        gap = 36 < step < 41
        points.append(BudgetPoint(at, None if gap else left))
    return tuple(points)


def _burn(slow: float) -> tuple[BurnView, ...]:
    return (
        BurnView("page", 2 * DAY, 1 * DAY, 6.0, slow, slow * 1.1),
        BurnView("ticket", 7 * DAY, 2 * DAY, 2.0, slow * 0.6, slow),
    )


def slos() -> list[SloView]:
    return [
        SloView(
            "late-available",
            "late",
            "availability",
            Decimal("0.999"),
            31 * DAY,
            "ok",
            bad=3,
            total=21340,
            remaining=0.859,
            since=START + DAY,
            burn=_burn(0.2),
            history=_history([(2, 20, 0.141)]),
        ),
        SloView(
            "late-p99",
            "late",
            "p99",
            Decimal("0.9"),
            31 * DAY,
            "burning",
            threshold_s=0.1,
            severity="page",
            bad=2,
            total=23,
            unit="days",
            remaining=0.38,
            exhausted_at=NOW + 2.2 * DAY,
            since=START + 21 * DAY,
            burn=_burn(10.0),
            history=_history([(4, 4.2, 0.04), (21, 24, 0.58)]),
            incident="7f3a",
        ),
        SloView(
            "late-data",
            "late",
            "data_quality",
            Decimal("0.99"),
            31 * DAY,
            "exhausted",
            bad=4561,
            total=21340,
            unit="rows",
            remaining=-0.76,
            since=START + 14.5 * DAY,
            burn=_burn(0.4),
            history=_history([(14, 19, 1.7), (1, 24, 0.06)]),
        ),
        SloView(
            "late-drift",
            "late",
            "drift",
            Decimal("0.9"),
            31 * DAY,
            "absent",
            unit="days",
            burn=(BurnView("ticket", 7 * DAY, 2 * DAY, 2.0, None, None),),
        ),
    ]


PAGE_TEXT = """PAGE  late: p99 above 100 ms
burning 10x too fast over 2 d, budget 38 % left, gone in 2 d 5 h
since 22 Mar 2013 00:00 EDT
stage inference: 3.1 % of calls took 220 ms, before 2 ms
"""


def incidents() -> list[IncidentView]:
    return [
        IncidentView(
            "7f3a",
            "late: p99 above 100 ms",
            "open",
            "page",
            "latency",
            "flights-api",
            "late",
            START + 21 * DAY - 3600,
            None,
            "10× too fast over 2 d; 38 % of the budget left, gone in 2 d 5 h.",
            slos=("late-p99",),
            details=(
                Detail("Slowest stage: inference, p99 220 ms where 2 ms is usual"),
                Detail("No feature drifted in the same days."),
            ),
            runbook="https://runbooks.example/late-p99",
            timeline=(
                TimelineEntry(START + 21 * DAY, "opened", "p99 of the day 231 ms, above 100 ms"),
                TimelineEntry(START + 22 * DAY, "paged", "to oncall", "console"),
                TimelineEntry(START + 23 * DAY, "update", "second day in a row"),
            ),
            pages=(
                PageView(START + 22 * DAY, "oncall", "open", "sent", 1, PAGE_TEXT),
                PageView(
                    START + 22 * DAY,
                    "hook",
                    "open",
                    "failed",
                    4,
                    PAGE_TEXT,
                    "HTTP 503 four times, tries again in 8 min",
                ),
                PageView(START + 23 * DAY, "oncall", "update", "pending", 0),
            ),
            calls=(
                CallLink("4bf92f3577b34da6a3ce929d0e0e4736", "carrier=UA"),
                CallLink("00f067aa0ba902b74bf92f3577b34da6"),
            ),
        ),
        IncidentView(
            "1c09",
            "late: temp, dewp out of range",
            "resolved",
            "page",
            "drift",
            "flights-api",
            "late",
            START + 14 * DAY - 3600,
            START + 20 * DAY,
            "93 % of temp below the smallest value of training: looks like Celsius for Fahrenheit.",
            features=("temp", "dewp"),
            details=(Detail("temp: 93 % of rows below 10.94", START + 14 * DAY, "check the unit"),),
            timeline=(TimelineEntry(START + 16 * DAY, "opened", "3 of 5 windows"),),
            pages=(PageView(START + 16 * DAY, "oncall", "open", "sent", 1, "..."),),
        ),
    ]


CALL = FeatureRecord(
    "host-1-2-3",
    "UA-1545-2013-03-24",
    NOW - 3600,
    "flights-api",
    "late",
    "2013-02-28",
    {
        "carrier": "UA",
        "origin": "EWR",
        "dest": "IAH",
        "sched_hour": 5,
        "temp": 39.02,
        "wind_gust": None,
        "tail": "k1:9f86d0",
    },
    0.2314,
    "on_time",
    "ok",
    0.2312,
    {"feature_read": 0.0031, "preprocess": 0.0008, "inference": 0.2217, "postprocess": 0.0004},
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    sampling_reason="slow",
)


@dataclass
class Figures:
    """Views out of plain values; every one can be replaced."""

    slo_views: list[SloView] = field(default_factory=slos)
    drift_views: list[DriftView] = field(default_factory=lambda: [drift()])
    incident_views: list[IncidentView] = field(default_factory=incidents)
    head: StatusView = field(default_factory=lambda: StatusView("flights-api", "", "driven", ZONE, NOW))
    calls: dict[str, FeatureRecord] = field(
        default_factory=lambda: {"4bf92f3577b34da6a3ce929d0e0e4736": CALL}
    )
    ledgers: list[Ledger] = field(
        default_factory=lambda: [
            Ledger("pages", 9, 6, {"expired": 1}, 2),
            Ledger("feature_log", 21340, 21340, {}, 0),
        ]
    )

    target_views: list[TargetView] = field(
        default_factory=lambda: [
            TargetView("http://10.0.0.5:8000/metrics", True, NOW),
            TargetView("http://10.0.0.6:8000/metrics", False, NOW - 7200, "ConnectError: connection refused"),
        ]
    )

    def status(self) -> StatusView:
        return self.head

    def slos(self) -> Sequence[SloView]:
        return self.slo_views

    def drift(self, windows: int) -> Sequence[DriftView]:
        return [_last(view, windows) for view in self.drift_views]

    def incidents(self) -> Sequence[IncidentView]:
        return self.incident_views

    def incident(self, key: str) -> IncidentView | None:
        return next((one for one in self.incident_views if one.id == key), None)

    def call(self, key: str, _at: float | None) -> FeatureRecord | None:
        return self.calls.get(key)

    def targets(self) -> Sequence[TargetView]:
        return self.target_views

    def pipelines(self) -> Sequence[Ledger]:
        return self.ledgers


def _last(view: DriftView, windows: int) -> DriftView:
    rows = tuple(replace(row, cells=row.cells[-windows:], scores=row.scores[-windows:]) for row in view.rows)
    return replace(view, windows=view.windows[-windows:], rows=rows)


def empty() -> Figures:
    """A service on its first minute."""
    return Figures([], [], [], StatusView("flights-api", "staging", "wall", "UTC", None), {}, [], [])
