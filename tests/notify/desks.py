"""A desk on a store in memory or a file, channels that answer as told, alerts in one line."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from mlobs.notify.channels.base import Message
from mlobs.notify.compose import cleaned_parts
from mlobs.notify.desk import Desk
from mlobs.notify.enrich import Enricher
from mlobs.notify.grouping import Grouping, absorb
from mlobs.notify.incident import Incident
from mlobs.notify.page import PageParts
from mlobs.notify.retry import Outcome, sent
from mlobs.notify.tables import SCHEMA
from mlobs.records import Alert
from mlobs.settings import (
    ChannelSettings,
    ModelSettings,
    NotifySettings,
    ObjectiveSettings,
    RouteSettings,
    Settings,
    SliSettings,
)
from mlobs.store import Store, open_store

T0 = 1_363_755_600.0  # 2013-03-20 05:00 UTC


@dataclass
class Told:
    """A channel that keeps what it is given and answers what it is told to."""

    name: str = "oncall"
    updates: bool = True
    update_every: float = 0.0
    rate: float | None = None
    digests: bool = False
    answer: Callable[[Message], Outcome] = field(default=lambda message: sent())
    kind: str = "webhook"
    got: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> Outcome:
        self.got.append(message)
        return self.answer(message)

    @property
    def kinds(self) -> list[str]:
        return [one.kind for one in self.got]


def make_settings(*names: str, routes: Sequence[RouteSettings] = (), **more: object) -> Settings:
    """Settings with a channel of each name; `more` goes to NotifySettings."""
    channels = {name: ChannelSettings(name, "webhook") for name in names or ("oncall",)}
    return Settings(
        service="fraud-api",
        environment="prod",
        public_url="https://mlobs.example",
        models=(ModelSettings("fraud", runbook="https://runbooks.example/fraud"),),
        notify=NotifySettings(channels=channels, routes=tuple(routes), **more),  # type: ignore[arg-type]
    )


def with_objective(settings: Settings, name: str, runbook: str) -> Settings:
    objective = ObjectiveSettings(name, SliSettings("p99", Decimal("0.1")), Decimal("0.99"), runbook=runbook)
    return replace(settings, slo=replace(settings.slo, objectives=(objective,)))


def make_store(path: Path | None = None) -> Store:
    return open_store(f"sqlite:///{path}" if path else "sqlite:///:memory:", [SCHEMA])


def make_desk(
    *channels: Told,
    store: Store | None = None,
    settings: Settings | None = None,
    enrichers: Sequence[Enricher] = (),
    seed: int = 7,
    inline: bool = True,
) -> Desk:
    told = channels or (Told(),)
    return Desk(
        settings or make_settings(*(one.name for one in told)),
        store or make_store(),
        {one.name: one for one in told},
        enrichers,
        rng=random.Random(seed),
        inline=inline,
    )


def an_alert(cause: str = "latency", at: float = T0, **more: object) -> Alert:
    values: dict[str, object] = {
        "name": f"fraud-{cause}",
        "cause": cause,
        "severity": "page",
        "firing": True,
        "since": at,
        "at": at,
        "service": "fraud-api",
        "model": "fraud",
        "environment": "prod",
        "slo": f"fraud-{cause}",
        "burn_rate": 14.4,
        "budget_remaining": 0.31,
        "long_window_s": 3600.0,
        "short_window_s": 300.0,
        "bad": 42.0,
        "total": 1000.0,
    } | more
    return Alert(**values)  # type: ignore[arg-type]


def ceased(alert: Alert, at: float) -> Alert:
    return replace(alert, firing=False, since=at, at=at)


def an_incident(*alerts: Alert, parts: PageParts | None = None) -> Incident:
    """The one incident that these alerts make."""
    (change,) = absorb([], alerts or [an_alert()], T0, Grouping())
    return replace(change.incident, parts=cleaned_parts(parts or PageParts()))
