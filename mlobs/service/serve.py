"""The `mlobs serve` process: settings in, stages wired, ticked and shown until a signal ends it."""

from __future__ import annotations

import logging
from pathlib import Path

from prometheus_client import CollectorRegistry

from mlobs.config import load_settings
from mlobs.drift.loop import DriftStage
from mlobs.drift.tables import SCHEMA as DRIFT_SCHEMA
from mlobs.errors import UsageError
from mlobs.featurelog.reader import LogReader
from mlobs.notify.channels import build_channels
from mlobs.notify.desk import Desk
from mlobs.notify.tables import SCHEMA as NOTIFY_SCHEMA
from mlobs.records import FeatureRecord
from mlobs.service import Service, with_own_address
from mlobs.service.enrichers import enrichers
from mlobs.service.listening import Fetcher, Ticker, bind, listen
from mlobs.settings import Settings
from mlobs.slo.engine import SloEngine
from mlobs.slo.schema import SCHEMA as SLO_SCHEMA
from mlobs.store import Store, open_store
from mlobs.web.app import create_app

SCHEMAS = (DRIFT_SCHEMA, SLO_SCHEMA, NOTIFY_SCHEMA)


def wire(settings: Settings, store: Store, fetch: Fetcher) -> Service:
    """The stages over `store`, each with what it needs and nothing more."""
    registry = CollectorRegistry()
    return Service(
        settings,
        store,
        registry,
        drift=DriftStage(settings, store, registry),
        slo=SloEngine(settings, store, registry, fetch),
        desk=Desk(settings, store, build_channels(settings.notify), enrichers(settings, store)),
    )


def serve(config: Path) -> None:
    """Run until SIGINT or SIGTERM. Raises MlobsError for what hinders the start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every scrape
    settings = load_settings(config)
    if settings.slo.evaluator != "embedded":
        raise UsageError.of(
            f"{config.name}: slo.evaluator", "embedded", settings.slo.evaluator,
            "set it to embedded; `mlobs slo rules` writes the same objectives for a Prometheus of yours",
        )  # fmt: skip
    handle = bind(settings)
    host, port = handle.getsockname()[:2]
    settings = with_own_address(settings, host, port)
    store = open_store(settings.store, SCHEMAS)
    fetch = Fetcher()
    try:
        store.hold()
        service = wire(settings, store, fetch)
        reader = LogReader(settings.feature_log) if settings.feature_log else None

        def find_call(key: str) -> FeatureRecord | None:
            found = reader.find(trace_ids=[key], prediction_ids=[key], limit=1) if reader is not None else []
            return found[0] if found else None

        app = create_app(settings, store, service.registry, service.tick, find_call=find_call)
        logging.getLogger("mlobs.service").info("mlobs serve: http://%s:%d", host, port)
        ticker = Ticker(service.tick, service.pump, settings.slo.scrape_interval)
        if settings.clock == "wall":
            ticker.start()
        listen(app, handle)
        ticker.stop()
    finally:
        fetch.close()
        store.close()
        handle.close()
