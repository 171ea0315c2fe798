"""The replay: March's departures as real HTTP requests, hour by hour on the event clock.

Each hour: its requests in order of departure, closed loop with at most eight in flight; the labels of the
flights that have landed by then; and a tick, which waits until `mlobs serve` has scraped, read and evaluated.
"""

from __future__ import annotations

import heapq
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, RemoteDisconnected
from typing import Any

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
    """Drives the serving process at `service` and `mlobs serve` at `monitor` (each `host:port`)."""

    def __init__(
        self, service: str, monitor: str, rows: Sequence[Departure], start: float, end: float
    ) -> None:
        self._service = service
        self._monitor = monitor
        self._rows = rows
        self._end = end
        self._landing: list[tuple[float, str, int]] = []
        self.progress = Progress(now=start)

    def run(self, after_hour: Callable[[Progress], None]) -> None:
        """Raises OSError or http.client.HTTPException when one of the two processes stops answering."""
        with ThreadPoolExecutor(IN_FLIGHT, "replay") as pool, Connections() as connections:
            for hour_end, rows in by_hour(self._rows, self.progress.now, self._end):
                for row, answer in zip(
                    rows, pool.map(lambda row: self._send(connections, row), rows), strict=True
                ):
                    self._book(row, answer)
                self._label(hour_end)
                connections.post(self._service, "/flush", {})
                mlobs.flush(10.0)
                status, tick = connections.post(self._monitor, "/api/tick", {"now": hour_end})
                if status != 200:
                    raise HTTPException(f"/api/tick answered {status}: {tick}")
                self.progress.now = hour_end
                self.progress.last_tick = tick
                after_hour(self.progress)

    def _send(self, connections: Connections, row: Departure) -> str | None:
        """The prediction id, or None for a failed request."""
        status, answer = connections.post(self._service, "/score", row.body)
        return str(answer["prediction_id"]) if status == 200 else None

    def _book(self, row: Departure, prediction_id: str | None) -> None:
        self.progress.requests += 1
        if prediction_id is None:
            self.progress.failed += 1
        elif row.label is None:
            self.progress.unlabelled += 1
        else:
            heapq.heappush(self._landing, (row.known_at, prediction_id, row.label))

    def _label(self, now: float) -> None:
        while self._landing and self._landing[0][0] <= now:
            known_at, prediction_id, label = heapq.heappop(self._landing)
            self.progress.labels += 1
            label_time.now = known_at
            mlobs.log_label(prediction_id, label)


class Connections:
    """One kept connection a thread and server; http.client costs a fraction of the asynchronous clients."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._all: list[HTTPConnection] = []

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_error: object) -> None:
        for connection in self._all:
            connection.close()

    def post(self, server: str, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """Status and decoded JSON of a POST; asked again where the server had let an idle connection go."""
        try:
            return self._ask(server, path, body)
        except (ConnectionError, RemoteDisconnected):
            self._local.by_server.pop(server).close()
            return self._ask(server, path, body)

    def _ask(self, server: str, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        if not hasattr(self._local, "by_server"):
            self._local.by_server = {}
        connection: HTTPConnection | None = self._local.by_server.get(server)
        if connection is None:
            connection = self._local.by_server[server] = HTTPConnection(server, timeout=TIMEOUT)
            self._all.append(connection)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


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
