"""Enrichers at work: plain callables, each in a thread of its own, none of which can hold a page.

An enricher looks into feature logs, traces and timelines and gives `PageParts`. It has `budget_s`; one that
is slower, or raises, is counted, and the page goes without what it would have said. The threads are
daemons: an enricher that hangs for ever does not keep the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from mlobs.notify.compose import cleaned_parts
from mlobs.notify.incident import Incident
from mlobs.notify.page import PageParts

Enricher = Callable[[Incident], PageParts]

_log = logging.getLogger("mlobs.notify")

BUDGET_S = 2.0
GRACE_S = 0.5
"""A page that is about to leave waits so long for parts that are nearly there."""


class Enrichment:
    """The enrichers' work on one incident."""

    def __init__(self, incident: Incident, enrichers: Sequence[Enricher], budget_s: float = BUDGET_S) -> None:
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
        for number, enricher in enumerate(enrichers):
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
        name = getattr(enricher, "__qualname__", type(enricher).__name__)
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
            with self._lock:
                self._failed[name] = type(problem).__name__
            _log.warning("enricher %s failed: %s", name, type(problem).__name__)
        finally:
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    self._done.set()
