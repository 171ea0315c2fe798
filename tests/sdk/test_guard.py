"""The guard's own promises, and what we say that we cost."""

from __future__ import annotations

import logging
import threading
import time

import pytest

import mlobs
from mlobs.errors import MlobsError
from mlobs.sdk.guard import Guard
from mlobs.sdk.overhead import Overhead
from mlobs.settings import Settings
from mlobs.testing import FakeClock, capture
from tests.servers import eventually

PRICE_S = 1e-3


def test_every_failure_is_counted_and_logged_once_a_minute_and_site(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock(1000.0)
    guard = Guard(clock=clock)
    with caplog.at_level(logging.WARNING, "mlobs"):
        for _ in range(3):
            guard.swallow("one", ValueError("of the host's data"))
            guard.swallow("other", KeyError("of the host's data"))
        assert len(caplog.records) == 2
        clock.advance(59)
        guard.swallow("one", ValueError())
        assert len(caplog.records) == 2
        clock.advance(2)
        guard.swallow("one", ValueError())
        assert len(caplog.records) == 3
    assert guard.counts == {"one": 5, "other": 3}
    assert "of the host's data" not in caplog.text


def test_our_own_errors_are_logged_as_they_were_written(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mlobs"):
        Guard().swallow("site", MlobsError.of("stage()", "a name", "a list", "name it"))
    assert "mlobs failed at site: stage(): expected a name, got a list; name it" in caplog.text


def test_a_log_handler_that_raises_does_not_reach_the_host() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("no disk")

    logger, handler = logging.getLogger("mlobs"), Broken()
    logger.addHandler(handler)
    try:
        guard = Guard()
        guard.swallow("site", ValueError())
        assert guard.counts == {"site": 1}
    finally:
        logger.removeHandler(handler)


def test_a_strict_guard_raises_the_failure_itself() -> None:
    problem = ValueError("ours")
    with pytest.raises(ValueError, match="ours") as caught:
        Guard(strict=True).swallow("site", problem)
    assert caught.value is problem


def test_our_own_cost_is_that_of_all_calls_and_of_the_kept_ones_and_never_goes_back() -> None:
    score = mlobs.observe(model="cost")(lambda request: 0.5)
    seen: list[float] = []
    with capture(Settings(service="test", sample=0.0)) as unkept:
        unkept.runtime._overhead = Overhead(lambda: PRICE_S)
        for calls in (0, 3, 4):
            for _ in range(calls):
                score({})
            seen.append(unkept.value("mlobs_overhead_seconds_total") or 0.0)
        assert seen[1] - seen[0] > 2.9 * PRICE_S  # what our threads spend meanwhile is in it, too
        assert seen[2] - seen[1] > 3.9 * PRICE_S
        assert unkept.runtime.spent == 0
    with capture() as kept:
        for _ in range(200):  # one piece in 31 is measured
            score({"amount": 1.0})
        assert kept.runtime.spent > 0


def test_the_time_of_our_threads_is_counted_and_stays_when_they_end() -> None:
    overhead, done = Overhead(lambda: 0.0), threading.Event()
    before = overhead.seconds(0, 0.0)
    thread = threading.Thread(target=lambda: _burn(done), name="mlobs-test")
    thread.start()
    try:
        assert eventually(
            lambda: overhead.seconds(0, 0.0) >= before + 0.02, "the thread's time is seen", timeout=60
        )
    finally:
        done.set()
        thread.join()
    assert overhead.seconds(0, 0.0) >= before + 0.02


def _burn(done: threading.Event) -> None:
    while not done.is_set():
        time.thread_time()
