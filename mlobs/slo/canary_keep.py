"""What a canary has seen, kept in the store, so that a server that is started anew goes on from there."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
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

_LOG = ""
"""No canary's name: the row of how far the feature log was read; its trial is where the log is."""

SCHEMA = Schema("canary", 1, _meta)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was seen of a trial: of the counters, and of the rows of the feature log (JSON's terms)."""

    canary: Canary = field(default_factory=Canary)
    sheet: Mapping[str, Any] | None = None


def load(store: Store, name: str, trial: str) -> Kept:
    """What was seen of this trial; nothing where it is new, or what stands there cannot be read."""
    body = _body(store, name, trial)
    try:
        return Kept() if body is None else from_text(body)
    except (ValueError, TypeError, KeyError):  # of another version: it compares anew, and holds meanwhile
        return Kept()


def load_cursor(store: Store, source: str) -> bytes | None:
    """How far the feature log at `source` was read; None where it was not."""
    body = _body(store, _LOG, source)
    try:
        return None if body is None else base64.b64decode(body, validate=True)
    except ValueError:
        return None


def save(store: Store, trials: Iterable[tuple[str, str, str]], source: str, cursor: bytes | None) -> None:
    """(name, trial, `to_text`) of every canary, and how far the log was read, in one transaction: a row of
    the log is counted once, whatever is killed. Some 10 kB each. Raises SQLAlchemyError where the store does
    not take it."""
    rows = list(trials)
    if cursor is not None:
        rows.append((_LOG, source, base64.b64encode(cursor).decode("ascii")))
    with store.write() as connection:
        for name, trial, body in rows:
            values = {"trial": trial, "body": body}
            if not connection.execute(update(_kept).where(_kept.c.name == name).values(values)).rowcount:
                connection.execute(insert(_kept).values(name=name, **values))


def _body(store: Store, name: str, trial: str) -> str | None:
    with store.read() as connection:
        found = connection.execute(select(_kept).where(_kept.c.name == name)).first()
    return None if found is None or found.trial != trial else str(found.body)


def forget(store: Store, names: Iterable[str]) -> None:
    """All but `names`: a canary that comes back later begins anew; without any the log is not followed."""
    kept = list(names)
    if kept:
        kept.append(_LOG)
    with store.write() as connection:
        connection.execute(delete(_kept).where(_kept.c.name.not_in(kept)))


def to_text(canary: Canary, sheet: Mapping[str, Any] | None = None) -> str:
    """Strict JSON, every float to its last bit."""
    plain = asdict(canary) | {"sheet": sheet}
    plain["last"] = None if canary.last == -math.inf else canary.last
    plain["rows_until"] = None if canary.rows_until == -math.inf else canary.rows_until
    return json.dumps(plain, allow_nan=False)


def from_text(text: str) -> Kept:
    """Raises ValueError, TypeError or KeyError for anything that `to_text` did not write."""
    plain = json.loads(text)
    canary = Canary(
        _bets(plain["harm"]),
        _bets(plain["safe"]),
        {metric: tuple(four) for metric, four in plain["totals"].items()},
        tuple(plain["durations"]),
        tuple(plain["decisions"]),
        tuple(plain["scores"]),
        (plain["requests"][0], plain["requests"][1]),
        plain["blocks"],
        plain["missing"],
        -math.inf if plain["last"] is None else plain["last"],
        -math.inf if plain["rows_until"] is None else plain["rows_until"],
    )
    return Kept(canary, plain["sheet"])


def _bets(book: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, tuple[Bet, ...]]:
    return {metric: tuple(_bet(each) for each in bets) for metric, bets in book.items()}


def _bet(plain: Mapping[str, Any]) -> Bet:
    found = dict(plain)
    return Bet(tuple(found.pop("null")), tuple(found.pop("alternative")), **found)
