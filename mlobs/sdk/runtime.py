"""What `init` sets up: settings, cells, feature log, spans, guard; one of it is the process's default."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import cycle
from math import isfinite
from time import thread_time
from typing import TYPE_CHECKING, Any, Protocol

from mlobs import names
from mlobs.records import BY_ENTITY, FeatureRecord, LabelRecord, Ledger, Scalar
from mlobs.sdk.buckets import Bounds, make_bounds, plain_bounds
from mlobs.sdk.exemplars import Exemplars
from mlobs.sdk.given import fits, refuse_in_call
from mlobs.sdk.guard import Guard
from mlobs.sdk.meter import REQUEST, Meter
from mlobs.sdk.overhead import Overhead
from mlobs.sdk.spans import SpanPipeline
from mlobs.settings import Settings

if TYPE_CHECKING:
    from mlobs.sdk.workers import Crew

_PRICED_OF = 31
"""Odd, for a kept call has two pieces: both get their turn."""
_USUAL_PRICE_S = 0.6e-6
"""What a call costs where nobody calibrated it."""


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
    """One set of settings at work. `clock` gives event times, `draw` the sampler's numbers in [0, 1)."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] | None = None,
        bits: Callable[[int], int] | None = None,
        log: Log | None = None,
        spans: SpanPipeline | None = None,
        meter: Meter | None = None,
        strict: bool = False,
        calibrate: Callable[[], float] = lambda: _USUAL_PRICE_S,
    ) -> None:
        self.settings = settings
        self.clock = clock
        # Our own numbers: drawing from the module would change the sequence of a host that seeded it.
        self._numbers = random.Random()
        self.random = self._numbers.random if draw is None else draw
        self.bits = self._numbers.getrandbits if bits is None else bits
        self.log = log
        self.spans = spans
        self.guard = Guard(strict=strict)
        self.meter = Meter() if meter is None else meter
        self.exemplars = self._no_exemplars()
        self.started = time.time()
        self.spent = 0.0
        """CPU seconds of kept calls on the callers' threads, as measured on a share of them."""
        self.turn = cycle([*[False] * (_PRICED_OF - 1), True]).__next__
        self.crew: Crew | None = None
        """The other workers of the service, if this process is one of several."""
        self._overhead = Overhead(calibrate)
        self._bounds: dict[str, Bounds] = {}
        self._stage_bounds: dict[str, Bounds] = {}
        self._rates: dict[str, float] = {}

    def begin_price(self) -> float:
        """Before a piece of a kept call's work whose `turn` it is: the thread's CPU time.

        The clock is a system call and would be the dearest part of the work: one piece in 31 is measured, and
        counts for all of them.
        """
        return thread_time()

    def end_price(self, began: float) -> None:
        """After it; `began` is what `begin_price` gave."""
        self.spent += _PRICED_OF * (thread_time() - began)

    @property
    def keeps(self) -> bool:
        """Whether a kept call goes anywhere."""
        return self.log is not None or self.spans is not None

    def rate_of(self, model: str) -> float:
        """Share of the model's calls that are drawn; nothing is drawn where nothing is kept.

        Where more traces are asked for than records, the records follow: a trace resolves to its record.
        """
        found = self._rates.get(model)
        if found is None:
            found = 0.0
            if self.keeps:
                own = self.settings.model(model).sample
                found = self.settings.sample if own is None else own
                if self.spans is not None and self.settings.trace_sample is not None:
                    found = max(found, self.settings.trace_sample)
            self._rates[model] = found
        return found

    def by_entity(self, model: str) -> bool:
        """Whether the model's calls are drawn by their entity."""
        return (self.settings.model(model).sample_by or self.settings.sample_by) == BY_ENTITY

    def bounds(self, model: str) -> Bounds:
        """Buckets of a model: the classic edges, and one on every latency threshold of its objectives."""
        found = self._bounds.get(model)
        if found is None:
            edges = self.settings.buckets or names.DEFAULT_BUCKETS
            found = make_bounds([*edges, *self.settings.latency_thresholds(model)])
            self._bounds[model] = found
        return found

    def stage_bounds(self, model: str) -> Bounds:
        """Buckets of a model's stages: the same classic edges without the native scale between them."""
        found = self._stage_bounds.get(model)
        if found is None:
            found = self._stage_bounds[model] = plain_bounds(self.bounds(model).classic)
        return found

    def _no_exemplars(self) -> Exemplars:
        return Exemplars(lambda model: self.bounds(model).classic)

    def used_bounds(self) -> dict[str, Bounds]:
        """Bounds of the models that have been counted."""
        used = {}
        for key, _, bounds in self.meter.read():
            if key.family is REQUEST and bounds is not None:
                used[key.values[0]] = bounds
        return used

    def label(self, prediction_id: str, value: Scalar, event_time: float | None) -> None:
        """Hand a label to the feature log, if there is one. Raises UsageError for what cannot be meant."""
        if prediction_id is None:  # the text "None" would be an id
            raise refuse_in_call(
                "log_label(prediction_id=)", "the prediction's id", None, "see current().prediction_id"
            )
        if self.log is not None:
            at = self.clock() if event_time is None else event_time
            if not fits(lambda given: isfinite(float(given)), at):
                raise refuse_in_call(
                    "log_label(event_time=)", "seconds since the epoch", at, "for example time.time()"
                )
            self.log.offer_label(LabelRecord("", str(prediction_id), value, float(at), self.settings.service))

    def ledgers(self) -> list[Ledger]:
        """The account of each pipeline."""
        pipelines: list[Any] = [pipeline for pipeline in (self.log, self.spans) if pipeline is not None]
        return [pipeline.ledger() for pipeline in pipelines]

    def overhead(self) -> float:
        """Our own CPU seconds so far; see `overhead.Overhead`."""
        calls = sum(cells[0] for key, cells, _ in self.meter.read() if key.family is REQUEST)
        return self._overhead.seconds(calls, self.spent)

    def own_cost(self) -> float:
        """Of `overhead` what was measured and not priced: kept calls and our threads."""
        return self._overhead.seconds(0.0, self.spent)

    def price(self) -> float:
        """CPU seconds that an observed call costs here."""
        return self._overhead.price()

    def after_fork(self) -> None:
        """In a forked child: counts from zero, own locks and queues. The feature log sees to itself."""
        self.meter = Meter(sharded=self.meter.sharded)
        self._numbers.seed()  # or all children would give out the same trace ids
        self.guard.reset()
        if self.crew is not None:
            self.crew = self.crew.forked()
            if self.crew is not None:
                self.meter.move(self.crew)
        self.exemplars = self._no_exemplars()
        self.started = time.time()
        self.spent = 0.0
        self._overhead.threads.clear()
        if self.spans is not None:
            self.spans.reset()

    def flush(self, timeout: float) -> bool:
        """True when every pipeline says so within `timeout` seconds altogether."""
        return self._within(timeout, "flush")

    def close(self, timeout: float) -> bool:
        """Flush and end every pipeline within `timeout` seconds altogether."""
        return self._within(timeout, "close")

    def _within(self, timeout: float, what: str) -> bool:
        deadline = time.monotonic() + timeout
        done = True
        for pipeline in (self.log, self.spans):
            if pipeline is not None:
                left = max(0.0, deadline - time.monotonic())
                try:
                    done = bool(getattr(pipeline, what)(left)) and done
                except Exception as problem:  # noqa: BLE001 - the guard's
                    self.guard.swallow(what, problem)
                    done = False
        return done
