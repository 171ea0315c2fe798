"""Incidents and their timeline in the store. Every function takes an open connection: the caller owns the
transaction.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, Table, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from mlobs.notify import tables
from mlobs.notify.incident import Incident
from mlobs.notify.page import RESOLVED, ChangeFinding, encode
from mlobs.notify.routing import Silence
from mlobs.notify.text import clean
from mlobs.records import TimelineEvent

_LOCK = "desk"

# Built once: to put a statement together costs more than to run it. What is written is given to `execute`.
_DUE = (
    select(tables.incidents.c.document)
    .where(tables.incidents.c.attention_at <= bindparam("now"))
    .order_by(tables.incidents.c.opened_at, tables.incidents.c.id)
)
_ONE = select(tables.incidents.c.document).where(tables.incidents.c.id == bindparam("incident"))
_THE_INCIDENT = update(tables.incidents).where(tables.incidents.c.id == bindparam("incident"))
_NEW_INCIDENT = insert(tables.incidents)
_NOTE = insert(tables.timeline)

CHANGES = ("deploy", "schema", "reference", "config")
"""Kinds of events that an incident suspects."""
_RESTLESS = ("ceased", "fires again", "joined", "burn", "budget", "found")
MOST_RESTLESS = 300
"""Such events of one incident that are written down."""


def lock(connection: Connection) -> None:
    """One desk at a time decides what incidents there are, also where two `serve` share a Postgres.

    SQLite has one writer anyway; elsewhere a row is locked until the transaction ends.
    """
    row = select(tables.locks.c.name).where(tables.locks.c.name == _LOCK).with_for_update()
    if connection.execute(row).first() is None:
        insert_once(connection, tables.locks, name=_LOCK)
        connection.execute(row).one()


def insert_once(connection: Connection, table: Table, **values: object) -> None:
    """Insert unless its primary key is there: two processes may come with the same row at once."""
    if connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(table).values(**values).on_conflict_do_nothing())
    else:
        connection.execute(sqlite.insert(table).values(**values).on_conflict_do_nothing())


def load_open(connection: Connection) -> list[Incident]:
    """Every incident that is not resolved, oldest first."""
    table = tables.incidents
    rows = connection.execute(
        select(table.c.document).where(table.c.state != RESOLVED).order_by(table.c.opened_at, table.c.id)
    )
    return [decode(row.document) for row in rows]


def load_known(connection: Connection, now: float, since_s: float) -> list[Incident]:
    """The open ones, and those that were resolved within `since_s`; oldest first."""
    table = tables.incidents
    rows = connection.execute(
        select(table.c.document)
        .where((table.c.state != RESOLVED) | (table.c.changed_at > now - since_s))
        .order_by(table.c.opened_at, table.c.id)
    )
    return [decode(row.document) for row in rows]


def load_due(connection: Connection, now: float) -> list[Incident]:
    """Those that asked for attention at `now` or before."""
    return [decode(row.document) for row in connection.execute(_DUE, {"now": now})]


def load_bare(connection: Connection, most: int) -> list[Incident]:
    """Open ones that no enricher has looked at yet, at most `most`: pages before tickets, then the oldest."""
    table = tables.incidents
    rows = connection.execute(
        select(table.c.document)
        .where(table.c.state != RESOLVED, table.c.enriched.is_(False))
        .order_by(table.c.severity, table.c.opened_at, table.c.id)
        .limit(most)
    )
    return [decode(row.document) for row in rows]


def of_model(connection: Connection, incident: Incident) -> list[Incident]:
    """The open incidents of the same model, this one included."""
    table = tables.incidents
    rows = connection.execute(
        select(table.c.document).where(
            table.c.state != RESOLVED,
            table.c.environment == incident.environment,
            table.c.service == incident.service,
            table.c.model == incident.model,
        )
    )
    return [decode(row.document) for row in rows]


def load(connection: Connection, incident: str) -> Incident | None:
    row = connection.execute(_ONE, {"incident": incident}).first()
    return decode(row.document) if row else None


def save(connection: Connection, incident: Incident, attention_at: float | None) -> None:
    """Insert or replace; `attention_at`: when somebody must look at it again though nothing is heard of
    it.
    """
    values = {
        "key": incident.key,
        "environment": incident.environment,
        "service": incident.service,
        "model": incident.model,
        "cause": incident.cause,
        "severity": incident.severity,
        "state": incident.state,
        "opened_at": incident.opened_at,
        "changed_at": incident.changed_at,
        "resolved_at": incident.resolved_at,
        "enriched": incident.enriched,
        "attention_at": attention_at,
        "document": encode(incident),
    }
    if connection.execute(_THE_INCIDENT, {"incident": incident.id, **values}).rowcount == 0:
        connection.execute(_NEW_INCIDENT, {"id": incident.id, **values})


def decode(document: str) -> Incident:
    return msgspec.json.decode(document, type=Incident)


def note(connection: Connection, incident: Incident, at: float, events: Iterable[tuple[str, str]]) -> None:
    """Write what happened to `incident` into its timeline; of what comes and goes the first few hundred."""
    for kind, text in events:
        if kind in _RESTLESS and _noted(connection, incident.id) >= MOST_RESTLESS:
            continue
        values = {"incident": incident.id, "at": at, "kind": kind, "text": text, "source": "mlobs"}
        connection.execute(_NOTE, {**values, "service": incident.service, "model": incident.model})


def silence(connection: Connection, one: Silence) -> int:
    """Write a silence down; gives its number. `one.id` is not looked at."""
    done = connection.execute(
        insert(tables.silences).values(
            match=msgspec.json.encode(dict(one.match)).decode(),
            start=one.start,
            end=one.end,
            by=clean(one.by, 80),
            comment=clean(one.comment),
        )
    )
    key = done.inserted_primary_key
    return int(key[0]) if key is not None else 0


def unsilence(connection: Connection, number: int, now: float) -> bool:
    """End a silence now; False when it has ended or never was."""
    table = tables.silences
    ended = update(table).where(table.c.id == number, table.c.end > now).values(end=now)
    return connection.execute(ended).rowcount > 0


def silences(connection: Connection, now: float) -> list[Silence]:
    """Those that hold at `now` or later."""
    table = tables.silences
    return [
        Silence(row.id, msgspec.json.decode(row.match), row.start, row.end, row.by, row.comment)
        for row in connection.execute(select(table).where(table.c.end > now).order_by(table.c.id))
    ]


def _noted(connection: Connection, incident: str) -> int:
    table = tables.timeline
    where = (table.c.incident == incident) & table.c.kind.in_(_RESTLESS)
    return connection.execute(select(func.count()).select_from(table).where(where)).scalar_one()


def latest_change(connection: Connection, incident: Incident, within_s: float) -> ChangeFinding | None:
    """The last deploy, schema or reference change of the model or its service before the incident was
    noticed, at most `within_s` before it began."""
    table = tables.timeline
    row = connection.execute(
        select(table.c.at, table.c.kind, table.c.text)
        .where(
            table.c.incident.is_(None),
            table.c.kind.in_(CHANGES),
            table.c.service == incident.service,
            table.c.model.in_(("", incident.model)),
            table.c.at >= incident.since - within_s,
            table.c.at <= incident.opened_at,
        )
        .order_by(table.c.at.desc(), table.c.id.desc())
        .limit(1)
    ).first()
    return ChangeFinding(row.at, row.kind, row.text) if row else None


def note_event(connection: Connection, event: TimelineEvent) -> None:
    """Something that happened around a model (a deploy, a schema change); incidents near it show it."""
    connection.execute(
        insert(tables.timeline).values(
            incident=None,
            at=event.at,
            kind=clean(event.kind, 40),
            service=clean(event.service),
            model=clean(event.model),
            text=clean(event.text, 500),
            source=clean(event.source, 80),
        )
    )
