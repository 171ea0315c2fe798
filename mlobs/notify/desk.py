"""The paging stage: alerts come in, incidents are kept, pages leave.

`receive` commits what is to be said before anything is sent; `pump` sends what is due. Both take the time,
so that a replay drives the same code; the object itself holds nothing that a restart would lose.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from mlobs.notify import book, outbox
from mlobs.notify.channels.base import Channel
from mlobs.notify.compose import compose
from mlobs.notify.enrich import BUDGET_S, GRACE_S, Enricher, Enrichment
from mlobs.notify.incident import Change, Grouping, Incident, absorb, acknowledge, close, settle
from mlobs.notify.page import FIRING, RESOLVED, UPDATE
from mlobs.notify.routing import route
from mlobs.notify.sender import Sender, Sent
from mlobs.records import Alert, TimelineEvent
from mlobs.settings import Settings
from mlobs.store import Store


class Desk:
    """The on-call desk of one environment.

    `channels` by name, as `channels.build_channels` makes them; `enrichers` in the order in which their parts
    count; `owner` names this process among those that share the store; `rng` draws the retries' jitter.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        channels: Mapping[str, Channel],
        enrichers: Sequence[Enricher] = (),
        *,
        owner: str = "desk",
        rng: random.Random | None = None,
        grouping: Grouping | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._channels = dict(channels)
        self._enrichers = tuple(enrichers)
        self._grouping = grouping or Grouping()
        driven = settings.clock == "driven"
        self._grace_s = BUDGET_S if driven else GRACE_S
        self._sender = Sender(store, owner, rng or random.Random(), paced=not driven)
        self._working: dict[str, Enrichment] = {}
        if store.path is not None:
            with store.write() as connection:  # one process holds a SQLite store: all leases are of the dead
                outbox.release(connection)

    def receive(
        self, alerts: Iterable[Alert], now: float, *, source: str = "engine", complete: bool = True
    ) -> tuple[Incident, ...]:
        """Take an evaluation's alerts; what follows from them is committed when this returns.

        `complete`: the list holds all that fires at `source`, so that what it lacks has ceased. Gives the
        incidents that changed. Raises what the store raises: then nothing was taken and the same list may
        come again.
        """
        with self._store.write() as connection:
            book.lock(connection)
            changes = absorb(
                book.load_open(connection), alerts, now, self._grouping, source=source, complete=complete
            )
            for change in changes:
                self._keep(connection, change, now)
        return tuple(change.incident for change in changes)

    def pump(self, now: float) -> tuple[Sent, ...]:
        """Resolve what has stayed quiet, enrich, and send everything that is due at `now`."""
        self._settle(now)
        self._enrich(now)
        done: list[Sent] = []
        for channel in self._channels.values():
            done.extend(self._sender.run(channel, now))
        return tuple(done)

    def acknowledge(self, incident: str, by: str, now: float) -> Incident | None:
        """None when there is no such open incident or somebody has it already."""
        return self._by_hand(incident, lambda one: acknowledge(one, by, now), now)

    def resolve(self, incident: str, by: str, now: float) -> Incident | None:
        """None when there is no such incident or it is resolved already."""
        return self._by_hand(incident, lambda one: close(one, by, now), now)

    def event(self, event: TimelineEvent) -> None:
        """Write a deploy, a schema or a reference change into the timeline."""
        with self._store.write() as connection:
            book.note_event(connection, event)

    def _by_hand(
        self, incident: str, change: Callable[[Incident], Change | None], now: float
    ) -> Incident | None:
        with self._store.write() as connection:
            book.lock(connection)
            found = book.load(connection, incident)
            changed = change(found) if found is not None else None
            if changed is None:
                return None
            self._keep(connection, changed, now)
            return changed.incident

    def _settle(self, now: float) -> None:
        with self._store.read() as connection:
            due = settle(book.load_open(connection), now, self._grouping)
        if not due:
            return
        with self._store.write() as connection:
            book.lock(connection)
            for change in settle(book.load_open(connection), now, self._grouping):
                self._keep(connection, change, now)

    def _keep(self, connection: Connection, change: Change, now: float) -> None:
        """Incident, timeline and what is to be said, in the caller's transaction."""
        incident = change.incident
        if not self._enrichers:
            incident = replace(incident, enriched=True)
        book.save(connection, incident)
        book.note(connection, incident, now, change.events)
        if change.notice is not None:
            self._post(connection, incident, change.notice, now)

    def _post(self, connection: Connection, incident: Incident, notice: str, now: float) -> None:
        page = compose(incident, self._settings, now)
        told = outbox.told(connection, incident.id)
        if notice == FIRING:
            routed = route(incident, self._settings.notify)
            if not routed.to:
                book.note(connection, incident, now, [("not routed", routed.why)])
            for name in dict.fromkeys((*routed.to, *told)):
                outbox.post(connection, incident, name, FIRING, page, now)
            return
        for name in told:
            channel = self._channels.get(name)
            if notice == RESOLVED or (channel is not None and channel.updates):
                outbox.post(connection, incident, name, notice, page, now)
            else:
                outbox.refresh(connection, incident, name, page)

    def _enrich(self, now: float) -> None:
        """Start what is to be enriched, wait a moment for it, and write what has come."""
        if not self._enrichers:
            return
        with self._store.read() as connection:
            waiting = [one for one in book.load_open(connection) if not one.enriched]
        for incident in waiting:
            if incident.id not in self._working:
                self._working[incident.id] = Enrichment(incident, self._enrichers)
        grace = self._grace_s
        for key, work in list(self._working.items()):
            started = work.age()
            if work.wait(grace):
                del self._working[key]
                self._write_parts(work, now)
            grace = max(0.0, grace - (work.age() - started))

    def _write_parts(self, work: Enrichment, now: float) -> None:
        parts, failed = work.result()
        with self._store.write() as connection:
            book.lock(connection)
            incident = book.load(connection, work.incident.id)
            if incident is None:
                return
            # alerts that joined while the enrichers worked are enriched anew
            same = len(incident.alerts) == len(work.incident.alerts)
            enriched = replace(incident, parts=parts.join(incident.parts), enriched=same)
            events = [("enricher failed", f"{name}: {why}") for name, why in failed.items()]
            book.save(connection, enriched)
            book.note(connection, enriched, now, events)
            if enriched.parts != incident.parts and enriched.state != RESOLVED:
                self._post(connection, enriched, UPDATE, now)
