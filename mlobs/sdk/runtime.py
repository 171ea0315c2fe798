"""What `init` sets up: settings, cells, feature log, tracer, guard; one of it is the process's default."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol

from mlobs import names
from mlobs.records import FeatureRecord, LabelRecord, Ledger, Scalar
from mlobs.sdk.buckets import Bounds, make_bounds
from mlobs.sdk.guard import Guard
from mlobs.sdk.meter import REQUEST, Meter
from mlobs.sdk.sampling import crc_limit
from mlobs.settings import Settings


class Log(Protocol):
    """The writing half of the feature log, as the SDK uses it.

    Nothing of it raises; only `flush` and `close` wait, for their timeout at the most.
    """

    def offer(self, record: FeatureRecord) -> None: ...

    def offer_label(self, label: LabelRecord) -> None: ...

    def flush(self, timeout: float) -> bool: ...

    def close(self, timeout: float) -> bool: ...

    def ledger(self) -> Ledger: ...


class Runtime:
    """One set of settings at work. `clock` gives event times, `random` the sampler's draws in [0, 1)."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        log: Log | None = None,
        meter: Meter | None = None,
        strict: bool = False,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.random = draw
        self.log = log
        self.guard = Guard(strict=strict)
        self.meter = Meter() if meter is None else meter
        self.started = time.time()
        self.rate = 0.0
        self.crc_limit = 0
        self.resolve_rate()
        self._bounds: dict[str, Bounds] = {}
        self.spent = 0.0
        """CPU seconds of kept calls on the callers' threads, as measured."""

    def resolve_rate(self) -> None:
        """Nothing is drawn where nothing is kept."""
        self.rate = self.settings.sample if self.keeps else 0.0
        self.crc_limit = crc_limit(self.rate)

    @property
    def keeps(self) -> bool:
        """Whether a kept call goes anywhere."""
        return self.log is not None

    def bounds(self, model: str) -> Bounds:
        """Buckets of a model: the classic edges, and one on every latency threshold of its objectives."""
        found = self._bounds.get(model)
        if found is None:
            edges = self.settings.buckets or names.DEFAULT_BUCKETS
            found = make_bounds([*edges, *self.settings.latency_thresholds(model)])
            self._bounds[model] = found
        return found

    def used_bounds(self) -> dict[str, Bounds]:
        """Bounds of the models that have been counted."""
        used = {}
        for key, _, bounds in self.meter.read():
            if key.family is REQUEST and bounds is not None:
                used[key.values[0]] = bounds
        return used

    def label(self, prediction_id: str, value: Scalar, event_time: float | None) -> None:
        if self.log is not None:
            at = self.clock() if event_time is None else event_time
            self.log.offer_label(LabelRecord("", str(prediction_id), value, at, self.settings.service))

    def ledgers(self) -> list[Ledger]:
        return [] if self.log is None else [self.log.ledger()]

    def overhead(self) -> float:
        """Our own CPU seconds so far: the kept calls as measured, every call at a calibrated price."""
        return self.spent

    def flush(self, timeout: float) -> bool:
        return True if self.log is None else self.log.flush(timeout)

    def close(self, timeout: float) -> bool:
        return True if self.log is None else self.log.close(timeout)
