"""The outbox: what is to be said is committed before it is sent, what became of it after.

A message is claimed with a lease, sent outside of any transaction, and recorded. A process that dies in
between leaves a claimed message whose lease ends: it is sent again, with the same key, marked as uncertain.
Within an incident and channel messages keep their order; across incidents what fires goes before what has
healed.

Every function takes an open write connection: the caller owns the transaction.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Row,
    Select,
    String,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from mlobs.names import PAGE
from mlobs.notify import tables
from mlobs.notify.book import insert_once
from mlobs.notify.incident import Incident
from mlobs.notify.page import FIRING, RESOLVED, TEST, UPDATE, Page, decode_page, encode
from mlobs.notify.retry import Outcome, wait_before

PENDING, SENDING, SENT, FAILED = "pending", "sending", "sent", "failed"
GROUPED = "grouped"
"""Said by a message that stands for many."""
SKIPPED = "skipped"
"""An update for a channel that wants none."""
UNFINISHED = (PENDING, SENDING)
LEASE_S = 60.0
NOBODY = 0.0
"""`fallback_at` of a message that was not passed on to anybody."""

_box = tables.outbox
_to = tables.deliveries
_ch = tables.channels


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that this process alone may send until its lease ends."""

    id: int
    incident: str
    channel: str
    kind: str
    dedup_key: str
    page: str
    attempts: int
    """Of before; the one that follows is not counted."""
    uncertain: bool
    """An earlier attempt may have arrived."""
    ref: str | None
    """What the channel answered to the first message of the incident."""
    breach_at: float
    wanted_at: float
    """When it was intended."""


def post(connection: Connection, incident: Incident, channel: str, kind: str, page: Page, now: float) -> bool:
    """Intend to say `kind` of `incident` on `channel`. False when an unsent message took it in instead.

    An unsent firing or update takes in the newer page; a resolved takes away an unsent update, never a
    firing. What is new since the message before is gathered, and left out of a first message.
    """
    unsent = _unsent(connection, incident.id, channel)
    if kind in (FIRING, UPDATE) and unsent is not None and unsent.kind in (FIRING, UPDATE):
        _take_in(connection, unsent, kind, incident.severity, page, now)
        return False
    if kind == RESOLVED and unsent is not None and unsent.kind == UPDATE:
        connection.execute(delete(_box).where(_box.c.id == unsent.id))
    known = connection.execute(_REF, {"incident": incident.id, "channel": channel}).first() is not None
    page = page if known else replace(page, changed=())
    connection.execute(
        _NEW_MESSAGE,
        {
            "incident": incident.id,
            "channel": channel,
            "kind": kind,
            "dedup_key": incident.dedup_key,
            "rank": _rank(kind, incident.severity),
            "state": PENDING,
            "page": encode(page),
            "breach_at": now,
            "created_at": now,
            "due_at": now,
            "attempts": 0,
            "uncertain": False,
        },
    )
    if not known:
        wanted = {"incident": incident.id, "channel": channel, "wanted_at": now}
        connection.execute(_NEW_DELIVERY, wanted)
    return True


def told(connection: Connection, incident: str) -> tuple[str, ...]:
    """Channels that were, or are to be, told of the incident."""
    rows = connection.execute(select(_to.c.channel).where(_to.c.incident == incident).order_by(_to.c.channel))
    return tuple(row.channel for row in rows)


def asked(connection: Connection, incident: str) -> frozenset[str]:
    """Channels with a message of the incident, or of what stands for many, whatever became of it."""
    rows = connection.execute(select(_box.c.channel).where(_box.c.incident == incident).distinct())
    return frozenset(row.channel for row in rows)


def reached(connection: Connection, incident: str) -> bool:
    """Whether any channel has taken a message of the incident."""
    here = and_(_to.c.incident == incident, _to.c.reached_at.is_not(None))
    return connection.execute(select(_to.c.channel).where(here)).first() is not None


