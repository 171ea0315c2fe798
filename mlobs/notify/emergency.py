"""When the store takes nothing (disk full, server gone), people are told all the same, straight and once.

Nothing is durable then: one page names everything that fires and says that mlobs itself is in trouble. It
goes to every channel, is tried again until each has taken it, and comes again when more fires or after half
an hour.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace

from mlobs.names import PAGE
from mlobs.notify.channels.base import Channel, Message
from mlobs.notify.compose import compose
from mlobs.notify.grouping import Grouping, absorb
from mlobs.notify.incident import Identity, identity
from mlobs.notify.page import FIRING
from mlobs.notify.sender import attempt
from mlobs.records import Alert
from mlobs.settings import Settings

_log = logging.getLogger("mlobs.notify")

AGAIN_S = 1800.0
FAILURES = 2
"""Evaluations in a row."""


class Emergency:
    """The last way out of a desk. Sends in threads of its own; `wait` is for tests and an orderly end."""

    def __init__(self, settings: Settings, channels: Mapping[str, Channel]) -> None:
        self._settings = settings
        self._channels = channels
        self._told: set[Identity] = set()
        self._told_at = float("-inf")
        self._failures = 0
        self._failed_at: float | None = None
        self._left: set[str] = set()
        self._message: Message | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def tell(self, alerts: Iterable[Alert], now: float, problem: str) -> None:
        """Page what fires, past the store, from the second evaluation on that it took nothing; returns at
        once.
        """
        if now != self._failed_at:
            self._failures += 1
            self._failed_at = now
        if self._failures < FAILURES:
            return  # it may have been busy
        firing = [one for one in alerts if one.firing and one.severity == PAGE]
        names = {identity(one) for one in firing}
        with self._lock:
            if names - self._told or now - self._told_at >= AGAIN_S:
                self._told |= names
                self._told_at = now
                self._left = set(self._channels)
                self._message = self._composed(firing, now, problem)
            left, message = sorted(self._left), self._message
        self._threads = [one for one in self._threads if one.is_alive()]
        busy = {one.name for one in self._threads}
        for name in left:
            if message is not None and f"mlobs-emergency-{name}" not in busy:
                thread = threading.Thread(
                    target=self._send, args=(name, message), name=f"mlobs-emergency-{name}", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def over(self) -> None:
        """The store takes things again: what fires is paged the usual way."""
        with self._lock:
            self._failures = 0
            self._told.clear()
            self._told_at = float("-inf")
            self._left.clear()

    def wait(self, seconds: float) -> None:
        for thread in self._threads:
            thread.join(seconds)

    def _composed(self, firing: list[Alert], now: float, problem: str) -> Message:
        try:
            return self._compose(firing, now, problem)
        except Exception:  # noqa: BLE001 - an alert that no page can be made of may be what brought us here
            _log.exception("the emergency page leaves without its alerts")
            return self._compose([], now, problem)

    def _compose(self, firing: list[Alert], now: float, problem: str) -> Message:
        own = Alert(
            name="mlobs-store",
            cause="mlobs",
            severity=PAGE,
            firing=True,
            since=now,
            at=now,
            service=self._settings.service,
            model="",
            environment=self._settings.environment,
            kind="meta",
            summary=f"mlobs cannot write its state ({problem}): this page stands nowhere else",
        )
        grouping = Grouping()
        (change,) = absorb([], [own], now, grouping)
        named = [replace(one, slo=f"{one.model or one.service}: {one.slo or one.name}") for one in firing]
        tracked = [one for other in absorb([], named, now, grouping) for one in other.incident.alerts]
        incident = change.incident
        page = compose(replace(incident, alerts=(*incident.alerts, *tracked)), self._settings, now)
        return Message(FIRING, page, f"mlobs-emergency-{incident.id}", 0, now)

    def _send(self, name: str, message: Message) -> None:
        outcome = attempt(self._channels[name], message)
        _log.error("emergency page to %s: %s", name, outcome.reason)
        if outcome.sent or not outcome.retry:
            with self._lock:
                if message is self._message:
                    self._left.discard(name)
