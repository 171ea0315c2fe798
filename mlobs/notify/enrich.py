"""Enrichers at work: plain callables, each in a thread of its own, none of which can hold a page.

An enricher looks into feature logs, traces and timelines and gives `PageParts`. It has `budget_s`; one that
is slower, or raises, is counted, and the page goes without what it would have said. The threads are
daemons: an enricher that hangs for ever does not keep the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from mlobs.notify.compose import cleaned_parts
from mlobs.notify.incident import Incident
from mlobs.notify.page import PageParts

Enricher = Callable[[Incident], PageParts]

_log = logging.getLogger("mlobs.notify")

BUDGET_S = 2.0
GRACE_S = 0.5
"""A page that is about to leave waits so long for parts that are nearly there."""

MOST_AT_ONCE = 8
"""Incidents that are enriched together; in a storm the others leave bare and are enriched in their turn."""
MOST_HANGING = 4
"""Threads of one enricher that may hang before it is asked no more until one ends."""


class Asked:
    """How many threads each enricher has running, over all incidents of a desk."""

    def __init__(self) -> None:
        self._running: Counter[int] = Counter()
        self._lock = threading.Lock()

    def begin(self, number: int) -> bool:
        """Whether enricher `number` may be asked once more."""
        with self._lock:
            if self._running[number] >= MOST_AT_ONCE + MOST_HANGING:
                return False
            self._running[number] += 1
            return True

    def end(self, number: int) -> None:
        with self._lock:
            self._running[number] -= 1


class Enrichment:
    """The enrichers' work on one incident."""

    def __init__(
        self, incident: Incident, enrichers: Sequence[Enricher], asked: Asked, budget_s: float = BUDGET_S
    ) -> None:
        self.incident = incident
        self._answers: list[PageParts | None] = [None] * len(enrichers)
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()
        self._left = len(enrichers)
        self._done = threading.Event()
        if not enrichers:
            self._done.set()
        self._began = time.monotonic()
        self._until = self._began + budget_s
        self._asked = asked
        for number, enricher in enumerate(enrichers):
            if not asked.begin(number):
                self._fail(enricher, "too many of its threads hang")
                self._over()
                continue
            threading.Thread(
                target=self._ask, args=(number, enricher), name="mlobs-enricher", daemon=True
            ).start()

    def wait(self, seconds: float) -> bool:
        """Wait for all, at most `seconds` and not beyond the budget; True when there is nothing left to
        wait for.
        """
        left = self._until - time.monotonic()
        return self._done.wait(max(0.0, min(seconds, left))) or time.monotonic() >= self._until

    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def result(self) -> tuple[PageParts, dict[str, str]]:
        """What has come in so far, joined in the enrichers' order, and who failed (name -> why)."""
        with self._lock:
            joined = PageParts()
            for answer in self._answers:
                if answer is not None:
                    joined = joined.join(answer)
            return joined, dict(self._failed)

    def _ask(self, number: int, enricher: Enricher) -> None:
        try:
            answer = enricher(self.incident)
            if not isinstance(answer, PageParts):
                raise TypeError(f"gave {type(answer).__name__} and no PageParts")
            cleaned = cleaned_parts(
                answer
            )  # here, so that a part that makes no sense is its enricher's fault
            with self._lock:
                self._answers[number] = cleaned
        except Exception as problem:  # noqa: BLE001 - an enricher's fault never costs the page
            self._fail(enricher, type(problem).__name__)
        finally:
            self._asked.end(number)
            self._over()

    def _fail(self, enricher: Enricher, why: str) -> None:
        name = getattr(enricher, "__qualname__", type(enricher).__name__)
        with self._lock:
            self._failed[name] = why
        _log.warning("enricher %s failed: %s", name, why)

    def _over(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._done.set()
