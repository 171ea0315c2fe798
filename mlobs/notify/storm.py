"""When a channel would need minutes to say it all one by one, the rest is said in one message.

The most urgent few keep messages of their own; the others are listed by key in one more. It is written in
the same transaction that takes them away: what was intended once is never only in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import (
    Connection,
    Float,
    String,
    Update,
    and_,
    bindparam,
    func,
    insert,
    select,
    update,
)

from mlobs.names import PAGE
from mlobs.notify import tables
from mlobs.notify.outbox import GROUPED, PENDING, SENT, SKIPPED
from mlobs.notify.page import FIRING, RESOLVED, UPDATE, Page, decode_page, encode

MOST_WAITING = 20
"""Untried messages of one kind on one channel."""
KEPT = 5
"""Of them that leave alone, the most urgent ones."""
LISTED = 30

_box = tables.outbox
_HERE = _box.c.channel == bindparam("channel_", type_=String)
_UPDATES = and_(_HERE, _box.c.kind == UPDATE, _box.c.state == PENDING)

# Built once: to put a statement together costs more than to run it.
_UNTRIED = (
    select(_box.c.id, _box.c.rank, _box.c.page, _box.c.breach_at)
    .where(
        _box.c.channel == bindparam("channel"),
        _box.c.state == PENDING,
        _box.c.kind == bindparam("kind"),
        _box.c.attempts == 0,
        _box.c.uncertain.is_(False),
    )
    .order_by(_box.c.rank, _box.c.id)
    .with_for_update(skip_locked=True)
)


def _listed_alone() -> Update:
    whole, own, channel = _box.alias("whole"), _box.alias("own"), bindparam("channel_", type_=String)
    listed = select(whole.c.incident).where(whole.c.channel == channel, whole.c.state == GROUPED)
    told_alone = select(own.c.incident).where(own.c.channel == channel, own.c.state == SENT)
    return update(_box).where(_UPDATES, _box.c.incident.in_(listed), _box.c.incident.not_in(told_alone))


def _spread() -> Update:
    before, every = _box.alias("before"), bindparam("every", type_=Float)
    last = (
        select(func.max(before.c.done_at))
        .where(
            before.c.incident == _box.c.incident,
            before.c.channel == bindparam("channel_", type_=String),
            before.c.kind == UPDATE,
            before.c.state == SENT,
        )
        .scalar_subquery()
    )
    early = and_(_UPDATES, _box.c.attempts == 0, _box.c.due_at < last + every)
    return update(_box).where(early).values(due_at=last + every)


_LISTED_ALONE, _SPREAD = _listed_alone(), _spread()


def gather(connection: Connection, channel: str, now: float) -> int:
    """Put what is too much into one message a kind; how many were taken in."""
    taken = 0
    for kind in (FIRING, RESOLVED):
        rows = connection.execute(_UNTRIED, {"channel": channel, "kind": kind}).all()
        if len(rows) <= MOST_WAITING:
            continue
        rest = rows[KEPT:]
        number = min(row.id for row in rest)
        page = digest([decode_page(row.page) for row in rest], kind, number, now)
        connection.execute(
            insert(_box).values(
                incident=page.incident,
                channel=channel,
                kind=kind,
                dedup_key=f"mlobs-{page.incident}",
                rank=rest[0].rank,
                state=PENDING,
                page=encode(page),
                breach_at=min(row.breach_at for row in rest),
                created_at=now,
                due_at=now,
                attempts=0,
                uncertain=False,
            )
        )
        ids = [row.id for row in rest]
        for start in range(0, len(ids), 500):
            part = _box.c.id.in_(ids[start : start + 500])
            connection.execute(update(_box).where(part).values(state=GROUPED, reason="digest", done_at=now))
        taken += len(rest)
    return taken


def skip_grouped(connection: Connection, channel: str, now: float) -> int:
    """Take away the unsent updates of incidents that the channel knows from a message for many alone."""
    taken = {"channel_": channel, "state": SKIPPED, "done_at": now}
    return connection.execute(_LISTED_ALONE, taken).rowcount


def spread(connection: Connection, channel: str, every: float) -> None:
    """Let an update of an incident wait until `every` seconds after the last one: what comes meanwhile is
    taken in."""
    connection.execute(_SPREAD, {"channel_": channel, "every": every})


def digest(pages: Sequence[Page], kind: str, number: int, now: float) -> Page:
    """One page that lists `pages`, in their order."""
    first = pages[0]
    severities = Counter(one.severity for one in pages)
    parts = ", ".join(f"{count} {name}s" for name, count in sorted(severities.items()))
    lines = [f"{one.severity} {one.key}: {one.title}" for one in pages[:LISTED]]
    if len(pages) > LISTED:
        lines.append(f"and {len(pages) - LISTED} more: mlobs incidents list")
    verb = "have healed" if kind == RESOLVED else "began at about the same time"
    return Page(
        incident=f"storm-{number}",
        key=f"{first.environment}/{first.service}//storm",
        state=RESOLVED if kind == RESOLVED else FIRING,
        severity=PAGE if PAGE in severities else first.severity,
        title=f"{len(pages)} more incidents {verb}: {parts}",
        environment=first.environment,
        service=first.service,
        model="",
        at=now,
        since=min(one.since for one in pages),
        cause="storm",
        zone=first.zone,
        others=tuple(lines),
    )
