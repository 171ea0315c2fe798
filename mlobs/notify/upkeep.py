"""What comes due without any alert: quiet incidents resolve, silences end, escalation, the fallback
channel.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.exc import DBAPIError

from mlobs.names import PAGE
from mlobs.notify import book, outbox, tables
from mlobs.notify.grouping import settle
from mlobs.notify.incident import Incident
from mlobs.notify.keeping import escalate, grouping_of, keep, page_of, save, unmute
from mlobs.notify.page import FIRING, RESOLVED
from mlobs.notify.routing import channels_of, others_than
from mlobs.settings import Settings
from mlobs.store import Store

_log = logging.getLogger("mlobs.notify")

KEPT_S = 400 * 86400.0
"""A year and a little: last year's incidents are there when this year's are looked at."""
FORGET_EVERY_S = 86400.0


def look_after(store: Store, settings: Settings, now: float) -> None:
    """One round. Costs one query while nothing is due."""
    with store.read() as connection:
        due = book.load_due(connection, now)
        late = bool(outbox.unreached(connection, now, settings.notify.fallback_after))
    for incident in due:
        try:
            with store.write() as connection:
                book.lock(connection)
                current = book.load(connection, incident.id)
                if current is not None:
                    _attend(connection, current, settings, now)
        except DBAPIError:
            raise
        except Exception:  # noqa: BLE001 - one incident must not hold the others; it is due again at the next round
            _log.exception("incident %s could not be looked after", incident.id)
    if late:
        with store.write() as connection:
            book.lock(connection)
            _fall_back(connection, settings, now)


def forget(store: Store, now: float) -> None:
    """Delete what was over `KEPT_S` ago: incidents, their messages, events. Open incidents stay, however
    old.
    """
    old = now - KEPT_S
    incidents, box, to = tables.incidents, tables.outbox, tables.deliveries
    with store.write() as connection:
        over = select(incidents.c.id).where(incidents.c.state == RESOLVED, incidents.c.changed_at < old)
        for table in (to, box, tables.timeline):
            connection.execute(delete(table).where(table.c.incident.in_(over)))
        connection.execute(delete(incidents).where(incidents.c.id.in_(over)))
        loose = tables.timeline.c.incident.is_(None) & (tables.timeline.c.at < old)
        connection.execute(delete(tables.timeline).where(loose))
        connection.execute(delete(box).where(box.c.done_at < old))
        connection.execute(delete(tables.silences).where(tables.silences.c.end < old))


def _attend(connection: Connection, incident: Incident, settings: Settings, now: float) -> None:
    resolved = settle([incident], now, grouping_of(settings.notify))
    if resolved:
        keep(connection, resolved[0], settings, now)
        return
    if incident.muted:
        incident = unmute(connection, incident, settings, now)
    incident = escalate(connection, incident, settings, now)
    save(connection, incident, settings, now)


def _fall_back(connection: Connection, settings: Settings, now: float) -> None:
    """Tell the fallback of what another channel could not deliver in time or at all."""
    fallback = channels_of(filter(None, (settings.notify.fallback,)), settings.notify)
    for row in outbox.unreached(connection, now, settings.notify.fallback_after):
        incident = book.load(connection, row.incident)
        if incident is None:  # a message that stands for many
            asked = outbox.asked(connection, row.incident)
            others: Sequence[str] = [name for name in fallback if name not in asked]
            others = others or others_than(asked, settings.notify)
            outbox.pass_on(connection, row.id, others, now)
        else:
            others = _others(connection, incident, fallback, settings)
            _tell_others(connection, incident, row, others, settings, now)
        outbox.mark_fallen(connection, row.id, now, others)


def _others(
    connection: Connection, incident: Incident, fallback: Sequence[str], settings: Settings
) -> Sequence[str]:
    """Channels to tell of an incident that one did not take; none where it has healed."""
    if incident.state == RESOLVED:
        return ()
    told = outbox.told(connection, incident.id)
    new = [name for name in fallback if name not in told]
    return new or _who_is_left(connection, incident, told, settings)


def _tell_others(
    connection: Connection,
    incident: Incident,
    row: Row[Any, Any, Any, Any],
    others: Sequence[str],
    settings: Settings,
    now: float,
) -> None:
    if not others:
        return
    page = page_of(connection, incident, settings, now)
    for name in others:
        outbox.post(connection, incident, name, FIRING, page, now)
    why = f"{row.channel} did not take it ({row.reason or 'no answer'}): {', '.join(others)} told"
    book.note(connection, incident, now, [("fallback", why)])


def _who_is_left(
    connection: Connection, incident: Incident, told: Sequence[str], settings: Settings
) -> Sequence[str]:
    """A page that has reached nobody goes to whoever is left; a ticket stays in the list of incidents."""
    if incident.severity != PAGE or outbox.reached(connection, incident.id):
        return ()
    return others_than(told, settings.notify)
