"""Spans of kept calls: a bounded queue and one thread that hands them to an exporter.

The caller's thread leaves a small tuple without a lock; OpenTelemetry's span objects are built by the thread.
`flush` and `close` wait for their timeout at the most and say the truth: True only when the exporter took
everything. No signal handler, no thread that outlives the process: it is a daemon, and what it has not sent
is lost and was counted as queued.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mlobs.records import Ledger
from mlobs.sdk.guard import Guard
from mlobs.sdk.spanjob import SpanJob

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

PIPELINE = "spans"
MOST_CALLS = 4096
"""Kept calls that wait; later ones are dropped with the reason `full`."""
_BATCH = 512
INTERVAL_S = 0.2


class SpanPipeline:
    """`offer` never blocks; counts are of spans. `connect` makes the exporter, in the sending thread."""

    def __init__(
        self,
        connect: Callable[[], SpanExporter],
        resource: Mapping[str, str],
        guard: Guard,
        bits: Callable[[int], int],
    ) -> None:
        self._connect = connect
        self._resource = dict(resource)
        self._guard = guard
        self._bits = bits
        self.reset()

    def reset(self) -> None:
        """Empty, without a thread: at the start, and in a forked child, whose parent sends its own."""
        self._queue: deque[SpanJob] = deque()
        self._wake = threading.Condition(threading.RLock())  # a signal handler may make a kept call, too
        self._thread: threading.Thread | None = None
        self._open = False
        """Whether there is a thread that takes what is queued."""
        self._taken = self._delivered = 0
        """Of the calls that left the queue or never came in."""
        self._dropped: dict[str, int] = {}
        self._closed = False
        self._hurry = False
        self._last_success: float | None = None

    def offer(self, job: SpanJob) -> None:
        """Queue a kept call's spans. Takes no lock while all is well; 0.2 us."""
        if self._open and len(self._queue) < MOST_CALLS:
            self._queue.append(job)
        else:
            self._offer_late(job)

    def _offer_late(self, job: SpanJob) -> None:
        """The first one, and those that nobody can take."""
        with self._wake:
            if not self._open and not self._closed and (self._thread is not None or self._start()):
                self._open = True
            if self._open and len(self._queue) < MOST_CALLS:
                self._queue.append(job)
                return
            self._taken += job.spans
            self._drop("closed" if self._closed else "full" if self._open else "no_thread", job.spans)

    def _drop(self, reason: str, count: int) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + count

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="mlobs-spans", daemon=True)
        try:
            thread.start()
        except RuntimeError as problem:  # no thread to be had: degraded, not raised
            self._guard.swallow("spans_thread", problem)
            return False
        self._thread = thread
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until all that was offered so far is exported; False when some was lost or time is up."""
        deadline = time.monotonic() + timeout
        with self._wake:
            lost = sum(self._dropped.values())
            target = self._offered()
            self._hurry = True
            self._wake.notify_all()
            while self._delivered + sum(self._dropped.values()) < target:
                left = deadline - time.monotonic()
                if left <= 0 or self._thread is None:
                    return False
                self._wake.wait(left)
            return sum(self._dropped.values()) == lost

    def _offered(self) -> int:
        """Spans so far; under the lock, for the thread counts what it takes under it."""
        return self._taken + sum(job.spans for job in self._queue.copy())

    def close(self, timeout: float) -> bool:
        """Flush, then take nothing more."""
        done = self.flush(timeout)
        with self._wake:
            self._closed, self._open = True, False
            self._wake.notify_all()
        return done

    def ledger(self) -> Ledger:
        """The pipeline's account, in spans."""
        with self._wake:
            dropped = dict(self._dropped)
            offered = self._offered()
            queued = offered - self._delivered - sum(dropped.values())
            return Ledger(
                PIPELINE, offered, self._delivered, dropped, queued, last_success=self._last_success
            )

    # -- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        wake, queue = self._wake, self._queue
        exporter: SpanExporter | None = None
        while True:
            with wake:
                if not queue and self._closed:
                    break
                if not self._hurry:
                    wake.wait(INTERVAL_S)
                self._hurry = False
                batch = [queue.popleft() for _ in range(min(_BATCH, len(queue)))]
                count = sum(job.spans for job in batch)
                self._taken += count
            if batch:
                reason = "export_failed"
                try:
                    exporter = exporter or self._connect()
                    if self._export(exporter, batch):
                        reason = ""
                        for job in batch:
                            job.arrived()
                except Exception as problem:  # noqa: BLE001 - the guard's
                    self._guard.swallow("spans_export", problem)
                with wake:
                    if reason:
                        self._drop(reason, count)
                    else:
                        self._delivered += count
                        self._last_success = time.time()
                    self._hurry = self._hurry or len(queue) >= _BATCH
                    wake.notify_all()
        if exporter is not None:
            try:
                exporter.shutdown()
            except Exception as problem:  # noqa: BLE001 - the guard's
                self._guard.swallow("spans_shutdown", problem)

    def _export(self, exporter: SpanExporter, batch: list[SpanJob]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult  # weight: loaded in the thread

        from mlobs.sdk.otelspans import build

        shift = time.time_ns() - int(time.perf_counter() * 1e9)
        spans = build(batch, self._resource, self._bits, shift)
        return exporter.export(spans) is SpanExportResult.SUCCESS