def claim(
    connection: Connection, channel: str, owner: str, now: float, *, rate: float | None
) -> Claim | None:
    """The most urgent message that may leave on `channel` at `now`, leased; None when there is none.

    `rate` is the most messages a second, None for no limit. A channel that asked us to wait is left alone.
    """
    state = _channel_row(connection, channel)
    if state.blocked_until > now or (rate is not None and state.next_at > now):
        return None
    row = _most_urgent(connection, channel, now)
    if row is None:
        return None
    uncertain = row.uncertain or row.state == SENDING  # a lease that ended: nobody knows whether it went out
    lease = {"state": SENDING, "lease_owner": owner, "lease_until": now + LEASE_S, "uncertain": uncertain}
    connection.execute(_THE_MESSAGE, {"message": row.id, **lease})
    if rate is not None:
        connection.execute(_THE_CHANNEL, {"channel_": channel, "next_at": now + 1.0 / rate})
    ref = connection.execute(_REF, {"incident": row.incident, "channel": channel}).scalar()
    return Claim(
        row.id,
        row.incident,
        channel,
        row.kind,
        row.dedup_key,
        row.page,
        row.attempts,
        uncertain,
        ref,
        row.breach_at,
        row.created_at,
    )


def record(
    connection: Connection, claimed: Claim, owner: str, outcome: Outcome, now: float, rng: random.Random
) -> str:
    """Write what became of a claimed message; gives its new state.

    Does nothing to a message whose lease another process has taken over meanwhile.
    """
    values: dict[str, object] = {
        "attempts": claimed.attempts + 1,
        "reason": str(outcome.reason),
        "lease_owner": None,
        "lease_until": None,
        "uncertain": claimed.uncertain or outcome.uncertain,
    }
    wait = 0.0
    if outcome.sent:
        values |= {"state": SENT, "done_at": now}
    elif outcome.retry:
        wait = wait_before(claimed.attempts + 1, outcome, rng)
        values |= {"state": PENDING, "due_at": now + wait}
    else:
        values |= {"state": FAILED, "done_at": now}
    if connection.execute(_MINE, {"message": claimed.id, "owner": owner, **values}).rowcount == 0:
        return "taken over"
    _record_channel(connection, claimed.channel, outcome, now, wait)
    if outcome.sent:
        _record_reach(connection, claimed, outcome, now)
    return str(values["state"])


def unreached(connection: Connection, now: float, after_s: float) -> list[Row[Any, Any, Any, Any]]:
    """Firing messages (id, incident, channel, reason) that failed for good, or are unsent after `after_s`,
    and that the fallback has not heard of."""
    return list(connection.execute(_UNREACHED, {"before": now - after_s}))


def pass_on(connection: Connection, message: int, channels: Iterable[str], now: float) -> None:
    """Intend the same message for other channels."""
    row = connection.execute(select(_box).where(_box.c.id == message)).one()
    for name in channels:
        if name != row.channel:
            values = {
                column: getattr(row, column) for column in ("incident", "kind", "dedup_key", "rank", "page")
            }
            connection.execute(
                insert(_box).values(
                    **values,
                    channel=name,
                    state=PENDING,
                    breach_at=row.breach_at,
                    created_at=now,
                    due_at=now,
                    attempts=0,
                    uncertain=False,
                )
            )


def mark_fallen(connection: Connection, message: int, now: float, others: Sequence[str]) -> None:
    """The fallback has heard of it: `others` are told, or nobody needs to be, or nobody is left."""
    values = {"fallback_at": now if others else NOBODY}
    connection.execute(update(_box).where(_box.c.id == message).values(values))


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is unfinished on one channel."""

    channel: str
    count: int
    oldest: float
    """When the longest waiting one was intended."""


def due(connection: Connection, channels: Iterable[str], now: float) -> set[str]:
    """Those of `channels` with a message that may leave at `now`, as far as its own wait is concerned."""
    return {
        name
        for name in channels
        if any(connection.execute(query, {"channel": name, "now": now}).first() for query in _ANY)
    }


def waiting(connection: Connection) -> list[Waiting]:
    """Unfinished messages by channel; costs a look at each of them."""
    rows = connection.execute(
        select(_box.c.channel, func.count().label("number"), func.min(_box.c.created_at).label("oldest"))
        .where(_box.c.state.in_(UNFINISHED))
        .group_by(_box.c.channel)
    )
    return [Waiting(row.channel, row.number, row.oldest) for row in rows]


def oldest_news(connection: Connection) -> dict[str, tuple[float, str]]:
    """By channel when the oldest unfinished firing or resolved message was intended, and the reason of the
    channel's last failure: updates may wait."""
    rows = connection.execute(
        select(
            _box.c.channel, func.min(_box.c.created_at).label("oldest"), func.max(_ch.c.reason).label("why")
        )
        .outerjoin(_ch, _ch.c.name == _box.c.channel)
        .where(_box.c.state.in_(UNFINISHED), _box.c.kind != UPDATE)
        .group_by(_box.c.channel)
    )
    return {row.channel: (row.oldest, row.why or "not tried") for row in rows}


