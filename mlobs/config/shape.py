"""The shape of `mlobs.yaml` as pydantic models: names, types, bounds of single values."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from mlobs.config.paging import Notify
from mlobs.config.values import (
    AnyShare,
    Duration,
    Name,
    Part,
    Period,
    Seconds,
    Severity,
    Share,
    SliceLength,
    Zone,
    collector_url,
    duration,
    k_of_n,
    listen_address,
    objective_ratio,
    refuse,
    share,
    store_url,
)
from mlobs.errors import nearest
from mlobs.objectives import quality_better
from mlobs.settings import SliSettings


class Mask(Part):
    schema_: str | None = Field(default=None, alias="schema")
    key_file: str | None = None


def _low_first(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] <= bounds[1]:
        raise refuse("[low, high]", "put the smaller one first")
    return bounds


class Feature(Part):
    type: Literal["number", "category", "boolean"] | None = None
    range: Annotated[tuple[float, float], AfterValidator(_low_first)] | None = None
    categories: tuple[Annotated[str, Field(strict=True)], ...] | None = None
    critical: bool = False
    aliases: tuple[Name, ...] = ()
    most: dict[Literal["null", "zero", "negative", "unseen", "range", "type"], AnyShare] = Field(
        default_factory=dict
    )


class RowChecks(Part):
    """Checks of a model's rows as a whole."""

    duplicates: AnyShare | None = None
    volume: (
        Annotated[
            tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], AfterValidator(_low_first)
        ]
        | None
    ) = None
    freshness: Seconds | None = None
    critical: bool = False


class Checks(Part):
    """A file of its own: what `reference build --checks` wrote and a person went through."""

    features: dict[str, Feature] = Field(default_factory=dict)
    rows: RowChecks = RowChecks()


class Model(Part):
    name: Name
    reference: str | None = None
    runbook: str | None = None
    sample: float | None = Field(default=None, ge=0, le=1)
    sample_by: Literal["prediction", "entity"] | None = None
    decision_threshold: float | None = None
    near_threshold: float | None = Field(default=None, gt=0)
    features: dict[str, Feature] = Field(default_factory=dict)
    rows: RowChecks = RowChecks()
    checks: str | None = None


class Drift(Part):
    window: SliceLength = 60.0
    timezone: Zone = "UTC"
    min_rows: int = Field(default=1000, ge=1)
    persistence: Annotated[tuple[int, int], BeforeValidator(k_of_n)] = (3, 5)
    late: Annotated[float, BeforeValidator(lambda value: float(duration(value)))] = 0.0
    margin: Annotated[float, BeforeValidator(lambda value: float(share(value)))] = 0.05


class Window(Part):
    severity: Severity
    long: Seconds
    short: Seconds
    budget: Share

    @model_validator(mode="after")
    def _short_within_long(self) -> Window:
        if self.short > self.long:
            raise refuse("a short window within the long one", "swap `short` and `long`")
        return self


class Empty(Part):
    pass


class Threshold(Part):
    threshold: Duration


class Rows(Part):
    check: str = "any"


class Freshness(Part):
    metric: Name
    threshold: Duration


class Ratio(Part):
    good: str | None = None
    bad: str | None = None
    total: Name


class Boolean(Part):
    metric: Name


class Quality(Part):
    metric: Name
    threshold: Decimal
    better: Literal["higher", "lower"] | None = None

    @model_validator(mode="after")
    def _known_way(self) -> Quality:
        try:
            quality_better(self.metric, self.better, self.threshold)
        except ValueError as problem:
            raise refuse("a measure and which way it is better", str(problem)) from None
        return self


class Composite(Part):
    of: tuple[Name, ...] = Field(min_length=2)


SLI_KINDS: Mapping[str, type[Part]] = {
    "availability": Empty,
    "latency": Threshold,
    "p99": Threshold,
    "data_quality": Rows,
    "drift": Empty,
    "freshness": Freshness,
    "ratio": Ratio,
    "boolean": Boolean,
    "model_quality": Quality,
    "good_prediction": Threshold,
    "composite": Composite,
}


def _sli(value: object) -> SliSettings:
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, dict) or len(value) != 1:
        raise refuse("one indicator", "write for example {p99: {threshold: 100ms}} or availability")
    ((kind, fields),) = value.items()
    if kind not in SLI_KINDS:
        raise refuse("a kind of indicator", nearest(str(kind), SLI_KINDS))
    try:
        part = SLI_KINDS[kind].model_validate(fields if fields is not None else {})
    except ValidationError as invalid:
        raise ValidationError.from_exception_data(
            "sli",
            [
                InitErrorDetails(
                    type=PydanticCustomError("mlobs", error["msg"], error["ctx"])
                    if error["type"] == "mlobs"
                    else error["type"],
                    loc=(kind, *error["loc"]),
                    input=error["input"],
                    ctx=error.get("ctx", {}),
                )
                for error in invalid.errors()
            ],
        ) from None
    if isinstance(part, Ratio) and (part.good is None) == (part.bad is None):
        raise refuse("`total` and one of `good` and `bad`", "keep one of the two")
    return SliSettings(kind=kind, **part.model_dump())


class Objective(Part):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,98}[a-zA-Z0-9])?$")]
    sli: Annotated[SliSettings, BeforeValidator(_sli)]
    objective: Annotated[Decimal, BeforeValidator(objective_ratio)]
    model: str = ""
    period: Period = "30d"
    timezone: Zone = "UTC"
    description: str = ""
    runbook: str | None = None
    windows: tuple[Window, ...] | None = None
    severity: Severity | None = None


class Canary(Part):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,98}[a-zA-Z0-9])?$")]
    model: Name
    baseline: Name
    candidate: Name
    targets: tuple[str, ...] = ()
    webhook: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/\S*)?$")] | None = None

    @model_validator(mode="after")
    def _two_versions(self) -> Canary:
        if self.baseline == self.candidate:
            raise refuse("two versions", "`baseline` serves, `candidate` is on trial")
        return self


class Slo(Part):
    evaluator: Literal["embedded", "prometheus"] = "embedded"
    prometheus: str | None = None
    objectives: tuple[Objective, ...] = ()
    slice: SliceLength = 60.0
    timezone: Zone = "UTC"
    scrape_interval: Seconds = 15.0
    evaluation_interval: Seconds = 30.0
    windows: tuple[Window, ...] | None = None
    breach: bool = True
    canaries: tuple[Canary, ...] = ()


class Lake(Part):
    to: str | None = None
    every: Seconds = 300.0
    keep: Seconds | None = None


class File(Part):
    service: Name
    environment: str = ""
    feature_log: str | None = None
    lake: Lake | None = None
    sample: float = Field(default=0.01, ge=0, le=1)
    sample_by: Literal["prediction", "entity"] = "prediction"
    trace_sample: float | None = Field(default=None, ge=0, le=1)
    otlp: Annotated[str, AfterValidator(collector_url)] | None = None
    durability: Literal["memory", "os", "disk"] = "os"
    buckets: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    mask: Mask = Mask()
    targets: tuple[str, ...] = ()
    store: Annotated[str, AfterValidator(store_url)] = "sqlite:///mlobs.db"
    listen: Annotated[str, AfterValidator(listen_address)] = "127.0.0.1:9464"
    public_url: str | None = None
    models: tuple[Model, ...] = ()
    drift: Drift = Drift()
    slo: Slo = Slo()
    notify: Notify = Notify()
    clock: Literal["wall", "driven"] = "wall"
