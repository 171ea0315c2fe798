"""What the page shows, as plain values: templates and JSON are both drawn from these and nothing else.

Times are seconds since the epoch (UTC), shares are in [0, 1], budgets may be negative (overspent). `None` is
"not known", and every drawing shows it as absent, never as zero and never as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

from mlobs.records import FeatureRecord, Ledger

OK: Final = "ok"
BURNING: Final = "burning"
EXHAUSTED: Final = "exhausted"
ABSENT: Final = "absent"
DRIFTED: Final = "drifted"
INSUFFICIENT: Final = "insufficient"

SLO_STATES: Final = (BURNING, EXHAUSTED, ABSENT, OK)
"""In the order in which people should look at them."""

VERDICTS: Final = (DRIFTED, ABSENT, INSUFFICIENT, OK)


@dataclass(frozen=True, slots=True)
class BurnView:
    """One tier of the burn-rate table, as it stands now."""

    severity: str
    long_s: float
    short_s: float
    factor: float
    long_rate: float | None
    short_rate: float | None
    firing: bool


@dataclass(frozen=True, slots=True)
class BudgetPoint:
    """The budget left at one time; `remaining` None is a gap in the line."""

    at: float
    remaining: float | None


@dataclass(frozen=True, slots=True)
class SloView:
    name: str
    model: str
    kind: str
    objective: Decimal
    period_s: float
    state: str
    """One of `SLO_STATES`."""
    threshold_s: float | None = None
    calendar: str | None = None
    description: str = ""
    severity: str | None = None
    """Of the alert that fires on it now."""
    bad: float | None = None
    total: float | None = None
    """Events, or slices for the kinds that count slices, in the period so far."""
    unit: str = "requests"
    """What `bad` and `total` count: `requests`, `days`, `minutes`, `rows`, ..."""
    remaining: float | None = None
    exhausted_at: float | None = None
    """When the budget is gone if it goes on burning as now."""
    since: float | None = None
    """Since when it is in this state."""
    burn: tuple[BurnView, ...] = ()
    history: tuple[BudgetPoint, ...] = ()
    incident: str | None = None


@dataclass(frozen=True, slots=True)
class DriftCell:
    """What was said of one feature in one window."""

    verdict: str
    status: str
    statistic: str = ""
    value: float | None = None
    threshold: float | None = None
    rows: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DriftRow:
    """One feature; `cells` runs along the windows of its `DriftView`, None where nothing was said."""

    feature: str
    cells: tuple[DriftCell | None, ...]
    scores: tuple[float | None, ...] = ()
    """The exported distribution score of each window: shown, without a verdict."""
    off: str = ""
    """Why no check can judge it, if none can: said, not hidden."""


@dataclass(frozen=True, slots=True)
class DriftView:
    """One model version: features by windows."""

    model: str
    version: str
    windows: tuple[tuple[float, float], ...]
    rows: tuple[DriftRow, ...]
    statistic: str = ""
    """Name of the score in `DriftRow.scores`."""
    reference: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    at: float
    kind: str
    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class PageView:
    """One page that left or tries to: `state` is `sent`, `queued` or `failed`."""

    at: float
    channel: str
    kind: str
    """`open`, `update`, `resolved`, ..."""
    state: str
    attempts: int = 0
    text: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class IncidentView:
    id: str
    title: str
    state: str
    """`open` or `resolved`."""
    severity: str
    cause: str
    service: str
    model: str
    since: float
    ended: float | None = None
    summary: str = ""
    slos: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    """Sentences that explain it, the most telling first."""
    runbook: str | None = None
    timeline: tuple[TimelineEntry, ...] = ()
    pages: tuple[PageView, ...] = ()
    calls: tuple[str, ...] = ()
    """Prediction or trace ids of kept calls that show it."""


@dataclass(frozen=True, slots=True)
class StatusView:
    """The head of every page."""

    service: str
    environment: str
    clock: str
    """`wall` or `driven`."""
    zone: str
    now: float | None
    """The event time that the stages have reached; None before the first tick."""


class Views(Protocol):
    """Where the pages get their values; one reads the store (`views.py`), tests fill one by hand."""

    def status(self) -> StatusView: ...

    def slos(self) -> Sequence[SloView]: ...

    def drift(self, windows: int) -> Sequence[DriftView]: ...

    def incidents(self) -> Sequence[IncidentView]: ...

    def incident(self, key: str) -> IncidentView | None: ...

    def call(self, key: str) -> FeatureRecord | None: ...

    def pipelines(self) -> Sequence[Ledger]: ...