def counts(connection: Connection) -> dict[tuple[str, str], int]:
    """Messages by state and last reason, all that ever were."""
    rows = connection.execute(
        select(_box.c.state, _box.c.reason, func.count().label("number")).group_by(
            _box.c.state, _box.c.reason
        )
    )
    return {(row.state, row.reason or ""): row.number for row in rows}


def skip(connection: Connection, channel: str, now: float) -> int:
    """Take the unsent updates away from a channel that wants none: firing and resolved say it all there."""
    taken = {"channel_": channel, "state": SKIPPED, "done_at": now}
    return connection.execute(_UPDATES, taken).rowcount


def release(connection: Connection, owner: str | None = None) -> int:
    """Give back what others (or `owner`) had claimed: at the start, when this process alone holds the store.

    Such messages may have arrived: they are uncertain.
    """
    held = _box.c.state == SENDING
    if owner is not None:
        held = and_(held, _box.c.lease_owner == owner)
    given = update(_box).where(held).values(state=PENDING, lease_owner=None, lease_until=None, uncertain=True)
    return connection.execute(given).rowcount


def _take_in(
    connection: Connection,
    unsent: Row[Any, Any, Any, Any, Any],
    kind: str,
    severity: str,
    page: Page,
    now: float,
) -> None:
    """Let an unsent message say what `page` says; the louder kind of the two remains."""
    before = decode_page(unsent.page).changed
    first = unsent.kind == FIRING and not before  # whoever gets it has not heard of the incident
    changed = () if first else tuple(dict.fromkeys((*before, *page.changed)))
    louder = FIRING if FIRING in (kind, unsent.kind) else UPDATE
    connection.execute(
        update(_box)
        .where(_box.c.id == unsent.id)
        .values(
            page=encode(replace(page, changed=changed)),
            rank=min(unsent.rank, _rank(kind, severity)),
            kind=louder,
            due_at=now if louder != unsent.kind else unsent.due_at,  # it is no update any more that may wait
        )
    )


def _unsent(connection: Connection, incident: str, channel: str) -> Row[Any, Any, Any, Any, Any] | None:
    """The last pending message of the incident on the channel, locked: who claims it meanwhile has it, and we
    see that.
    """
    return connection.execute(_UNSENT, {"incident": incident, "channel": channel}).first()


_HERE = _box.c.channel == bindparam("channel", type_=String)
_NOW = bindparam("now", type_=Float)
_READY = (
    and_(_HERE, _box.c.state == PENDING, _box.c.due_at <= _NOW),
    and_(_HERE, _box.c.state == SENDING, _box.c.lease_until <= _NOW),
)
"""What may leave on a channel. Two conditions and not one with `or`: each is read in the order of its index
and ends at its first row, however many thousands wait behind it."""


def _first(ready: ColumnElement[bool]) -> Select[Any]:
    earlier = _box.alias("earlier")
    blocked = (
        select(earlier.c.id)
        .where(
            earlier.c.incident == _box.c.incident,
            earlier.c.channel == _box.c.channel,
            earlier.c.id < _box.c.id,
            earlier.c.state.in_(UNFINISHED),
        )
        .exists()
    )
    return (
        select(_box)
        .where(ready, ~blocked)
        .order_by(_box.c.rank, _box.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=_box)
    )


