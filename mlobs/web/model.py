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
LOW_TRAFFIC: Final = "low_traffic"
YOUNG: Final = "young"
DRIFTED: Final = "drifted"
INSUFFICIENT: Final = "insufficient"

SLO_STATES: Final = (BURNING, EXHAUSTED, ABSENT, LOW_TRAFFIC, YOUNG, OK)
"""In the order in which people should look at them."""

VERDICTS: Final = (DRIFTED, ABSENT, INSUFFICIENT, OK)


@dataclass(frozen=True, slots=True)
class BurnView:
    """One tier of the burn-rate table, as it stands now: it fires while both rates are above its factor."""

    severity: str
    long_s: float
    short_s: float
    factor: float
    long_rate: float | None
    short_rate: float | None

    @property
    def above(self) -> bool:
        """Whether both rates are; whether there is evidence enough to fire is the engine's word."""
        rates = (self.long_rate, self.short_rate)
        return all(rate is not None and rate > self.factor for rate in rates)


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
    reason: str = ""
    """The state in one sentence."""
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
    """Since when it fires."""
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
    """Which checks of it are off, and why: said, not hidden."""


@dataclass(frozen=True, slots=True)
class DriftView:
    """One model version: features by windows."""

    model: str
    version: str
    windows: tuple[tuple[float, float], ...]
    rows: tuple[DriftRow, ...]
    whole: tuple[DriftCell | None, ...] = ()
    """What was said of each window as a whole."""
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
    """One page that left or tries to: `state` is `pending`, `sending`, `sent` or `failed`."""

    at: float
    channel: str
    kind: str
    """`firing`, `update`, `resolved` or `test`."""
    state: str
    attempts: int = 0
    text: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Detail:
    """A sentence that explains an incident, and since when it holds where that is known."""

    text: str
    since: float | None = None
    repair: str = ""


@dataclass(frozen=True, slots=True)
class CallLink:
    """A kept call that shows an incident: `key` is its prediction or trace id, `at` its time in seconds."""

    key: str
    text: str = ""
    at: float | None = None


@dataclass(frozen=True, slots=True)
class IncidentView:
    id: str
    title: str
    state: str
    """`open`, `acknowledged` or `resolved`."""
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
    details: tuple[Detail, ...] = ()
    """What explains it, the most telling first."""
    runbook: str | None = None
    acknowledged_by: str = ""
    timeline: tuple[TimelineEntry, ...] = ()
    pages: tuple[PageView, ...] = ()
    calls: tuple[CallLink, ...] = ()

    @property
    def is_open(self) -> bool:
        """Acknowledged is open still."""
        return self.state != "resolved"


@dataclass(frozen=True, slots=True)
class TargetView:
    """A scraped process; `seen` is its last scrape that succeeded."""

    name: str
    up: bool
    seen: float | None
    error: str = ""


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

    def call(self, key: str, at: float | None) -> FeatureRecord | None: ...

    def pipelines(self) -> Sequence[Ledger]: ...

    def targets(self) -> Sequence[TargetView]: ...
