"""What the web page, the CLI and Grafana may know of the SLO engine: plain values, read from the store
alone."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from sqlalchemy import inspect, select

from mlobs.records import Alert
from mlobs.slo import schema
from mlobs.slo.policy import Tier, tiers
from mlobs.slo.status import SloStatus
from mlobs.store import Store

__all__ = ["SloStatus", "TargetStatus", "Tier", "firing", "history", "statuses", "targets", "tiers"]


@dataclass(frozen=True, slots=True)
class TargetStatus:
    name: str
    up: bool
    last_scrape: float
    """Of the last scrape that succeeded."""
    error: str


def statuses(store: Store, *, points: int = 500) -> list[SloStatus]:
    """Every objective's last status by name, each with up to `points` of its burn-down; empty before the
    first tick."""
    with store.read() as connection:
        if not inspect(connection).has_table(schema.status.name):
            return []
        rows = connection.execute(select(schema.status).order_by(schema.status.c.slo)).all()
    past = history(store, points=points)
    found = [SloStatus.from_json(row.body) for row in rows]
    return [dataclasses.replace(status, history=past.get(status.name, ())) for status in found]


def history(store: Store, *, points: int = 500) -> dict[str, tuple[tuple[float, float], ...]]:
    """By objective (time, share of budget remaining), oldest first, thinned evenly to about `points`."""
    with store.read() as connection:
        rows = connection.execute(select(schema.point).order_by(schema.point.c.at)).all()
    step = max(1, -(-len(rows) // max(1, points)))
    kept = rows[(len(rows) - 1) % step :: step] if rows else []
    series: dict[str, list[tuple[float, float]]] = {}
    for row in kept:
        for name, remaining in json.loads(row.body).items():
            series.setdefault(name, []).append((row.at, remaining))
    return {name: tuple(found) for name, found in series.items()}


def firing(store: Store) -> list[Alert]:
    """The alerts that fire."""
    with store.read() as connection:
        rows = connection.execute(select(schema.alert).where(schema.alert.c.ceased == 0)).all()
    return [Alert(**json.loads(row.body)) for row in rows]


def targets(store: Store) -> list[TargetStatus]:
    """Every scraped target, the process's own registry as `self`."""
    with store.read() as connection:
        rows = connection.execute(select(schema.target).order_by(schema.target.c.name)).all()
    return [TargetStatus(row.name, bool(row.up), row.at, row.error) for row in rows]