# Built once: to put such a statement together costs more than to run it. An update sets the columns that
# `execute` has values for; what its row is found by has a name that is no column's.
_FIRST = tuple(_first(ready) for ready in _READY)
_ANY = tuple(select(_box.c.id).where(ready).limit(1) for ready in _READY)
_THE_MESSAGE = update(_box).where(_box.c.id == bindparam("message"))
_UPDATES = update(_box).where(
    _box.c.channel == bindparam("channel_"), _box.c.kind == UPDATE, _box.c.state == PENDING
)
_MINE = _THE_MESSAGE.where(_box.c.lease_owner == bindparam("owner"), _box.c.state == SENDING)
_THE_CHANNEL = update(_ch).where(_ch.c.name == bindparam("channel_"))
_PACE = select(_ch.c.next_at, _ch.c.blocked_until).where(_ch.c.name == bindparam("channel")).with_for_update()
_FAILING = select(_ch.c.failures, _ch.c.failing_since).where(_ch.c.name == bindparam("channel"))
_REF = select(_to.c.ref, _to.c.reached_at).where(
    _to.c.incident == bindparam("incident"), _to.c.channel == bindparam("channel")
)
_THE_DELIVERY = update(_to).where(
    _to.c.incident == bindparam("incident_"), _to.c.channel == bindparam("channel_")
)
_NEW_MESSAGE, _NEW_DELIVERY = insert(_box), insert(_to)
_UNSENT = (
    select(_box.c.id, _box.c.kind, _box.c.rank, _box.c.page, _box.c.due_at)
    .where(_box.c.incident == bindparam("incident"), _HERE, _box.c.state == PENDING)
    .order_by(_box.c.id.desc())
    .limit(1)
    .with_for_update()
)
_LATE = and_(_box.c.state.in_(UNFINISHED), _box.c.created_at <= bindparam("before"))
_UNREACHED = (
    select(_box.c.id, _box.c.incident, _box.c.channel, _box.c.reason)
    .where(_box.c.kind == FIRING, _box.c.fallback_at.is_(None), or_(_LATE, _box.c.state == FAILED))
    .order_by(_box.c.rank, _box.c.id)
)


def _most_urgent(connection: Connection, channel: str, now: float) -> Row[Any] | None:
    here = {"channel": channel, "now": now}
    found = [row for query in _FIRST if (row := connection.execute(query, here).first()) is not None]
    return min(found, key=lambda row: (row.rank, row.id), default=None)


def _channel_row(connection: Connection, channel: str) -> Row[Any, Any]:
    """The channel's state, locked until the transaction ends where the server has several writers."""
    row = connection.execute(_PACE, {"channel": channel}).first()
    if row is None:
        insert_once(connection, _ch, name=channel, next_at=0.0, blocked_until=0.0, failures=0)
        row = connection.execute(_PACE, {"channel": channel}).one()
    return row


def _record_channel(connection: Connection, channel: str, outcome: Outcome, now: float, wait: float) -> None:
    values: dict[str, object] = {
        "failures": 0,
        "failing_since": None,
        "last_success": now,
        "reason": None,
        "blocked_until": 0.0,
    }
    if not outcome.sent:
        row = connection.execute(_FAILING, {"channel": channel}).one()
        since = now if row.failing_since is None else row.failing_since
        values = {"failures": row.failures + 1, "failing_since": since, "reason": str(outcome.reason)}
        if outcome.whole_channel:
            values["blocked_until"] = now + wait
    connection.execute(_THE_CHANNEL, {"channel_": channel, **values})


def _record_reach(connection: Connection, claimed: Claim, outcome: Outcome, now: float) -> None:
    here = {"incident": claimed.incident, "channel": claimed.channel}
    row = connection.execute(_REF, here).first()
    if row is None:
        return
    values = {
        "reached_at": row.reached_at if row.reached_at is not None else now,
        "ref": outcome.ref if outcome.ref is not None else row.ref,
    }
    connection.execute(_THE_DELIVERY, {"incident_": claimed.incident, "channel_": claimed.channel, **values})


def _rank(kind: str, severity: str) -> int:
    """Order of urgency: pages, tickets, healed, updates."""
    if kind in (FIRING, TEST):
        return 0 if severity == PAGE else 1
    return 2 if kind == RESOLVED else 3
