"""What a change of an incident entails, in one transaction: the incident, its timeline, and what is to be
said.

The desk uses it for what alerts bring about, the commands and the web page for what people do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from mlobs.names import PAGE
from mlobs.notify import book, outbox
from mlobs.notify.compose import bare_page, compose
from mlobs.notify.grouping import Grouping, acknowledge, close, hold_of
from mlobs.notify.incident import OPEN, Change, Incident
from mlobs.notify.page import FIRING, RESOLVED, UPDATE, Page
from mlobs.notify.routing import Silence, channels_of, muted, muted_kind, route
from mlobs.records import TimelineEvent
from mlobs.settings import NotifySettings, Settings
from mlobs.store import Store

_log = logging.getLogger("mlobs.notify")

SUSPECT_S = 86400.0
"""A change so long before the trouble is still suspected."""
MUTED_AGAIN_S = 10.0
"""An incident that nobody was told of is looked at again so often: its silence may have ended."""


def grouping_of(settings: NotifySettings) -> Grouping:
    return Grouping(together_s=settings.together, hold_s=settings.hold)


def keep(connection: Connection, change: Change, settings: Settings, now: float) -> Incident:
    """Write `change` and intend what it makes us say. Call it with the book locked."""
    incident = change.incident
    if change.notice is not None:
        news = [text for _, text in change.events]
        incident = _tell(connection, incident, change.notice, settings, now, news)
    elif incident.muted:
        incident = unmute(connection, incident, settings, now)
    save(connection, incident, settings, now)
    book.note(connection, incident, now, change.events)
    return incident


def save(connection: Connection, incident: Incident, settings: Settings, now: float) -> None:
    book.save(connection, incident, attention_at(incident, settings.notify, now))


def post(
    connection: Connection,
    incident: Incident,
    notice: str,
    settings: Settings,
    now: float,
    news: Sequence[str] = (),
) -> None:
    """Intend to tell: a firing goes where the routes say and to all who were told, the rest to these
    alone. `news`: what is new to those who were told before.
    """
    page = replace(page_of(connection, incident, settings, now), changed=tuple(news))
    told = outbox.told(connection, incident.id)
    if notice == FIRING:
        routed = route(incident, settings.notify, now)
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
    try:
        return compose(incident, settings, now)
    except Exception as problem:  # noqa: BLE001 - a page that says little goes before none
        _log.error("the page of incident %s could not be composed: %s", incident.id, type(problem).__name__)
        return bare_page(incident, settings, now)


def attention_at(incident: Incident, settings: NotifySettings, now: float) -> float | None:
    """When the incident must be looked at though nothing is heard of it; None for a resolved one."""
    if incident.state == RESOLVED:
        return None
    due = []
    if incident.quiet_since is not None:
        due.append(incident.quiet_since + hold_of(incident, grouping_of(settings)))
    if incident.muted:
        due.append(now + MUTED_AGAIN_S)
    step = next_escalation(incident, settings, now)
    if step is not None:
        due.append(step[0])
    return min(due) if due else None


def next_escalation(
    incident: Incident, settings: NotifySettings, now: float
) -> tuple[float, tuple[str, ...]] | None:
    """When the next step is due and which channels it tells; None when none is left, or none is needed."""
    if incident.state != OPEN or incident.severity != PAGE or incident.paged_at is None or incident.muted:
        return None
    steps = route(incident, settings, now).escalate
    if incident.escalated >= len(steps):
        return None
    step = steps[incident.escalated]
    return incident.paged_at + step.after, channels_of(step.to, settings)


def escalate(connection: Connection, incident: Incident, settings: Settings, now: float) -> Incident:
    """Take the steps of escalation that are due."""
    while (step := next_escalation(incident, settings.notify, now)) is not None and step[0] <= now:
        incident = replace(incident, escalated=incident.escalated + 1)
        if incident.quiet_since is not None:
            continue  # it has healed: nobody else needs to be woken
        page = page_of(connection, incident, settings, now)
        for name in step[1]:
            outbox.post(connection, incident, name, FIRING, page, now)
        text = f"nobody acknowledged: {', '.join(step[1])} told"
        book.note(connection, incident, now, [("escalated", text)])
    return incident


def unmute(connection: Connection, incident: Incident, settings: Settings, now: float) -> Incident:
    """Tell of a muted incident once its silence has ended and it still fires."""
    if incident.quiet_since is not None:
        return incident
    return _tell(connection, incident, FIRING, settings, now)


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


def silence(store: Store, one: Silence) -> int:
    """Silence what matches; gives the silence's number."""
    with store.write() as connection:
        return book.silence(connection, one)


def unsilence(store: Store, number: int, now: float) -> bool:
    """End a silence now; False when it has ended or never was."""
    with store.write() as connection:
        return book.unsilence(connection, number, now)


def _tell(
    connection: Connection,
    incident: Incident,
    notice: str,
    settings: Settings,
    now: float,
    news: Sequence[str] = (),
) -> Incident:
    """Post `notice` unless nobody is to be told now."""
    if notice in (FIRING, UPDATE):
        others = book.of_model(connection, incident)
        silences = book.silences(connection, now)
        why = muted(incident, settings.notify, silences, others, now)
        if why:
            if notice == FIRING and why != incident.muted:
                book.note(connection, incident, now, [(muted_kind(why), why)])
            return replace(incident, muted=why) if notice == FIRING else incident
        if notice == UPDATE and incident.muted:
            return incident  # it will be told whole when its silence is looked at next
    post(connection, incident, notice, settings, now, news)
    if notice == FIRING:
        paged = incident.paged_at if incident.paged_at is not None else now
        return replace(incident, muted="", paged_at=paged, told_at=now)
    return incident


def _by_hand(
    store: Store, settings: Settings, incident: str, change: Callable[[Incident], Change | None], now: float
) -> Incident | None:
    with store.write() as connection:
        book.lock(connection)
        found = book.load(connection, incident)
        changed = change(found) if found is not None else None
        return keep(connection, changed, settings, now) if changed is not None else None
