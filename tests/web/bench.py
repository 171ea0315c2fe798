"""All stages over one store, a made-up day of traffic a tick: what pages and dashboard are tried over."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from prometheus_client import CollectorRegistry

from mlobs.drift.loop import DriftStage
from mlobs.drift.mlref import save_reference
from mlobs.drift.reference import Slicing, build_reference
from mlobs.drift.tables import SCHEMA as DRIFT
from mlobs.notify.desk import Desk
from mlobs.notify.tables import SCHEMA as NOTIFY
from mlobs.service.enrichers import features
from mlobs.settings import (
    ChannelSettings,
    DriftSettings,
    ModelSettings,
    NotifySettings,
    ObjectiveSettings,
    Settings,
    SliSettings,
    SloSettings,
)
from mlobs.slo.engine import SloEngine
from mlobs.slo.schema import SCHEMA as SLO
from mlobs.store import open_store
from tests.drift.traffic import DAY, ScriptedLog, day_table, records, reference_table
from tests.notify.desks import Told
from tests.slo.world import Service

UP = ObjectiveSettings("up", SliSettings("availability"), Decimal("0.999"), model="m")
P99 = ObjectiveSettings("p99", SliSettings("p99", Decimal("0.1")), Decimal("0.99"), model="m")
DRIFTING = ObjectiveSettings("drift", SliSettings("drift"), Decimal("0.9"), model="m")
BAD_DAYS = range(4, 8)


class Bench:
    """All stages over one store, a day a tick."""

    def __init__(self, folder: Path) -> None:
        reference = build_reference(reference_table(), "ref", slicing=Slicing(day="day"))
        save_reference(reference, folder / "m.mlref")
        self.settings = Settings(
            "fraud-api",
            base=str(folder),
            models=(ModelSettings("m", "m.mlref", runbook="https://runbooks.example/m"),),
            targets=("http://fraud:8000/metrics",),
            drift=DriftSettings(window=DAY, min_rows=100),
            slo=SloSettings(objectives=(UP, P99, DRIFTING), slice=DAY),
            notify=NotifySettings(channels={"oncall": ChannelSettings("oncall", "webhook")}),
            clock="driven",
        )
        self.log, self.service, self.registry = ScriptedLog(), Service("m", 0.0), CollectorRegistry()
        self.store = open_store(f"sqlite:///{folder}/state.db", [DRIFT, SLO, NOTIFY])
        self.drift = DriftStage(self.settings, self.store, self.registry, self.log)
        self.slo = SloEngine(self.settings, self.store, self.registry, lambda url: self.service.text())
        told = {"oncall": Told()}
        self.desk = Desk(
            self.settings,
            self.store,
            told,
            [features(self.settings, self.store)],
            rng=random.Random(7),
            inline=True,
        )

    def tick(self, now: float) -> dict[str, Any]:
        day = round(now / DAY) - 1
        table = day_table(day)
        if day in BAD_DAYS:
            place = table.schema.names.index("temp")
            table = table.set_column(place, "temp", pc.multiply(pc.subtract(table["temp"], 32.0), 5 / 9))
        self.log.add("m", records(table, day * DAY))
        self.service.run(ok=1000, error=3 if day == 1 else 0)
        self.drift.tick(now)
        alerts = self.slo.tick(now)
        self.desk.receive(alerts, now)
        self.desk.pump(now)
        return {"now": now, "alerts": len(alerts)}
