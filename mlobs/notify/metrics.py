"""Paging measures itself: what left, what failed and why, how long it took, what waits, what was
suppressed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from mlobs import names
from mlobs.names import PAGE
from mlobs.notify import outbox, tables
from mlobs.notify.page import FIRING, RESOLVED
from mlobs.notify.routing import LAST_RESORT
from mlobs.notify.sender import Sent
from mlobs.store import Store

_log = logging.getLogger("mlobs.notify")

SUPPRESSED = ("silenced", "maintenance", "inhibited", "not routed")
"""Kinds of timeline events that stand for a page that was not sent on purpose."""
BUCKETS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class PagingMetrics:
    """Counts attempts in this process; reads what waits from the store when it is scraped."""

    def __init__(self, registry: CollectorRegistry, store: Store, channels: Iterable[str]) -> None:
        self._store = store
        self._now = 0.0
        self._channels = tuple(channels)
        channel = [names.CHANNEL]
        self._sent = Counter(names.NOTIFY_SENT, "Messages delivered", channel, registry=registry)
        self._failed = Counter(
            names.NOTIFY_FAILED, "Attempts that failed", [*channel, names.REASON], registry=registry
        )
        self._latency = Histogram(
            names.NOTIFY_LATENCY,
            "Arrival of the alert to delivery of its page",
            channel,
            buckets=BUCKETS,
            registry=registry,
        )
        for name in self._channels:
            self._sent.labels(name)
            self._latency.labels(name)
        registry.register(self)

    def note(self, sent: Iterable[Sent], now: float) -> None:
        """Count what a pump reports."""
        self._now = now
        for one in sent:
            if not one.ok:
                self._failed.labels(one.channel, one.reason).inc()
                continue
            self._sent.labels(one.channel).inc()
            if one.kind == FIRING:
                self._latency.labels(one.channel).observe(max(0.0, one.latency_s))

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering must not read the store."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The store's side; empty while the store does not answer, so that the rest of the scrape stands."""
        try:
            with self._store.read() as connection:
                waiting = outbox.waiting(connection)
                table = tables.timeline
                passed_on, unreached = _handed_over(connection)
                suppressed = connection.execute(
                    select(table.c.kind, func.count().label("number"))
                    .where(table.c.kind.in_(SUPPRESSED))
                    .group_by(table.c.kind)
                ).all()
        except SQLAlchemyError as problem:
            _log.warning("the outbox could not be read for /metrics: %s", type(problem).__name__)
            return
        yield self._oldest(waiting)
        held = CounterMetricFamily(
            names.NOTIFY_SUPPRESSED, "Pages not sent on purpose", labels=[names.REASON]
        )
        by_kind = {row.kind: row.number for row in suppressed}
        for kind in SUPPRESSED:
            held.add_metric([kind.replace(" ", "_")], by_kind.get(kind, 0))
        yield held
        passed = CounterMetricFamily(
            names.NOTIFY_PASSED_ON,
            "Firing messages that a channel did not take, or not in time: others were told",
            labels=[names.CHANNEL],
        )
        for name in dict.fromkeys((*self._channels, *passed_on)):
            passed.add_metric([name], passed_on.get(name, 0))
        yield passed
        yield GaugeMetricFamily(
            names.NOTIFY_UNREACHED, "Open pages that no channel has taken yet", value=unreached
        )

    def _oldest(self, waiting: list[outbox.Waiting]) -> Metric:
        family = GaugeMetricFamily(
            names.NOTIFY_OLDEST, "Age of the oldest unsent message", labels=[names.CHANNEL]
        )
        ages = {one.channel: max(0.0, self._now - one.oldest) for one in waiting}
        for name in dict.fromkeys((*self._channels, *ages)):
            family.add_metric([name], ages.get(name, 0.0))
        return family


def _handed_over(connection: Connection) -> tuple[dict[str, int], int]:
    """Messages handed on by channel, and how many open pages have reached nobody but the log."""
    box, to, open_ = tables.outbox, tables.deliveries, tables.incidents
    rows = connection.execute(
        select(box.c.channel, func.count().label("number"))
        .where(box.c.kind == FIRING, box.c.fallback_at > outbox.NOBODY)
        .group_by(box.c.channel)
    )
    mine = select(to.c.incident).where(to.c.incident == open_.c.id)
    heard = mine.where(to.c.reached_at.is_not(None), to.c.channel != LAST_RESORT)
    unreached = select(func.count()).where(
        open_.c.state != RESOLVED, open_.c.severity == PAGE, mine.exists(), ~heard.exists()
    )
    passed_on = {row.channel: row.number for row in rows}
    return passed_on, connection.execute(unreached).scalar_one()
