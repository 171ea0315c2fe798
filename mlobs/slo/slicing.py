"""Closing slices: requests between two scrapes become good and bad slices, which are a p99 objective's
events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mlobs.slices import slice_at
from mlobs.slo import timeslice
from mlobs.slo.counters import Book
from mlobs.slo.evaluate import Plan
from mlobs.slo.history import History
from mlobs.slo.intake import BAD, EVENTS, RAW, TOTAL, Accounts

_REMEMBERED = 200
"""Bad slices whose starts are remembered, to say since when an objective suffers."""


class Slicer:
    """Judges every slice once it has ended. What it remembers goes into the store with the tick (`state`)."""

    def __init__(
        self, plans: Iterable[Plan], length: float, zone: str, accounts: Accounts, values: Mapping[str, Any]
    ) -> None:
        self._plans = [each for each in plans if each.indicator.sliced]
        self._length, self._zone = length, zone
        self._accounts = accounts
        self._judged: dict[str, float] = {str(k): float(v) for k, v in values.get("judged", {}).items()}
        self._bad: dict[str, list[float]] = values.get("bad_slices", {})

    def state(self) -> dict[str, object]:
        return {"judged": self._judged, "bad_slices": self._bad}

    def run_start(self, name: str) -> float | None:
        """Start of the first bad slice of the objective's last run of them."""
        return run_start(self._bad.get(name, ()), self._length)

    def close(self, now: float, previous: float | None, book: Book, history: History) -> None:
        """Judge every slice that has ended by `now`. `previous` is the scrape before this one: slices that
        lie between the two are empty."""
        for each in self._plans:
            raw, events = self._accounts.id(each.name, RAW), self._accounts.id(each.name, EVENTS)
            if raw >= len(book.totals) or np.isnan(book.born[raw]):
                continue
            if np.isnan(book.born[events]):
                book.born[events] = book.born[raw]
            book.seen[events] = book.seen[raw]
            start = self._judged.get(each.name)
            current = slice_at(float(book.born[raw]) if start is None else start, self._length, self._zone)
            while current.end <= now:
                if previous is not None and current.start >= previous and current.end < now:
                    # Nothing was scraped within it, nor in those after it up to the one that holds now.
                    current = slice_at(now, self._length, self._zone)
                    if current.start == now:
                        current = slice_at(now - self._length / 2, self._length, self._zone)
                    self._judged[each.name] = current.start
                    continue
                if self._judge(raw, events, current.end, now, book, history):
                    bad = self._bad.setdefault(each.name, [])
                    bad.append(current.start)
                    del bad[:-_REMEMBERED]
                self._judged[each.name] = current.end
                current = slice_at(current.end, self._length, self._zone)

    def _judge(
        self, raw: int, events: int, end: float, now: float, book: Book, history: History
    ) -> bool | None:
        totals = book.totals

        def counters(t: float) -> tuple[float, float]:
            vector = totals if t >= now else history.at(t, len(totals))
            return float(vector[raw, BAD]), float(vector[raw, TOTAL])

        def look(count: int) -> timeslice.Requests:
            # The slice before its end, whatever its length: a day with a clock change is still a day.
            start = slice_at(end - 1e-3, self._length, self._zone).start - (count - 1) * self._length
            (bad, total), (bad0, total0) = counters(end), counters(start)
            return timeslice.Requests(bad - bad0, total - total0)

        verdict = timeslice.judge(look, timeslice.growth(self._length))
        if verdict is not None:
            totals[events] += (float(verdict), 1.0)
        return verdict


def run_start(bad: Sequence[float], length: float) -> float | None:
    """Start of the last run of bad slices; a good slice or two within it do not end a run."""
    start: float | None = None
    for slice_start in reversed(bad):
        if start is not None and start - slice_start > 3.5 * length:
            break
        start = slice_start
    return start
