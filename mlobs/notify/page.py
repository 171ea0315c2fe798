"""The page: one value from which every channel draws, and the parts that enrichers add to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

FIRING = "firing"
RESOLVED = "resolved"
UPDATE = "update"
TEST = "test"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FeatureFinding:
    """A feature that explains the trouble, by what it was caught with."""

    feature: str
    statistic: str = ""
    """`psi`, `ks`, ... or `check:range`, `check:null`, ..."""
    value: float | None = None
    threshold: float | None = None
    cause: str = ""
    """Named: `values below the training minimum; looks like Celsius for Fahrenheit`."""
    repair: str = ""
    segment: str = ""
    since: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentHit:
    """A segment (`carrier=UA`) with its bad and all events."""

    segment: str
    bad: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True)
class StageFinding:
    """A stage of the call that is slow: its p99 now and usually, seconds, and its share of the time in [0,
    1].
    """

    stage: str
    p99_s: float | None = None
    usual_s: float | None = None
    share: float | None = None
    measure: str = "p99"
    """What the two numbers are, for the page: `p99`, `median in slow calls`."""


@dataclass(frozen=True, slots=True)
class TraceFinding:
    """A trace that resolves: a feature record with its id and stage times exists."""

    trace_id: str
    prediction_id: str = ""
    duration_s: float | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    url: str = ""
    segment: str = ""
    shows: str = ""
    """What of the call is to be seen: `temp -8.9`."""
    at: float | None = None
    """When it was, seconds: a log of months is looked at there."""


@dataclass(frozen=True, slots=True)
class ChangeFinding:
    """What changed shortly before: a deploy, a schema or a reference."""

    at: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class PageParts:
    """What one enricher found; empty fields say nothing. Parts of several enrichers are joined in their
    order.
    """

    features: tuple[FeatureFinding, ...] = ()
    """Ranked: the first explains most."""
    segments: tuple[SegmentHit, ...] = ()
    stage: StageFinding | None = None
    """The slowest stage, where it stands out."""
    traces: tuple[TraceFinding, ...] = ()
    change: ChangeFinding | None = None
    versions: tuple[str, ...] = ()
    dashboard: str = ""
    """Link with the time range filled in."""
    notes: tuple[str, ...] = ()

    def join(self, other: PageParts) -> PageParts:
        """Both; of single values the one that came first, of features and traces each once."""
        return PageParts(
            features=_once(self.features + other.features, lambda one: (one.feature, one.segment)),
            segments=_once(self.segments + other.segments, lambda one: one.segment),
            stage=self.stage or other.stage,
            traces=_once(self.traces + other.traces, lambda one: one.trace_id),
            change=self.change or other.change,
            versions=_once(self.versions + other.versions, lambda one: one),
            dashboard=self.dashboard or other.dashboard,
            notes=_once(self.notes + other.notes, lambda one: one),
        )


@dataclass(frozen=True, slots=True)
class Burn:
    """What burns and how fast: one alert of the incident, as the page tells it."""

    name: str
    cause: str
    severity: str
    firing: bool
    since: float
    burn_rate: float | None = None
    budget_remaining: float | None = None
    exhausted_at: float | None = None
    window_s: float | None = None
    bad: float | None = None
    total: float | None = None
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One incident as the on-call engineer needs it; the same value for every channel.

    `state` is `firing`, `acknowledged` or `resolved`; texts are cleaned (`text.clean`), numbers finite or
    None.
    """

    incident: str
    key: str
    state: str
    severity: str
    title: str
    environment: str
    service: str
    model: str
    at: float
    since: float
    cause: str = ""
    zone: str = "UTC"
    """Zone that its readers think in."""
    burns: tuple[Burn, ...] = ()
    resolved_at: float | None = None
    acknowledged_by: str = ""
    versions: tuple[str, ...] = ()
    segments: tuple[SegmentHit, ...] = ()
    features: tuple[FeatureFinding, ...] = ()
    stage: StageFinding | None = None
    traces: tuple[TraceFinding, ...] = ()
    change: ChangeFinding | None = None
    runbook: str = ""
    dashboard: str = ""
    link: str = ""
    notes: tuple[str, ...] = ()
    test: bool = False
    changed: tuple[str, ...] = ()
    """What is new since the message before, on the same channel; empty of a first message."""
    others: tuple[str, ...] = ()
    """Of a message that stands for many incidents: a line for each."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the page names as broken: the features, then the stage."""
        stage = (self.stage.stage,) if self.stage else ()
        return tuple(one.feature for one in self.features) + stage


def encode(value: object) -> str:
    """JSON of a page, parts or incident; NaN and infinities become null."""
    return msgspec.json.encode(value).decode()


def decode_page(text: str) -> Page:
    return msgspec.json.decode(text, type=Page)


def _once(items: tuple[_T, ...], key: Callable[[_T], object]) -> tuple[_T, ...]:
    """The first of each key, in order."""
    first: dict[object, _T] = {}
    for item in items:
        first.setdefault(key(item), item)
    return tuple(first.values())
