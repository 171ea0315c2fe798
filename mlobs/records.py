"""What crosses the borders between the stages, as plain immutable values.

Times are seconds since the epoch, UTC, as float; durations are seconds; shares are in [0, 1].
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

RECORD_VERSION: Final = 1

BY_RATE: Final = "rate"
BY_ENTITY: Final = "entity"
DRAWN: Final = (BY_RATE, BY_ENTITY)
"""Reasons of what was drawn at a rate: by prediction (its id, or chance), or by entity."""


def draw_of(ident: str) -> int:
    """The number in [0, 2**32) by which an id is drawn: kept where it lies under rate * 2**32.

    The same in every process and language: CRC-32 of the UTF-8 times 2654435761, modulo 2**32. The factor
    matters: CRC-32 alone is linear, and of ids in a row (`order-00017`) it keeps, at 10 %, far more even ones
    than odd ones or the reverse. Cost: 0.2 us.
    """
    return zlib.crc32(ident.encode("utf-8", "surrogatepass")) * 2654435761 & 0xFFFFFFFF


Scalar = None | bool | int | float | str
"""What a feature, a prediction or a label may be once it is in a record."""


class FeatureRecord(NamedTuple):
    """One kept call: what the model saw, said and cost. Feature record v1.

    A named tuple and not a frozen dataclass: it is built on the request's own thread, where the
    dataclass costs five times as much.
    """

    event_id: str
    """`<host>-<boot>-<process start>-<sequence>`: gaps and duplicates show. Empty until written."""
    prediction_id: str
    event_time: float
    service: str
    model: str
    model_version: str
    features: Mapping[str, Any]
    """Values as captured; scalars after masking."""
    prediction: Any
    decision: str | None
    outcome: str
    duration_s: float
    stage_durations_s: Mapping[str, float]
    entity_key: str | None = None
    """The raw entity before masking, `<key id>:<keyed hash>` after it."""
    variant: str | None = None
    segment: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    sampling_reason: str = "rate"
    """`rate` or, drawn with its whole entity, `entity`; or why it is always kept: `error`, `slow`,
    `near_threshold`, `trace`.
    """
    weight: float = 1.0
    """1 for a class that is always kept; else one over the rate."""
    record_version: int = RECORD_VERSION


class LabelRecord(NamedTuple):
    """Ground truth for one prediction, whenever it arrives; a later one corrects an earlier one."""

    event_id: str
    prediction_id: str
    label: Scalar
    event_time: float
    """When the truth became known."""
    service: str
    record_version: int = RECORD_VERSION


@dataclass(frozen=True, slots=True)
class Ledger:
    """A pipeline's account: `offered == delivered + sum(dropped.values()) + queued`, exactly."""

    pipeline: str
    offered: int
    delivered: int
    dropped: Mapping[str, int]
    queued: int
    retried: int = 0
    sampled_out: int = 0
    """Never offered: decided against before the queue."""
    oldest_age_s: float = 0.0
    last_success: float | None = None
    event_time_in: float | None = None
    event_time_out: float | None = None

    @property
    def balanced(self) -> bool:
        return self.offered == self.delivered + sum(self.dropped.values()) + self.queued


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the drift stage says of one stream in one window.

    A stream is a model, version, segment, feature and statistic or check.
    """

    model: str
    model_version: str
    feature: str
    """Empty where the verdict is on the whole slice."""
    window_start: float
    window_end: float
    verdict: str
    """`ok`, `drifted`, `insufficient` or `absent`."""
    status: str
    """Why: `ok`, `range`, `null`, `unseen`, `constant`, `schema`, `no_data`, `no_reference`, ..."""
    statistic: str
    """`psi`, `ks`, ... or `check:<name>`."""
    value: float | None
    threshold: float | None
    rows: int
    reference: str = ""
    """Name of the reference file that was judged against."""
    segment: str = ""
    p_value: float | None = None
    detail: str = ""
    """One sentence for people: the named cause and what it looks like."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A debounced drift finding: it goes to the SLO engine as `mlobs_drift_breach` and waits for nothing."""

    model: str
    feature: str
    segment: str
    severity: str
    since: float
    """Start of the first window of the run that broke it."""
    status: str
    detail: str


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that fires or has stopped firing; what the SLO engine or Alertmanager hands to paging.

    `cause` names the kind of trouble (`latency`, `availability`, `drift`, `data_quality`, `absent`, ...);
    environment, service, model and cause identify it, whatever tier or engine raised it.
    """

    name: str
    cause: str
    severity: str
    firing: bool
    since: float
    """When the condition began to hold (firing) or ceased to (resolved)."""
    at: float
    """When it was evaluated."""
    service: str
    model: str
    environment: str = ""
    kind: str = "burn"
    """`burn`, `breach`, `absent`, or `meta` (mlobs watching itself)."""
    slo: str = ""
    model_version: str = ""
    feature: str = ""
    segment: str = ""
    burn_rate: float | None = None
    budget_remaining: float | None = None
    """Share of the period's budget that is left; negative when overspent."""
    exhausted_at: float | None = None
    long_window_s: float | None = None
    short_window_s: float | None = None
    bad: float | None = None
    total: float | None = None
    """Bad and all events (or slices) in the long window."""
    summary: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """Something that happened around a model: a deploy, a schema or reference change, an acknowledgement."""

    at: float
    kind: str
    service: str
    model: str
    text: str
    source: str = ""
