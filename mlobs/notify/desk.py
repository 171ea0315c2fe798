"""The paging stage: alerts come in, incidents are kept, pages leave.

`receive` commits what is to be said before anything is sent; `pump` sends what is due. Both take the time,
so that a replay drives the same code; the object itself holds nothing that a restart would lose.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from mlobs.notify import book, outbox
from mlobs.notify.channels.base import Channel
from mlobs.notify.channels.console import ConsoleChannel, to_stderr
from mlobs.notify.compose import findings, news_of
from mlobs.notify.emergency import Emergency
from mlobs.notify.enrich import BUDGET_S, GRACE_S, MOST_AT_ONCE, Asked, Enricher, Enrichment
from mlobs.notify.grouping import absorb
from mlobs.notify.heartbeat import Heartbeat
from mlobs.notify.http import Addresses
from mlobs.notify.incident import Change, Incident
from mlobs.notify.keeping import (
    acknowledge_by_hand,
    grouping_of,
    keep,
    post,
    record_event,
    resolve_by_hand,
    save,
)
from mlobs.notify.metrics import PagingMetrics
from mlobs.notify.page import RESOLVED, UPDATE, PageParts
from mlobs.notify.routing import LAST_RESORT
from mlobs.notify.selfwatch import Lateness, own_alerts
from mlobs.notify.sender import Sender, Sent
from mlobs.notify.turns import Turns
from mlobs.notify.upkeep import FORGET_EVERY_S, forget, look_after
from mlobs.records import Alert, TimelineEvent
from mlobs.settings import Settings
from mlobs.store import Store

_log = logging.getLogger("mlobs.notify")


WATCHING_OURSELVES = ("self", "upstream")
"""Sources of alerts about mlobs itself: that they are written says nothing of the evaluation."""


class Desk:
    """The on-call desk of one environment.

    `channels` by name, as `channels.build_channels` makes them; `enrichers` in the order in which their parts
    count; `owner` names this process among those that share the store (drawn if empty); `rng` draws the
    jitter.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        channels: Mapping[str, Channel],
        enrichers: Sequence[Enricher] = (),
        *,
        owner: str = "",
        rng: random.Random | None = None,
        inline: bool | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._channels = dict(channels)
        printed = ConsoleChannel(LAST_RESORT, to_stderr)
        printed.rate = 1.0  # a storm is printed as a few pages and a list
        self._channels.setdefault(LAST_RESORT, printed)
        self._enrichers = tuple(enrichers)
        self._grouping = grouping_of(settings.notify)
        driven = settings.clock == "driven"
        self._grace_s = BUDGET_S if driven else GRACE_S
        rng = rng or random.Random()
        sender = Sender(store, owner or f"{rng.getrandbits(64):016x}", rng, paced=not driven)
        self._turns = Turns(sender, self._channels, inline=driven if inline is None else inline)
        self._metrics = PagingMetrics(registry, store, self._channels) if registry is not None else None
        self._emergency = Emergency(settings, channels)
        beat = settings.notify.heartbeat
        self._heartbeat = Heartbeat(beat, Addresses(beat.allow_http, beat.allow_private)) if beat else None
        self._heard: float | None = None
        self._forget_at = 0.0
        self._asked = Asked()
        self._lateness = Lateness()
        self._working: dict[str, Enrichment] = {}
        if store.held:
            with store.write() as connection:  # nobody else serves this store: all leases are of the dead
                outbox.release(connection)

    def receive(
        self, alerts: Iterable[Alert], now: float, *, source: str = "engine", complete: bool = True
    ) -> tuple[Incident, ...]:
        """Take an evaluation's alerts; what follows from them is committed when this returns.

        `complete`: the list holds all that fires at `source`, so that what it lacks has ceased. Gives the
        incidents that changed. Raises what the store raises: then nothing was taken, the same list may come
        again, and from the second time on what pages is told past the store.
        """
        heard = tuple(alerts)
        try:
            changed = self._take(heard, now, source, complete)
        except Exception as problem:
            inner = problem.orig if isinstance(problem, DBAPIError) else problem
            self._emergency.tell(heard, now, type(inner).__name__)
            raise
        self._emergency.over()
        if self._heartbeat is not None and complete and source not in WATCHING_OURSELVES:
            self._heartbeat.beat(now)  # only for a whole evaluation that was written: that alone is alive
        return changed

    def pump(self, now: float) -> tuple[Sent, ...]:
        """Resolve what has stayed quiet, enrich, and send everything that is due at `now`.

        By the wall clock it returns within about two seconds whatever the channels do; what is still on its
        way is told by the next pump.
        """
        if self._heard is None:
            self._heard = now
        if now >= self._forget_at:
            self._forget_at = now + FORGET_EVERY_S
            forget(self._store, now)
        look_after(self._store, self._settings, now)
        try:
            self._enrich(now)
        except DBAPIError:
            raise
        except Exception:  # noqa: BLE001 - what enrichment cannot do must not hold what is ready to leave
            _log.exception("enrichment failed")
        with self._store.read() as connection:
            due = outbox.due(connection, self._channels, now)
        told = self._turns.run(due, now)
        self._lateness.note(told)
        if self._metrics is not None:
            self._metrics.note(told, now)
        return tuple(told)

    @property
    def heard(self) -> float | None:
        """When the watchdog was last heard, or the first pump if it never was; None before that."""
        return self._heard

    def hear(self, now: float) -> None:
        """The watchdog has come through."""
        self._heard = now

    def firing(self, source: str) -> tuple[Alert, ...]:
        """The alerts of `source` that we hold as firing."""
        with self._store.read() as connection:
            known = book.load_open(connection)
        return tuple(
            one.alert for incident in known for one in incident.alerts if one.firing and one.source == source
        )

    def own_alerts(self, now: float) -> tuple[Alert, ...]:
        """What is wrong with paging itself, to be given back to `receive` with what else is wrong with us.

        Nothing where Prometheus evaluates: its rules watch the same (`amconfig.rules_document`).
        """
        if self._settings.slo.evaluator != "embedded":
            return ()
        with self._store.read() as connection:
            waiting = outbox.oldest_news(connection)
        return own_alerts(waiting, self._lateness.since(now), self._settings, now)

    def close(self, timeout: float = 5.0) -> bool:
        """Let what is on its way arrive, so that a restart repeats nothing; False when something hangs."""
        self._emergency.wait(timeout)
        return self._turns.close(timeout)

    def acknowledge(self, incident: str, by: str, now: float) -> Incident | None:
        """None when there is no such open incident or somebody has it already."""
        return acknowledge_by_hand(self._store, self._settings, incident, by, now)

    def resolve(self, incident: str, by: str, now: float) -> Incident | None:
        """None when there is no such incident or it is resolved already."""
        return resolve_by_hand(self._store, self._settings, incident, by, now)

    def event(self, event: TimelineEvent) -> None:
        """Write a deploy, a schema or a reference change into the timeline."""
        record_event(self._store, event)

    def _take(self, alerts: Sequence[Alert], now: float, source: str, complete: bool) -> tuple[Incident, ...]:
        with self._store.write() as connection:
            book.lock(connection)
            known = book.load_known(connection, now, max(self._grouping.reopen_s, self._grouping.by_hand_s))
            changes = absorb(known, alerts, now, self._grouping, source=source, complete=complete)
            return tuple(self._keep(connection, change, now) for change in changes)

    def _keep(self, connection: Connection, change: Change, now: float) -> Incident:
        if not self._enrichers:
            change = replace(change, incident=replace(change.incident, enriched=True))
        return keep(connection, change, self._settings, now)

    def _enrich(self, now: float) -> None:
        """Start what is to be enriched, wait a moment for it, and write what has come."""
        if not self._enrichers:
            return
        with self._store.read() as connection:
            waiting = book.load_bare(connection, MOST_AT_ONCE)
        for incident in waiting:
            if incident.id not in self._working and len(self._working) < MOST_AT_ONCE:
                self._working[incident.id] = Enrichment(incident, self._enrichers, self._asked)
        grace = self._grace_s
        for key, work in list(self._working.items()):
            started = work.age()
            if work.wait(grace):
                del self._working[key]
                self._write_parts(work, now)
            grace = max(0.0, grace - (work.age() - started))

    def _write_parts(self, work: Enrichment, now: float) -> None:
        """Put what was found into the incident; should that fail, the incident goes on without it."""
        parts, failed = work.result()
        try:
            self._write(work.incident, parts, failed, now)
        except DBAPIError:
            raise
        except Exception as problem:  # noqa: BLE001 - one incident's parts must not hold the other pages
            _log.exception("parts of incident %s could not be written", work.incident.id)
            self._write(work.incident, PageParts(), {**failed, "parts": type(problem).__name__}, now)

    def _write(self, before: Incident, parts: PageParts, failed: Mapping[str, str], now: float) -> None:
        with self._store.write() as connection:
            book.lock(connection)
            incident = book.load(connection, before.id)
            if incident is None:
                return
            # alerts that joined while the enrichers worked are enriched anew
            same = len(incident.alerts) == len(before.alerts)
            enriched = replace(incident, parts=parts.join(incident.parts), enriched=same)
            events = [("enricher failed", f"{name}: {why}") for name, why in failed.items()]
            events += [("found", text) for text in findings(enriched.parts, incident.parts)]
            save(connection, enriched, self._settings, now)
            book.note(connection, enriched, now, events)
            if enriched.parts != incident.parts and enriched.state != RESOLVED:
                news = news_of(enriched.parts, incident.parts)
                post(connection, enriched, UPDATE, self._settings, now, news)
