"""The settings as plain values, after `config.py` has read and checked them. Stdlib only.

Durations are seconds; where budgets and objectives are concerned numbers are `Decimal` from text to rule.
Paths are absolute: relative ones in a file are taken from the file's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from mlobs.secret import Secret


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """Where the masking schema and the key are. Without a schema numbers pass and strings leave hashed."""

    schema: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """What is declared of one feature; what is not declared is inferred from the reference."""

    name: str
    type: str | None = None
    """`number`, `category`, `boolean`."""
    range: tuple[float, float] | None = None
    categories: tuple[str, ...] | None = None
    critical: bool = False
    """A breach of it pages; of another it is a ticket. Without any critical feature every breach pages."""
    aliases: tuple[str, ...] = ()
    """Names that it had before: records and references with one of them are read under this one."""
    most: Mapping[str, float] = field(default_factory=dict)
    """Greatest share of rows in [0, 1] that is still ordinary, by check: null, zero, negative, unseen, range,
    type. In the place of what the reference's days say."""


@dataclass(frozen=True, slots=True)
class RowsSettings:
    """What is declared of a model's rows as a whole; None: what its reference says, if it was asked to."""

    duplicates: float | None = None
    """Greatest share of rows in [0, 1] that may repeat another one of their window."""
    volume: tuple[float, float] | None = None
    """Fewest and most rows of traffic in a window."""
    freshness: float | None = None
    """Seconds that the newest row may be old."""
    critical: bool = False
    """A breach pages; else it is a ticket."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    name: str
    reference: str | None = None
    features: Mapping[str, FeatureSettings] = field(default_factory=dict)
    runbook: str | None = None
    sample: float | None = None
    """Its own share of calls whose record is kept; None takes the one of the service."""
    sample_by: str | None = None
    decision_threshold: float | None = None
    rows: RowsSettings = field(default_factory=RowsSettings)
    checks: str | None = None
    """A file of reviewed checks, below what `features` and `rows` say; read where drift is judged."""
    near_threshold: float | None = None
    """Predictions within this distance of `decision_threshold` are always kept."""


@dataclass(frozen=True, slots=True)
class DriftSettings:
    window: float = 60.0
    zone: str = "UTC"
    min_rows: int = 1000
    persistence: tuple[int, int] = (3, 5)
    """`k` of the last `n` windows."""
    late: float = 0.0
    """A window is judged once the event clock has passed its end by so much."""
    margin: float = 0.05
    """A check is broken when its share of rows exceeds the worst reference day by so much."""


@dataclass(frozen=True, slots=True)
class SliSettings:
    """An indicator by its kind; the other fields belong to some kinds only.

    availability; latency and p99 (`threshold` in seconds); data_quality (`check`); drift; freshness
    (`threshold` = greatest age, of `metric`); ratio (`good` or `bad`, and `total`, as PromQL selectors);
    boolean (`metric`); model_quality (`metric`, `threshold`, `better`: higher or lower); good_prediction;
    composite (`of`: names of other objectives, all of which must hold).
    """

    kind: str
    threshold: Decimal | None = None
    check: str | None = None
    metric: str | None = None
    good: str | None = None
    bad: str | None = None
    total: str | None = None
    of: tuple[str, ...] = ()
    better: str | None = None


@dataclass(frozen=True, slots=True)
class BurnWindowSettings:
    """One tier of the burn-rate table: fires when `budget` of the whole budget goes within `long`.

    The factor is derived: budget x period / long. `short` shows that it still burns.
    """

    severity: str
    long: float
    short: float
    budget: Decimal


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    name: str
    sli: SliSettings
    objective: Decimal
    """Ratio in (0, 1)."""
    model: str = ""
    period: float = 30 * 86400.0
    """Seconds of a rolling period."""
    calendar: str | None = None
    """`month` or `quarter` instead of a rolling period."""
    zone: str = "UTC"
    description: str = ""
    runbook: str | None = None
    windows: tuple[BurnWindowSettings, ...] | None = None
    """Its own burn-rate table; None takes the one of the file."""
    severity: str | None = None
    """`ticket` caps every tier: drift SLOs are tickets by default."""


@dataclass(frozen=True, slots=True)
class CanarySettings:
    """A candidate version on trial beside the baseline, watched by `mlobs serve`."""

    name: str
    model: str
    baseline: str
    candidate: str
    targets: tuple[str, ...] = ()
    """Those of the file where there are none."""
    webhook: str | None = None
    """Gets every change of the verdict as JSON."""


@dataclass(frozen=True, slots=True)
class SloSettings:
    evaluator: str = "embedded"
    prometheus: str | None = None
    objectives: tuple[ObjectiveSettings, ...] = ()
    slice: float = 60.0
    """Length of a p99 or drift slice."""
    zone: str = "UTC"
    scrape_interval: float = 15.0
    evaluation_interval: float = 30.0
    windows: tuple[BurnWindowSettings, ...] | None = None
    breach: bool = True
    """Turn `mlobs_drift_breach` into an alert at once."""
    canaries: tuple[CanarySettings, ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    name: str
    kind: str
    """`slack`, `pagerduty`, `email`, `webhook`, `console`."""
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    """By the option's name without `_file` or `_env`: `token_file: x` is secrets["token"]."""


