"""A service called 5,000 times a second for half an hour; a slice of five seconds in every run of the tests.

pytest -m nightly tests/sdk/test_soak.py             # half an hour
pytest tests/sdk/test_soak.py --soak-seconds 120     # as long as you like
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RATE = 5000
NIGHTLY_S = 1800.0
SLICE_S = 5.0
FLAT = (1024, 4_000)
"""KiB between the second quarter of the run and the last one, and blocks of objects in use: half an hour
leaves 6,000 if each commit of the feature log leaves one."""
FLAT_IN_THE_SLICE = (4 * 1024, 20_000)
"""Some of the first seconds is still warming up; each call that leaves one makes 16,000, each stage four
times that."""


def soak(seconds: float) -> dict[str, Any]:
    script = Path(__file__).with_name("soak_app.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), "--seconds", str(seconds), "--rate", str(RATE)],
        capture_output=True,
        text=True,
        timeout=120 + 4 * seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_every_call_is_accounted_for(found: dict[str, Any]) -> None:
    """Called = counted, kept = offered = delivered = logged, five spans each = exported, no drop."""
    called, failed, kept = found["called"], found["failed"], found["kept"]
    assert found["errors"] == {}
    assert found["counted"] == {"begun": called, "ok": called - failed, "error": failed, "cancelled": 0}
    assert list(found["stages"].values()) == [called] * 4
    assert found["ledgers"] == {"featurelog": [kept, kept, 0, {}], "spans": [5 * kept, 5 * kept, 0, {}]}
    assert (found["logged"], found["duplicates"], found["gaps"]) == (kept, 0, 0)
    assert found["exported"] == 5 * kept
    assert found["flushed"]
    assert found["closed"]
    assert found["scrapes"] > 0


def assert_memory_is_flat(found: dict[str, Any], kib: int, blocks: int) -> None:
    memory = found["memory_kib"]
    quarter = max(1, len(memory) // 4)
    early, late = memory[quarter : 2 * quarter], memory[-quarter:]
    assert statistics.median(late) - statistics.median(early) < kib
    first, last = found["live_blocks"]
    assert last - first < blocks


def test_a_service_loses_no_call_and_keeps_its_memory(request: pytest.FixtureRequest) -> None:
    found = soak(float(request.config.getoption("--soak-seconds") or SLICE_S))
    assert_every_call_is_accounted_for(found)
    assert_memory_is_flat(found, *FLAT_IN_THE_SLICE)


@pytest.mark.nightly
def test_half_an_hour_at_five_thousand_calls_a_second() -> None:
    found = soak(NIGHTLY_S)
    assert_every_call_is_accounted_for(found)
    assert_memory_is_flat(found, *FLAT)
    assert found["rate"] > 0.95 * RATE
