"""What a canary has seen, kept in the store, so that a server that is started anew goes on from there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Column, MetaData, String, Table, Text, delete, insert, select, update

from mlobs.slo.canary import Canary
from mlobs.stats.sequential import Bet
from mlobs.store import Schema, Store

_meta = MetaData()
_kept = Table(
    "canary_state",
    _meta,
    Column("name", String, primary_key=True),
    Column("trial", Text, nullable=False),
    Column("body", Text, nullable=False),
)
"""`trial` says what is compared; under another one nothing that was seen counts. `body` is JSON."""

SCHEMA = Schema("canary", 1, _meta)


def load(store: Store, name: str, trial: str) -> Canary:
    """What was seen of this trial; nothing where it is new, or what stands there cannot be read."""
    with store.read() as connection:
        found = connection.execute(select(_kept).where(_kept.c.name == name)).first()
    if found is None or found.trial != trial:
        return Canary()
    try:
        return from_text(found.body)
    except (ValueError, TypeError, KeyError):  # of another version: it compares anew, and holds meanwhile
        return Canary()


def save(store: Store, name: str, trial: str, canary: Canary) -> None:
    """One small row, 7 kB. Raises SQLAlchemyError where the store does not take it."""
    values = {"trial": trial, "body": to_text(canary)}
    with store.write() as connection:
        if not connection.execute(update(_kept).where(_kept.c.name == name).values(values)).rowcount:
            connection.execute(insert(_kept).values(name=name, **values))


def forget(store: Store, names: Iterable[str]) -> None:
    """All but `names`: a canary that comes back later begins anew."""
    with store.write() as connection:
        connection.execute(delete(_kept).where(_kept.c.name.not_in(list(names))))


def to_text(canary: Canary) -> str:
    """Strict JSON, every float to its last bit."""
    plain = asdict(canary)
    plain["last"] = None if canary.last == -math.inf else canary.last
    return json.dumps(plain, allow_nan=False)


def from_text(text: str) -> Canary:
    """Raises ValueError, TypeError or KeyError for anything that `to_text` did not write."""
    plain = json.loads(text)
    return Canary(
        _bets(plain["harm"]),
        _bets(plain["safe"]),
        {metric: tuple(four) for metric, four in plain["totals"].items()},
        tuple(plain["durations"]),
        tuple(plain["scores"]),
        (plain["requests"][0], plain["requests"][1]),
        plain["blocks"],
        plain["missing"],
        -math.inf if plain["last"] is None else plain["last"],
    )


def _bets(book: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, tuple[Bet, ...]]:
    return {metric: tuple(_bet(each) for each in bets) for metric, bets in book.items()}


def _bet(plain: Mapping[str, Any]) -> Bet:
    found = dict(plain)
    return Bet(tuple(found.pop("null")), tuple(found.pop("alternative")), **found)
