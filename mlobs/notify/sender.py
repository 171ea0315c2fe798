"""Claim, send, record: what one channel's turn consists of."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from mlobs.errors import MlobsError
from mlobs.notify import book, outbox, storm
from mlobs.notify.channels.base import Channel, Message
from mlobs.notify.page import Page, decode_page
from mlobs.notify.retry import Outcome, Reason
from mlobs.notify.text import clean
from mlobs.store import Store

_log = logging.getLogger("mlobs.notify")


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt, as `Desk.pump` reports it."""

    incident: str
    channel: str
    kind: str
    at: float
    ok: bool
    reason: str
    attempt: int
    """From 1."""
    page: Page
    latency_s: float
    """From the breach being received to this attempt."""


@dataclass(slots=True)
class Sender:
    """Sends for this process. `owner` tells its leases from those of another `serve`."""

    store: Store
    owner: str
    rng: random.Random
    paced: bool
    """False on a driven clock, where an hour passes in one tick and a pace per second means nothing."""

    def run(self, channel: Channel, clock: Callable[[], float], most: int = 10_000) -> list[Sent]:
        """Send what is due on `channel`, most urgent first, until the channel asks to wait or nothing is
        left.

        `clock` gives the event time; a send may take seconds of it.
        """
        done: list[Sent] = []
        rate = channel.rate if self.paced else None
        if not channel.updates:
            with self.store.write() as connection:
                outbox.skip(connection, channel.name, clock())
        elif channel.update_every > 0:
            with self.store.write() as connection:
                storm.spread(connection, channel.name, channel.update_every)
        if channel.digests and rate is not None:
            with self.store.write() as connection:
                storm.gather(connection, channel.name, clock())
                storm.skip_grouped(connection, channel.name, clock())
        while len(done) < most:
            with self.store.write() as connection:
                claimed = outbox.claim(connection, channel.name, self.owner, clock(), rate=rate)
            if claimed is None:
                break
            done.append(self._send(channel, claimed, clock))
        return done

    def _send(self, channel: Channel, claimed: outbox.Claim, clock: Callable[[], float]) -> Sent:
        page = decode_page(claimed.page)
        began = clock()
        message = Message(
            claimed.kind,
            page,
            claimed.dedup_key,
            claimed.id,
            began,
            claimed.ref,
            claimed.uncertain,
            claimed.wanted_at,
        )
        outcome = attempt(channel, message)
        ended = clock()
        with self.store.write() as connection:
            state = outbox.record(connection, claimed, self.owner, outcome, ended, self.rng)
            self._note(connection, claimed, channel, outcome, state, ended)
        return Sent(
            claimed.incident,
            channel.name,
            claimed.kind,
            ended,
            outcome.sent,
            str(outcome.reason),
            claimed.attempts + 1,
            page,
            ended - claimed.breach_at,
        )

    def _note(
        self,
        connection: Connection,
        claimed: outbox.Claim,
        channel: Channel,
        outcome: Outcome,
        state: str,
        now: float,
    ) -> None:
        """Deliveries and final failures stand in the timeline; a failure that is tried again stands in the
        outbox.
        """
        incident = book.load(connection, claimed.incident)
        if incident is None or state not in (outbox.SENT, outbox.FAILED):
            return
        kind = "sent" if outcome.sent else "not sent"
        why = "" if outcome.sent else f": {outcome.reason}"
        book.note(connection, incident, now, [(kind, f"{claimed.kind} to {channel.name}{why}")])


def attempt(channel: Channel, message: Message) -> Outcome:
    """`channel.send` with its faults turned into outcomes; details are cleaned, secrets are never in them."""
    try:
        return channel.send(message)
    except MlobsError as problem:
        where = problem.problems[0].where
        _log.warning("channel %s: %s", channel.name, clean(str(problem)))
        # a missing token file may be mounted a moment later
        return Outcome(False, Reason.CONFIGURATION, retry=True, whole_channel=True, detail=where)
    except Exception as problem:  # noqa: BLE001 - a fault of ours must not lose the message
        _log.warning("channel %s failed: %s", channel.name, type(problem).__name__)
        return Outcome(
            False,
            Reason.INTERNAL,
            retry=True,
            uncertain=True,
            whole_channel=True,
            detail=type(problem).__name__,
        )
