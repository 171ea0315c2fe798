"""The `mlobs serve` process: settings in, stages wired, ticked and shown until a signal ends it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from mlobs.config import load_settings
from mlobs.config.checks import with_checks
from mlobs.drift.loop import DriftStage
from mlobs.drift.tables import SCHEMA as DRIFT_SCHEMA
from mlobs.errors import ConfigError, UsageError
from mlobs.featurelog.maskschema import logged_as
from mlobs.featurelog.reader import reader_of
from mlobs.notify.api import OnCall
from mlobs.notify.channels import build_channels
from mlobs.notify.desk import Desk
from mlobs.notify.routing import without_fallback
from mlobs.notify.tables import SCHEMA as NOTIFY_SCHEMA
from mlobs.notify.upstream import Reconciler
from mlobs.service import Service, canaries, with_own_address
from mlobs.service.compaction import Compactor
from mlobs.service.enrichers import enrichers
from mlobs.service.keptcalls import call_finder
from mlobs.service.listening import Fetcher, Ticker, bind, end_in_order, listen
from mlobs.service.paging import mount
from mlobs.settings import Settings
from mlobs.slo.canary_keep import SCHEMA as CANARY_SCHEMA
from mlobs.slo.engine import SloEngine
from mlobs.slo.remote import RemoteSlo
from mlobs.slo.schema import SCHEMA as SLO_SCHEMA
from mlobs.slo.validate import check
from mlobs.store import Store, open_store
from mlobs.web.app import create_app

SCHEMAS = (DRIFT_SCHEMA, SLO_SCHEMA, NOTIFY_SCHEMA, CANARY_SCHEMA)


def wire(settings: Settings, store: Store, fetch: Fetcher) -> Service:
    """The stages over `store`, each with what it needs and nothing more."""
    registry = CollectorRegistry()
    channels = build_channels(settings.notify)
    desk = Desk(settings, store, channels, enrichers(settings, store), registry=registry)
    upstream = settings.slo.evaluator == "prometheus"
    return Service(
        settings,
        store,
        registry,
        drift=DriftStage(settings, store, registry, logged_as=logged_as(settings.mask.schema)),
        slo=(RemoteSlo if upstream else SloEngine)(settings, store, registry, fetch),
        desk=desk,
        reconciler=Reconciler(settings, desk, fetch) if upstream else None,
    )


def check_evaluator(settings: Settings, source: str) -> None:
    """With Prometheus as the evaluator its Alertmanager must be known, for nothing else brings alerts."""
    options = settings.notify.alertmanager
    if settings.slo.evaluator != "prometheus":
        if options is not None:
            raise UsageError.of(
                f"{source}: notify.alertmanager", "slo.evaluator: prometheus", settings.slo.evaluator,
                "exactly one engine evaluates: drop notify.alertmanager, or set the evaluator",
            )  # fmt: skip
        return
    for what, value in (
        ("slo.prometheus", settings.slo.prometheus),
        ("notify.alertmanager.url", options.url if options else None),
        ("notify.alertmanager.token_file", options.token if options else None),
    ):
        if value is None:
            raise UsageError.of(
                f"{source}: {what}",
                "a value",
                "nothing",
                "slo.evaluator: prometheus needs it, see docs/paging.md",
            )


def serve(config: Path) -> None:
    """Run until SIGINT or SIGTERM. Raises MlobsError for what hinders the start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every scrape
    end_in_order()
    settings = with_checks(load_settings(config))
    check_evaluator(settings, config.name)
    problems = check(settings, config.name)
    if problems:
        raise ConfigError(*problems)
    log = logging.getLogger("mlobs.service")
    store = open_store(settings.store, SCHEMAS)
    fetch = Fetcher()
    handle = None
    try:
        store.hold()  # before the port: a second serve is told of the store that it shares, not of a port
        handle = bind(settings)
        host, port = handle.getsockname()[:2]
        settings = with_own_address(settings, host, port)
        if not settings.notify.channels:
            log.warning("nobody is paged: %s names no notify.channels", config)
        missing = without_fallback(settings.notify)
        if missing:
            log.warning("%s", missing)
        service = wire(settings, store, fetch)
        canary_log = reader_of(settings, "canaries") if settings.slo.canaries else None
        trials = canaries.Canaries(
            settings, store, fetch, service.registry, canaries.post_json,
            canary_log, service.drift.spec_of,
        )  # fmt: skip

        def tick(now: float) -> dict[str, Any]:
            """A replay's: it drives the canaries too."""
            trials.tick(now)
            return service.tick(now)

        app = create_app(settings, store, service.registry, tick, find_call=call_finder(reader_of(settings)))
        mount(app, OnCall(settings, store, service.desk), lambda: service.now)
        canaries.mount(app, trials)
        log.info("mlobs serve: http://%s:%d", host, port)
        ticker = Ticker(service.tick, service.pump, settings.slo.scrape_interval)
        compactor = Compactor(settings, service.beside, service.registry)
        try:
            compactor.start()
            if settings.clock == "wall":
                ticker.start()
                trials.start()
            listen(app, handle)
        finally:
            ticker.stop()
            trials.stop()
            if canary_log is not None:
                canary_log.close()
            compactor.stop()
            service.drift.close()
            service.desk.close()
        log.info("stopped")
    finally:
        fetch.close()
        store.close()
        if handle is not None:
            handle.close()
