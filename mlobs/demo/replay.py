"""The replay: March's departures as real HTTP requests, hour by hour on the event clock.

Each hour: its requests in order of departure, closed loop with at most eight in flight; the labels of the
flights that have landed by then; and a tick, which waits until `mlobs serve` has scraped, read and evaluated.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

import mlobs
from mlobs.demo.flights import CATEGORIES, Flights

IN_FLIGHT = 8
HOUR = 3600.0
TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Departure:
    """One request, and what only the future knows of it."""

    departs: float
    body: dict[str, Any]
    label: int | None
    known_at: float


@dataclass(slots=True)
class Progress:
    """Counted while the replay runs; the caller reads it."""

    now: float
    requests: int = 0
    failed: int = 0
    labels: int = 0
    unlabelled: int = 0
    ticks: int = 0
    last_tick: dict[str, Any] | None = None


def departures(flights: Flights) -> list[Departure]:
    """The rows of `flights` as requests, in their order."""
    names = ("event_time", "label", "known_at", "flight", "distance", "hour", *CATEGORIES)
    return [
        Departure(
            row["event_time"],
            {
                "departs": row["event_time"],
                **{name: row[name] for name in ("flight", "distance", "hour", *CATEGORIES)},
            },
            row["label"],
            row["known_at"],
        )
        for row in flights.table.select(list(names)).to_pylist()
    ]


class Replay:
    """Drives the serving process at `service` and `mlobs serve` at `monitor` (base URLs)."""

    def __init__(
        self, service: str, monitor: str, rows: Sequence[Departure], start: float, end: float
    ) -> None:
        self._service = service
        self._monitor = monitor
        self._rows = rows
        self._end = end
        self._landing: list[tuple[float, str, int]] = []
        self.progress = Progress(now=start)

    async def run(self, after_hour: Callable[[Progress], None]) -> None:
        """Raises httpx.HTTPError when one of the two processes stops answering."""
        limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
        async with (
            httpx.AsyncClient(base_url=self._service, limits=limits, timeout=TIMEOUT) as service,
            httpx.AsyncClient(base_url=self._monitor, timeout=TIMEOUT) as monitor,
        ):
            for hour_end, rows in by_hour(self._rows, self.progress.now, self._end):
                await self._send(service, rows)
                self._label(hour_end)
                (await service.post("/flush")).raise_for_status()
                await asyncio.to_thread(mlobs.flush, 10.0)
                answer = (await monitor.post("/api/tick", json={"now": hour_end})).raise_for_status()
                self.progress.now = hour_end
                self.progress.ticks += 1
                self.progress.last_tick = answer.json()
                after_hour(self.progress)

    async def _send(self, service: httpx.AsyncClient, rows: Sequence[Departure]) -> None:
        queue = iter(rows)

        async def worker() -> None:
            for row in queue:  # one iterator for all workers: each takes the next row
                answer = await service.post("/score", json=row.body)
                self.progress.requests += 1
                if answer.status_code != 200:
                    self.progress.failed += 1
                elif row.label is None:
                    self.progress.unlabelled += 1
                else:
                    prediction_id = answer.json()["prediction_id"]
                    heapq.heappush(self._landing, (row.known_at, prediction_id, row.label))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(IN_FLIGHT, len(rows))):
                group.create_task(worker())

    def _label(self, now: float) -> None:
        while self._landing and self._landing[0][0] <= now:
            known_at, prediction_id, label = heapq.heappop(self._landing)
            self.progress.labels += 1
            label_time.now = known_at
            mlobs.log_label(prediction_id, label)


class _LabelTime:
    """The event clock of the labelling process: this one."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


label_time = _LabelTime()


def by_hour(
    rows: Sequence[Departure], start: float, end: float
) -> Iterator[tuple[float, Sequence[Departure]]]:
    """`(end of the hour, its rows)` for every hour of `[start, end)`, the empty ones of the night too."""
    position = 0
    hour_end = start
    while hour_end < end:
        hour_end = min(hour_end + HOUR, end)
        first = position
        while position < len(rows) and rows[position].departs < hour_end:
            position += 1
        yield hour_end, rows[first:position]
