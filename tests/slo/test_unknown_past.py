"""What is not known of a target is neither bad nor good: first scrapes that fail, restarts, silent judges."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter

from mlobs import names
from mlobs.config import parse_settings
from mlobs.slo.counters import Book
from mlobs.slo.engine import SloEngine
from mlobs.slo.intake import Raw
from mlobs.slo.schema import SCHEMA
from mlobs.store import open_store

SEEN, UNSEEN = np.array([True]), np.array([False])
NOW = 1.7e9


@pytest.fixture
def book() -> Book:
    return Book(np.zeros((1, 2)), np.full(1, np.nan), np.full(1, np.nan))


def test_the_past_of_a_target_whose_first_scrape_failed_is_not_counted(book: Book) -> None:
    book.miss("t", "connection refused", NOW - 15)
    book.take("t", Raw(np.array([[5000.0, 1e6]]), SEEN, NOW - 30 * 86400), NOW)
    assert book.totals.tolist() == [[0.0, 0.0]]
    book.take("t", Raw(np.array([[5001.0, 1e6 + 10]]), SEEN, NOW - 30 * 86400), NOW + 15)
    assert book.totals.tolist() == [[1.0, 10.0]]


def test_what_a_restarted_target_counts_before_its_series_is_seen_is_all_counted(book: Book) -> None:
    book.take("t", Raw(np.array([[0.0, 100.0]]), SEEN, 1000.0), 1010.0)
    book.take("t", Raw(np.zeros((1, 2)), UNSEEN, 2000.0), 2010.0)
    book.take("t", Raw(np.array([[90.0, 150.0]]), SEEN, 2000.0), 2025.0)
    assert book.totals.tolist() == [[90.0, 250.0]]


SETTINGS = """
service: s
store: sqlite:///x.db
models: [{name: m}]
drift: {window: 1m}
slo: {objectives: [{name: m-drift, model: m, sli: drift, objective: 95%, period: 30d}]}
"""


def slices(registry: CollectorRegistry, ok: float) -> Counter:
    """The drift stage's counter as it is brought up after a restart."""
    counter = Counter("mlobs_drift_slices", "Windows.", [names.MODEL, names.RESULT], registry=registry)
    counter.labels("m", "ok").inc(ok)
    return counter


def test_drift_slices_that_stop_coming_are_absent_though_the_counter_stands(tmp_path) -> None:
    settings = parse_settings(SETTINGS, tmp_path)
    store = open_store(settings.store, [SCHEMA])
    registry = CollectorRegistry()
    counter = slices(registry, 0.0)
    engine = SloEngine(settings, store, registry, lambda _url: b"")
    now = NOW
    for _ in range(600):
        now += 60
        counter.labels("m", "ok").inc()
        engine.tick(now)
    assert engine.statuses[0].state != "absent"
    for _ in range(30):
        now += 60
        alerts = engine.tick(now)
    assert engine.statuses[0].state == "absent"
    assert [alert.name for alert in alerts] == ["SLOAbsent"]
    engine.close()
    store.close()


def test_slices_committed_before_a_kill_and_after_the_last_tick_are_counted_after_the_restart(
    tmp_path,
) -> None:
    settings = parse_settings(SETTINGS, tmp_path)
    store = open_store(settings.store, [SCHEMA])
    for ok in (0.0, 9.0):  # nine windows were closed and committed, and nobody had scraped them
        registry = CollectorRegistry()
        slices(registry, ok)
        engine = SloEngine(settings, store, registry, lambda _url: b"")
        engine.tick(NOW + ok * 60 + 1)
        engine.close()
    assert engine.statuses[0].total == 9
    store.close()
