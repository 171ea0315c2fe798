"""Once a minute: does Alertmanager know what Prometheus fires, and do we know what Alertmanager holds?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from mlobs.names import PAGE
from mlobs.notify.alertmanager import Upstream, reconcile
from mlobs.notify.desk import Desk
from mlobs.notify.incident import Identity, identity
from mlobs.notify.receiver import SOURCE
from mlobs.records import Alert
from mlobs.settings import Settings

_log = logging.getLogger("mlobs.notify")

EVERY_S = 60.0
UNHEARD_S = 300.0
"""The watchdog comes each minute; so long without it, the way to us is closed."""
FAILS = 2
"""Rounds without an answer before a server counts as down."""

Fetch = Callable[[str], bytes]
"""GET of an address; raises what it likes."""


class Reconciler:
    """Keeps the desk and its upstream in step; only for `slo.evaluator: prometheus`."""

    def __init__(self, settings: Settings, desk: Desk, fetch: Fetch) -> None:
        self._settings = settings
        self._desk = desk
        self._fetch = fetch
        self._next = 0.0
        self._failed = {"prometheus": 0, "alertmanager": 0}
        self._quiet: frozenset[Identity] | None = None
        """What Alertmanager held as silenced or inhibited when it last answered."""

    def tick(self, now: float) -> tuple[str, ...]:
        """A round if one is due; one sentence for each alert that had been lost on its way to us."""
        if now < self._next:
            return ()
        self._next = now + EVERY_S
        options = self._settings.notify.alertmanager
        prometheus = self._get("prometheus", self._settings.slo.prometheus, "/api/v1/alerts")
        alertmanager = self._get("alertmanager", options.url if options else None, "/api/v2/alerts")
        fired = prometheus.get("data", {}).get("alerts") if isinstance(prometheus, dict) else None
        upstream = Upstream(
            tuple(fired) if isinstance(fired, list) else None,
            tuple(alertmanager) if isinstance(alertmanager, list) else None,
        )
        known = [identity(alert) for alert in self._desk.firing(SOURCE)]
        quiet = self._quiet
        if quiet is None and self._failed["alertmanager"] >= FAILS:
            quiet = frozenset()  # it is down and we never heard it: rather a page too many
        found = reconcile(upstream, known, self._settings, now, quiet)
        if upstream.alertmanager is not None:
            self._quiet = found.quiet
        for line in found.lost:
            _log.warning("%s: taken up", line)
        self._desk.receive(found.alerts, now, source=SOURCE, complete=found.complete)
        self._desk.receive(self._own(now), now, source="upstream")
        return found.lost

    def _get(self, name: str, base: str | None, path: str) -> Any:
        if base is None:
            return None
        try:
            answer: Any = msgspec.json.decode(self._fetch(base.rstrip("/") + path))
        except Exception as problem:  # noqa: BLE001 - an absent server is a state, counted here
            self._failed[name] += 1
            _log.warning("%s does not answer: %s", name, type(problem).__name__)
            return None
        self._failed[name] = 0
        return answer

    def _own(self, now: float) -> list[Alert]:
        """Trouble of the upstream itself."""
        found = [
            self._alert(f"{name}-down", f"{name} does not answer mlobs", now)
            for name, count in self._failed.items()
            if count >= FAILS
        ]
        heard = self._desk.heard
        if heard is not None and now - heard > UNHEARD_S:
            text = "the watchdog of Prometheus does not reach mlobs: alerts may be lost on their way"
            found.append(self._alert("watchdog", text, heard + UNHEARD_S))
        return found

    def _alert(self, cause: str, text: str, since: float) -> Alert:
        return Alert(
            name=f"mlobs-{cause}",
            cause=cause,
            severity=PAGE,
            firing=True,
            since=since,
            at=since,
            service=self._settings.service,
            model="",
            environment=self._settings.environment,
            kind="meta",
            summary=text,
        )
