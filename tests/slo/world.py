"""A service under simulation: counters that a scrape shows, faults as functions of time, an engine that
watches."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from prometheus_client import CollectorRegistry

from mlobs.records import Alert
from mlobs.settings import (
    BurnWindowSettings,
    DriftSettings,
    ObjectiveSettings,
    Settings,
    SliSettings,
    SloSettings,
)
from mlobs.slo.engine import SloEngine
from mlobs.slo.schema import SCHEMA
from mlobs.store import Store, open_store

URL = "http://fraud:8000/metrics"
START = 1_700_000_000.0 // 86400 * 86400


class Service:
    """Counters of one process. `run` adds requests; `text` is what a scrape would show."""

    def __init__(self, model: str = "fraud", started: float = START) -> None:
        self.model = model
        self.started = started
        self.ok = self.error = self.cancelled = self.slow = 0.0
        self.rows_ok = self.rows_bad = 0.0
        self.slices: dict[str, float] = {}
        self.down = False

    def run(self, ok: float = 0, error: float = 0, slow: float = 0, cancelled: float = 0) -> None:
        """`slow` of the `ok` ones were slower than 100 ms."""
        self.ok += ok
        self.error += error
        self.slow += slow
        self.cancelled += cancelled

    def restart(self, at: float) -> None:
        self.__init__(self.model, at)  # type: ignore[misc]

    def text(self) -> str:
        labels = f'model="{self.model}",model_version="1"'
        name = "mlobs_request_duration_seconds"
        lines = [f"mlobs_process_start_time_seconds {self.started!r}"]
        for outcome, count in (("ok", self.ok), ("error", self.error), ("cancelled", self.cancelled)):
            slow = self.slow if outcome == "ok" else 0
            lines.append(f'{name}_bucket{{{labels},outcome="{outcome}",le="0.1"}} {count - slow!r}')
            lines.append(f'{name}_bucket{{{labels},outcome="{outcome}",le="+Inf"}} {count!r}')
            lines.append(f'{name}_count{{{labels},outcome="{outcome}"}} {count!r}')
        rows = f'mlobs_data_quality_rows_total{{model="{self.model}",check="any",result='
        lines.append(f'{rows}"ok"}} {self.rows_ok!r}')
        lines.append(f'{rows}"failed"}} {self.rows_bad!r}')
        for result, count in self.slices.items():
            lines.append(f'mlobs_drift_slices_total{{model="{self.model}",result="{result}"}} {count!r}')
        return "\n".join(lines) + "\n# EOF\n"


def objective(
    name: str, kind: str, share: str = "0.999", *, period_d: float = 30, severity: str | None = None
) -> ObjectiveSettings:
    threshold = Decimal("0.1") if kind in ("latency", "p99") else None
    return ObjectiveSettings(
        name, SliSettings(kind, threshold=threshold), Decimal(share), model="fraud",
        period=period_d * 86400, severity=severity,
    )  # fmt: skip


def settings(
    *objectives: ObjectiveSettings,
    windows: tuple[BurnWindowSettings, ...] | None = None,
    slice_s: float = 60.0,
    zone: str = "UTC",
    drift_window: float = 60.0,
) -> Settings:
    return Settings(
        service="fraud-api",
        targets=(URL,),
        drift=DriftSettings(window=drift_window),
        slo=SloSettings(objectives=objectives, windows=windows, slice=slice_s, zone=zone),
    )


class World:
    """An engine over a memory store, one service, and a log of every alert by the time of its tick."""

    def __init__(
        self, config: Settings, store: Store | None = None, registry: CollectorRegistry | None = None
    ) -> None:
        self.service = Service()
        self.store = store or open_store("sqlite://", [SCHEMA])
        self.registry = registry
        self.config = config
        self.engine = SloEngine(config, self.store, registry, self.fetch)
        self.log: list[tuple[float, Alert]] = []

    def fetch(self, url: str) -> str:
        if self.service.down:
            raise ConnectionError("connection refused")
        return self.service.text()

    def tick(self, now: float) -> list[Alert]:
        alerts = self.engine.tick(now)
        self.log += [(now, alert) for alert in alerts]
        return alerts

    def run(
        self, start: float, end: float, step: float, load: Callable[[Service, float, float], None]
    ) -> None:
        """Tick every `step` in (start, end]; `load(service, t, step)` adds the requests of (t - step, t]."""
        t = start
        while t < end:
            t += step
            load(self.service, t, step)
            self.tick(t)

    def first(self, severity: str = "page", kind: str = "burn", slo: str = "") -> float | None:
        """Time of the first tick at which such an alert fired."""
        for at, alert in self.log:
            if alert.firing and alert.severity == severity and alert.kind == kind and slo in ("", alert.slo):
                return at
        return None

    def status(self, name: str):  # type: ignore[no-untyped-def]
        return next(status for status in self.engine.statuses if status.name == name)


def file_store(path: Path) -> Store:
    return open_store(f"sqlite:///{path}", [SCHEMA])
