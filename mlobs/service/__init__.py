"""`mlobs serve`: the stages wired together, advanced by `tick(now)`.

    drift.tick -> slo.tick -> desk.receive -> desk.pump

A stage that fails does not stop the others: the failure is counted, logged, told in the tick's answer, and,
when it lasts, paged like any other trouble.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from mlobs import names
from mlobs.drift.loop import DriftStage
from mlobs.notify.desk import Desk
from mlobs.notify.upstream import Reconciler
from mlobs.records import Alert, TimelineEvent
from mlobs.service.story import Story
from mlobs.settings import Settings
from mlobs.slo.engine import SloEngine
from mlobs.slo.remote import RemoteSlo
from mlobs.store import Store

_log = logging.getLogger("mlobs.service")
_T = TypeVar("_T")

STAGES = ("drift", "slo", "incidents", "outbox")
FAILURES_BEFORE_PAGE = 2
"""A stage that fails so often in a row is trouble of its own."""


@dataclass(slots=True)
class _Trouble:
    """A stage's failures in a row."""

    count: int = 0
    since: float = 0.0
    text: str = ""


@dataclass(slots=True)
class Service:
    """The wired stages over one store; `tick` may be called from any thread, one call works at a time."""

    settings: Settings
    store: Store
    registry: CollectorRegistry
    drift: DriftStage
    slo: SloEngine | RemoteSlo
    desk: Desk
    reconciler: Reconciler | None = None
    """Where `slo.evaluator` is prometheus: then `slo` reads what the rules found and raises no alert."""
    _story: Story = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _trouble: dict[str, _Trouble] = field(default_factory=dict)
    _failures: Counter = field(init=False)
    _last_tick: Gauge = field(init=False)

    def __post_init__(self) -> None:
        self._story = Story(self.settings.service)
        self._failures = Counter(
            names.INTERNAL_ERRORS, "Failures inside mlobs, by stage", [names.REASON], registry=self.registry
        )
        for stage in (*STAGES, "compaction"):
            self._failures.labels(stage)
        self._last_tick = Gauge(
            names.SERVE_LAST_TICK,
            "Event time of the last whole tick",
            registry=self.registry,
        )

    def tick(self, now: float) -> dict[str, Any]:
        """Advance every stage to event time `now`; says in JSON's terms what that did."""
        with self._lock:
            drift = self._guarded("drift", now, lambda: self.drift.tick(now))
            alerts = self._guarded("slo", now, lambda: self._evaluate(now))
            events = self._story.of(drift.windows) if drift is not None else ()
            self._guarded("incidents", now, lambda: self._page(alerts, events, now))
            sent = self._guarded("outbox", now, lambda: self.desk.pump(now)) or ()
            self._last_tick.set(now)
            return {
                "now": now,
                "records": drift.rows if drift is not None else None,
                "windows": len(drift.windows) if drift is not None else None,
                "firing": sorted({alert.name for alert in alerts or () if alert.firing}),
                "sent": len(sent),
                "slos": {
                    status.name: {"state": status.state, "remaining": status.remaining}
                    for status in self.slo.statuses
                },
                "failed": {stage: trouble.text for stage, trouble in self._trouble.items()},
            }

    def pump(self, now: float) -> None:
        """Send what has become due between two ticks: retries, and pages that waited for their turn."""
        with self._lock:
            self._guarded("outbox", now, lambda: self.desk.pump(now))

    @property
    def now(self) -> float:
        """Event time: of the wall, or of the last tick where a replay drives."""
        if self.settings.clock == "wall":
            return time.time()
        reached = self.registry.get_sample_value(names.SERVE_LAST_TICK)
        return reached if reached is not None else 0.0

    def beside(self, stage: str, trouble: str) -> None:
        """How a run beside the ticks ended, in words; "" is well. From any thread."""
        with self._lock:
            if trouble:
                self._failed(stage, self.now, trouble)
            else:
                self._trouble.pop(stage, None)

    def close(self) -> None:
        self.drift.close()
        self.desk.close()
        self.store.close()

    def _evaluate(self, now: float) -> list[Alert] | None:
        if self.reconciler is None:
            return self.slo.tick(now)
        try:
            self.slo.tick(now)
        finally:  # whatever hinders the status, what was lost on the way from Alertmanager is looked for
            self.reconciler.tick(now)
        return None

    def _page(self, alerts: list[Alert] | None, events: Sequence[TimelineEvent], now: float) -> None:
        if alerts is not None:  # None: nothing is known, which is not the same as nothing fires
            self.desk.receive(alerts, now)
        own = [self._own_alert(stage, now) for stage in self._lasting()]
        self.desk.receive([*own, *self.desk.own_alerts(now)], now, source="self")
        for event in events:
            self.desk.event(event)

    def _lasting(self) -> list[str]:
        return [stage for stage, trouble in self._trouble.items() if trouble.count >= FAILURES_BEFORE_PAGE]

    def _own_alert(self, stage: str, now: float) -> Alert:
        trouble = self._trouble[stage]
        return Alert(
            name=f"mlobs-{stage}-failing",
            cause="mlobs",
            severity=names.PAGE if stage in STAGES else names.TICKET,
            firing=True,
            since=trouble.since,
            at=now,
            service=self.settings.service,
            model="",
            environment=self.settings.environment,
            kind="meta",
            summary=f"mlobs itself: {stage} failed {trouble.count} times in a row: {trouble.text}",
        )

    def _guarded(self, stage: str, now: float, work: Callable[[], _T]) -> _T | None:
        try:
            done = work()
        except Exception as problem:  # noqa: BLE001 - counted, logged and told below
            trouble = self._failed(stage, now, f"{type(problem).__name__}: {problem}")
            if trouble.count in (1, FAILURES_BEFORE_PAGE) or trouble.count % 20 == 0:
                _log.exception("the %s stage failed, %d times in a row", stage, trouble.count)
            return None
        self._trouble.pop(stage, None)
        return done

    def _failed(self, stage: str, now: float, text: str) -> _Trouble:
        self._failures.labels(stage).inc()
        trouble = self._trouble.setdefault(stage, _Trouble(since=now))
        trouble.count += 1
        trouble.text = text[:300]
        return trouble


def with_own_address(settings: Settings, host: str, port: int) -> Settings:
    """Links in pages need an address: the one that we listen on, where no `public_url` is given."""
    return settings if settings.public_url else replace(settings, public_url=f"http://{host}:{port}")
