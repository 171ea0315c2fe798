"""What a change of an incident entails, in one transaction: the incident, its timeline, and what is to be
said.

The desk uses it for what alerts bring about, the commands and the web page for what people do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from mlobs.notify import book, outbox
from mlobs.notify.compose import compose
from mlobs.notify.incident import Change, Incident, acknowledge, close
from mlobs.notify.page import FIRING, Page
from mlobs.notify.routing import route
from mlobs.records import TimelineEvent
from mlobs.settings import Settings
from mlobs.store import Store

SUSPECT_S = 86400.0
"""A change so long before the trouble is still suspected."""


def keep(connection: Connection, change: Change, settings: Settings, now: float) -> None:
    """Write `change` and intend what it makes us say. Call it with the book locked."""
    incident = change.incident
    book.save(connection, incident)
    book.note(connection, incident, now, change.events)
    if change.notice is not None:
        post(connection, incident, change.notice, settings, now)


def post(connection: Connection, incident: Incident, notice: str, settings: Settings, now: float) -> None:
    """Intend to tell: a firing goes where the routes say and to all who were told, the rest to these
    alone.
    """
    page = page_of(connection, incident, settings, now)
    told = outbox.told(connection, incident.id)
    if notice == FIRING:
        routed = route(incident, settings.notify)
        if not routed.to:
            book.note(connection, incident, now, [("not routed", routed.why)])
        told = tuple(dict.fromkeys((*routed.to, *told)))
    for name in told:
        outbox.post(connection, incident, name, notice, page, now)


def page_of(connection: Connection, incident: Incident, settings: Settings, now: float) -> Page:
    """The page of `incident`, with the change that stands in the timeline unless an enricher knew better."""
    if incident.parts.change is None:
        suspected = book.latest_change(connection, incident, SUSPECT_S)
        incident = replace(incident, parts=replace(incident.parts, change=suspected))
    return compose(incident, settings, now)


def acknowledge_by_hand(
    store: Store, settings: Settings, incident: str, by: str, now: float
) -> Incident | None:
    """None when there is no such open incident, or somebody has it already."""
    return _by_hand(store, settings, incident, lambda one: acknowledge(one, by, now), now)


def resolve_by_hand(store: Store, settings: Settings, incident: str, by: str, now: float) -> Incident | None:
    """None when there is no such incident, or it is resolved already."""
    return _by_hand(store, settings, incident, lambda one: close(one, by, now), now)


def record_event(store: Store, event: TimelineEvent) -> None:
    """Write a deploy, a schema or a reference change into the timeline."""
    with store.write() as connection:
        book.note_event(connection, event)


def _by_hand(
    store: Store, settings: Settings, incident: str, change: Callable[[Incident], Change | None], now: float
) -> Incident | None:
    with store.write() as connection:
        book.lock(connection)
        found = book.load(connection, incident)
        changed = change(found) if found is not None else None
        if changed is None:
            return None
        keep(connection, changed, settings, now)
        return changed.incident