@dataclass(frozen=True, slots=True)
class EscalationSettings:
    """Whom to tell when nobody has acknowledged within `after` seconds."""

    after: float
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteSettings:
    match: Mapping[str, str]
    to: tuple[str, ...]
    """Channels, and people of `NotifySettings.people`."""
    times: str | None = None
    """Name in `NotifySettings.times`: the route holds then alone."""
    escalate: tuple[EscalationSettings, ...] = ()
    """Its own steps; empty takes those of the file."""


@dataclass(frozen=True, slots=True)
class TimesSettings:
    """Hours of a week, local: `start` and `end` in seconds since midnight; `end` before `start` is
    overnight.
    """

    days: tuple[int, ...]
    """0 is Monday; of an overnight stretch the day on which it begins."""
    start: float = 0.0
    end: float = 86400.0
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class MaintenanceSettings:
    """What matches is not paged from `start` to `end`, or at the hours that `times` names."""

    match: Mapping[str, str]
    start: float | None = None
    end: float | None = None
    times: str | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """An outside address that is called while all is well, and raises the alarm when the calls stop."""

    url: str | None = None
    secret: Secret | None = None
    every: float = 60.0
    allow_http: bool = False
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class AlertmanagerSettings:
    """The Alertmanager whose one receiver we are; seconds."""

    url: str | None = None
    """Its API, for reconciliation."""
    token: Secret | None = None
    """Bearer token that its webhook must show us."""
    receiver: str = "mlobs"
    group_wait: float = 10.0
    group_interval: float = 60.0


@dataclass(frozen=True, slots=True)
class NotifySettings:
    channels: Mapping[str, ChannelSettings] = field(default_factory=dict)
    routes: tuple[RouteSettings, ...] = ()
    fallback: str | None = None
    """Channel to try when another had no success for `fallback_after` seconds."""
    fallback_after: float = 300.0
    people: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Channels by person."""
    times: Mapping[str, TimesSettings] = field(default_factory=dict)
    maintenance: tuple[MaintenanceSettings, ...] = ()
    escalate: tuple[EscalationSettings, ...] = ()
    together: float = 3600.0
    """An alert of another family of causes joins an incident that is younger than this."""
    hold: float = 300.0
    """An incident is resolved when nothing of it fired for so long; grows while it flaps."""
    token: Secret | None = None
    """Bearer token of the API that acknowledges, resolves, silences and takes events; None: this machine
    alone.
    """
    heartbeat: HeartbeatSettings | None = None
    alertmanager: AlertmanagerSettings | None = None


@dataclass(frozen=True, slots=True)
class LakeSettings:
    """`mlobs serve` turns sealed segments into Parquet, every so many seconds."""

    to: str | None = None
    """Directory or s3://bucket/prefix; None is the feature log's own directory."""
    every: float = 300.0
    keep: float | None = None
    """Seconds; None keeps everything."""


@dataclass(frozen=True, slots=True)
class Settings:
    service: str
    environment: str = ""
    base: str = "."
    """Folder that relative paths were taken from."""
    feature_log: str | None = None
    lake: LakeSettings | None = None
    """None: nobody compacts but `mlobs log compact`."""
    sample: float = 0.01
    sample_by: str = "prediction"
    """`prediction`, or `entity`: all calls of an entity or none."""
    trace_sample: float | None = None
    """Share of calls whose spans are kept; None follows `sample`."""
    otlp: str | None = None
    durability: str = "os"
    """`memory`, `os` or `disk`."""
    buckets: tuple[float, ...] | None = None
    """Upper edges in seconds; edges at every latency threshold are added either way."""
    mask: MaskSettings = field(default_factory=MaskSettings)
    targets: tuple[str, ...] = ()
    store: str = "sqlite:///mlobs.db"
    listen: str = "127.0.0.1:9464"
    listen_asked: bool = False
    """Whether the file names `listen`: an asked port that is taken is an error, else another is tried."""
    public_url: str | None = None
    """Where people reach the web page, for links in pages."""
    models: tuple[ModelSettings, ...] = ()
    drift: DriftSettings = field(default_factory=DriftSettings)
    slo: SloSettings = field(default_factory=SloSettings)
    notify: NotifySettings = field(default_factory=NotifySettings)
    clock: str = "wall"
    native: bool = False
    """Offer `/metrics` in protobuf too, with native histograms."""

    def model(self, name: str) -> ModelSettings:
        """The model's settings, or empty ones for a model that the file does not list."""
        for model in self.models:
            if model.name == name:
                return model
        return ModelSettings(name)

    def latency_thresholds(self, model: str) -> tuple[float, ...]:
        """Thresholds in seconds of every latency or p99 objective on `model`: each needs a bucket edge."""
        return tuple(
            sorted(
                {
                    float(objective.sli.threshold)
                    for objective in self.slo.objectives
                    if objective.sli.threshold is not None
                    and objective.sli.kind in ("latency", "p99", "good_prediction")
                    and objective.model in ("", model)
                }
            )
        )

    def good_threshold(self, model: str) -> float | None:
        """Seconds within which a prediction of `model` is fast enough to be good; None: however long it took.

        The threshold of its good_prediction objectives, else of its latency and p99 objectives, the least.
        """
        own = [
            float(objective.sli.threshold)
            for objective in self.slo.objectives
            if objective.sli.threshold is not None
            and objective.sli.kind == "good_prediction"
            and objective.model in ("", model)
        ]
        return min(own or self.latency_thresholds(model), default=None)
