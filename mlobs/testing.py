"""For your own tests of observed code: a log in memory, a clock that you move, and what was measured.

from mlobs.testing import capture

def test_that_a_large_sum_is_blocked():
    with capture() as seen:
        score({"amount": 1e6})
    assert seen.records[0].decision == "block"
    assert seen.value("mlobs_request_duration_seconds_count", outcome="ok") == 1
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlobs.records import FeatureRecord, LabelRecord, Ledger
from mlobs.sdk.api import installed
from mlobs.sdk.collector import make_registry
from mlobs.sdk.runtime import Runtime
from mlobs.settings import Settings


class FakeClock:
    """Seconds since the epoch that move only when told. Call it for the time."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self.now += seconds


class MemoryLog:
    """A feature log in a list: records as they were captured, unmasked."""

    def __init__(self) -> None:
        self.records: list[FeatureRecord] = []
        self.labels: list[LabelRecord] = []
        self.closed = False

    def offer(self, record: FeatureRecord) -> None:
        self.records.append(record)

    def offer_label(self, label: LabelRecord) -> None:
        self.labels.append(label)

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 - the protocol's
        return True

    def close(self, timeout: float) -> bool:  # noqa: ARG002 - the protocol's
        self.closed = True
        return True

    def ledger(self) -> Ledger:
        count = len(self.records) + len(self.labels)
        return Ledger("featurelog", count, count, {}, 0)


class Seen:
    """What `capture` saw: records, labels and metrics of the block."""

    def __init__(self, runtime: Runtime, log: MemoryLog) -> None:
        self.runtime = runtime
        self.records = log.records
        self.labels = log.labels

    def value(self, metric: str, /, **labels: str) -> float | None:
        """Sum of the metric's samples that carry these labels; None when there is none."""
        found = [
            sample.value
            for family in make_registry(self.runtime).collect()
            for sample in family.samples
            if sample.name == metric and all(sample.labels.get(name) == want for name, want in labels.items())
        ]
        return sum(found) if found else None

    @property
    def internal_errors(self) -> dict[str, int]:
        """Failures of mlobs itself by place; empty in a sound test, and raised at once while `strict`."""
        return dict(self.runtime.guard.counts)


@contextmanager
def capture(
    settings: Settings | None = None, *, clock: FakeClock | None = None, strict: bool = True
) -> Iterator[Seen]:
    """Within the block every observed call is counted from zero and kept; afterwards all is as before.

    `settings` may name another sampling rate or objectives; nothing is written to its feature log.
    """
    log = MemoryLog()
    runtime = Runtime(
        settings or Settings(service="test", sample=1.0), clock=clock or FakeClock(), log=log, strict=strict
    )
    with installed(runtime):
        yield Seen(runtime, log)


__all__ = ["capture", "FakeClock", "MemoryLog", "Seen"]
