"""The first calls of a process: many threads at once, before `init`; no count is lost."""

from __future__ import annotations

import sys
import threading

import pytest

import mlobs
from mlobs.sdk.api import _BINDINGS
from mlobs.sdk.meter import Meter
from mlobs.sdk.runtime import Runtime
from mlobs.settings import Settings
from mlobs.testing import MemoryLog

THREADS = 8
CALLS = 5


@pytest.mark.parametrize("sharded", [False, True])
def test_threads_that_make_the_first_calls_lose_no_count(
    monkeypatch: pytest.MonkeyPatch, sharded: bool
) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(60):
            meter = Meter(sharded=sharded)
            runtime = Runtime(Settings(service="test", sample=0.3), log=MemoryLog(), meter=meter)

            @mlobs.observe(model="first")
            def score(value: int) -> int:
                return value

            (binding,) = [one for one in _BINDINGS if one.wrapper is score]
            binding.unsettle()  # as after decoration, whatever other tests had installed
            _BINDINGS.discard(binding)
            monkeypatch.setattr(binding, "_find_runtime", lambda found=runtime: found)
            ready = threading.Barrier(THREADS)

            def work(ready: threading.Barrier = ready, score: object = score) -> None:
                ready.wait()
                for number in range(CALLS):
                    assert score(number) == number  # type: ignore[operator]

            threads = [threading.Thread(target=work) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            ((_, cells, bounds),) = [each for each in meter.read() if each[0].values == ("first", "")]
            assert bounds is not None
            assert runtime.guard.counts == binding.guard.counts == {}
            assert cells[0] == THREADS * CALLS
            assert sum(cells[2 : 2 + bounds.size]) == THREADS * CALLS
    finally:
        sys.setswitchinterval(interval)
