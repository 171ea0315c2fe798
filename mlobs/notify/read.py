"""What the web page, the commands and the demo may look at: plain values over the store, nothing to
change.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Select, select

from mlobs.notify import book, outbox, tables
from mlobs.notify.compose import compose
from mlobs.notify.drawing import plain as lines_of
from mlobs.notify.incident import Incident
from mlobs.notify.keeping import page_of
from mlobs.notify.page import RESOLVED, Page, decode_page
from mlobs.notify.routing import Silence
from mlobs.notify.tables import SCHEMA
from mlobs.records import Ledger
from mlobs.settings import Settings
from mlobs.store import Store

__all__ = [
    "SCHEMA",
    "IncidentRow",
    "IncidentStory",
    "SentPage",
    "TimelineRow",
    "incident",
    "incidents",
    "lines_of",
    "pages",
]


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """One line of the list of incidents."""

    id: str
    key: str
    environment: str
    service: str
    model: str
    cause: str
    causes: tuple[str, ...]
    severity: str
    state: str
    """`open`, `acknowledged` or `resolved`."""
    title: str
    since: float
    opened_at: float
    resolved_at: float | None
    acknowledged_by: str


@dataclass(frozen=True, slots=True)
class SentPage:
    """A message of the outbox: what was to be said where, and what became of it."""

    number: int
    incident: str
    channel: str
    kind: str
    """`firing`, `update`, `resolved` or `test`."""
    state: str
    """`pending`, `sending`, `sent`, `failed`, `skipped` or `grouped` (said by a message that stands for
    many).
    """
    wanted_at: float
    sent_at: float | None
    attempts: int
    reason: str
    """Of the last attempt: `ok`, `rate_limited`, ...; empty before the first."""
    page: Page

    @property
    def names(self) -> tuple[str, ...]:
        """What the page named as broken: features, then the slow stage."""
        return self.page.names


@dataclass(frozen=True, slots=True)
class TimelineRow:
    at: float
    kind: str
    text: str
    source: str
    model: str


@dataclass(frozen=True, slots=True)
class IncidentStory:
    """Everything about one incident."""

    row: IncidentRow
    page: Page
    """As it would be sent now."""
    pages: tuple[SentPage, ...]
    timeline: tuple[TimelineRow, ...]


def incidents(
    store: Store, settings: Settings, *, state: str | None = None, limit: int = 200
) -> tuple[IncidentRow, ...]:
    """The newest first; `state` `open` means everything that is not resolved (acknowledged too)."""
    table = tables.incidents
    query = select(table.c.document).order_by(table.c.opened_at.desc(), table.c.id).limit(limit)
    if state == "open":
        query = query.where(table.c.state != RESOLVED)
    elif state is not None:
        query = query.where(table.c.state == state)
    with store.read() as connection:
        return tuple(_row(book.decode(one.document), settings) for one in connection.execute(query))


def incident(store: Store, settings: Settings, id_: str, around_s: float = 86400.0) -> IncidentStory | None:
    """One incident with its pages, and its timeline with what happened around its model up to `around_s`
    before.
    """
    with store.read() as connection:
        found = book.load(connection, id_)
        if found is None:
            return None
        page = page_of(connection, found, settings, found.resolved_at or found.changed_at)
        sent = _pages(connection, _all_pages().where(tables.outbox.c.incident == id_))
        return IncidentStory(_row(found, settings), page, sent, _timeline(connection, found, around_s))


def pages(store: Store, *, kind: str | None = None, sent_only: bool = True) -> tuple[SentPage, ...]:
    """Every message in the order in which it was intended; `kind` narrows."""
    query = _all_pages()
    if kind is not None:
        query = query.where(tables.outbox.c.kind == kind)
    if sent_only:
        query = query.where(tables.outbox.c.state == "sent")
    with store.read() as connection:
        return _pages(connection, query)


def ledger(store: Store, now: float) -> Ledger:
    """The outbox's account over all that was ever intended; a message taken in by an earlier one is part of
    it.
    """
    with store.read() as connection:
        counts = outbox.counts(connection)
        waiting = outbox.waiting(connection)
    dropped: dict[str, int] = {}
    for (state, reason), number in counts.items():
        if state in (outbox.FAILED, outbox.SKIPPED):
            dropped[reason or state] = dropped.get(reason or state, 0) + number
    return Ledger(
        pipeline="outbox",
        offered=sum(counts.values()),
        delivered=sum(
            number for (state, _), number in counts.items() if state in (outbox.SENT, outbox.GROUPED)
        ),
        dropped=dropped,
        queued=sum(one.count for one in waiting),
        oldest_age_s=max((now - one.oldest for one in waiting), default=0.0),
    )


def silences(store: Store, now: float) -> tuple[Silence, ...]:
    """Those that hold now or are to come."""
    with store.read() as connection:
        return tuple(book.silences(connection, now))


def _all_pages() -> Select[tuple[object, ...]]:
    return select(tables.outbox).order_by(tables.outbox.c.id)


def _pages(connection: Connection, query: Select[tuple[object, ...]]) -> tuple[SentPage, ...]:
    return tuple(
        SentPage(
            one.id,
            one.incident,
            one.channel,
            one.kind,
            one.state,
            one.created_at,
            one.done_at if one.state == "sent" else None,
            one.attempts,
            one.reason or "",
            decode_page(one.page),
        )
        for one in connection.execute(query)
    )


def _timeline(connection: Connection, found: Incident, around_s: float) -> tuple[TimelineRow, ...]:
    table = tables.timeline
    own = table.c.incident == found.id
    around = (
        table.c.incident.is_(None)
        & (table.c.service == found.service)
        & table.c.model.in_(("", found.model))
        & (table.c.at >= found.since - around_s)
        & (table.c.at <= (found.resolved_at if found.resolved_at is not None else float("1e18")))
    )
    rows = connection.execute(select(table).where(own | around).order_by(table.c.at, table.c.id))
    return tuple(TimelineRow(one.at, one.kind, one.text, one.source, one.model) for one in rows)


def _row(one: Incident, settings: Settings) -> IncidentRow:
    return IncidentRow(
        one.id,
        one.key,
        one.environment,
        one.service,
        one.model,
        one.cause,
        one.causes,
        one.severity,
        one.state,
        compose(one, settings, one.changed_at).title,
        one.since,
        one.opened_at,
        one.resolved_at,
        one.acknowledged_by,
    )
