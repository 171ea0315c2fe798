"""`mlobs doctor`: the configuration held against the world, one line a check, nothing changed."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlobs import names
from mlobs.config import load_settings
from mlobs.config.checks import with_checks
from mlobs.drift.mlref import load_reference
from mlobs.drift.unlike import unlike_columns
from mlobs.errors import EXIT_FINDING, EXIT_FINE, MlobsError, install_line
from mlobs.featurelog.maskschema import logged_as
from mlobs.notify.routing import without_fallback
from mlobs.secret import without_password
from mlobs.service.listening import Fetcher
from mlobs.service.serve import SCHEMAS
from mlobs.settings import Settings
from mlobs.slo.scrape import Scraper
from mlobs.slo.validate import check
from mlobs.store import open_store

FINE, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `state` is ok, warning or broken."""

    check: str
    state: str
    text: str


def doctor(config: Path, as_json: bool) -> int:
    """Print every finding; 1 if something is broken, else 0. A broken file raises (exit 2)."""
    settings = with_checks(load_settings(config))
    findings = list(examine(settings))
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
    else:
        _draw(findings)
    return EXIT_FINDING if any(finding.state == BROKEN for finding in findings) else EXIT_FINE


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in the order in which data flows."""
    yield Finding(
        "configuration", FINE, f"service {settings.service}, {len(settings.slo.objectives)} objectives"
    )
    for wrong in check(settings):
        yield Finding("objectives", BROKEN, str(wrong))
    yield _feature_log(settings)
    yield _mask(settings)
    fetch = Fetcher()
    try:
        scraper = Scraper(settings.targets, fetch, settings.base)
        for target in scraper.urls():
            yield from _target(settings, target, fetch)
        for source, problem in scraper.problems.items():
            yield Finding(f"target {without_password(source)}", BROKEN, problem)
        scraper.close()
    finally:
        fetch.close()
    if not settings.targets:
        yield Finding("targets", WARNING, "none: latency and availability are never seen; add `targets:`")
    for model in settings.models:
        yield _reference(model.name, model.reference, settings.mask.schema)
    yield _store(settings)
    yield _port(settings)
    yield from _channels(settings)


def _feature_log(settings: Settings) -> Finding:
    if settings.feature_log is None:
        return Finding(
            "feature log", WARNING, "not set: drift and data quality are not judged; add `feature_log:`"
        )
    if "://" in settings.feature_log:
        return Finding("feature log", FINE, settings.feature_log)
    folder = Path(settings.feature_log)
    if not folder.exists():
        return Finding("feature log", WARNING, f"{folder} does not exist yet: no process has logged")
    segments = sum(1 for path in folder.rglob("*") if path.is_file())
    return Finding("feature log", FINE, f"{folder}: {segments} files")


def _mask(settings: Settings) -> Finding:
    for what, path in (("schema", settings.mask.schema), ("key_file", settings.mask.key_file)):
        if path is not None and not Path(path).is_file():
            return Finding("mask", BROKEN, f"mask.{what}: no file {path}")
    if settings.mask.schema is None:
        return Finding("mask", WARNING, "no schema: strings leave as keyed hashes; add `mask: {schema: ...}`")
    return Finding("mask", FINE, str(settings.mask.schema))


def _target(settings: Settings, target: str, fetch: Fetcher) -> Iterator[Finding]:
    check = f"target {without_password(target)}"
    try:
        text = fetch(target).decode("utf-8", "replace")
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (OSError, ValueError) as problem:
        why = f"{type(problem).__name__}: {problem}"[:200]
        yield Finding(check, BROKEN, f"{why}; does the service run, and serve its metrics there?")
        return
    yield Finding(check, FINE, f"{len(samples)} samples")
    edges: dict[str, set[float]] = {}
    for sample in samples:
        if sample.name == f"{names.REQUEST_DURATION}_bucket":
            edges.setdefault(sample.labels.get(names.MODEL, ""), set()).add(float(sample.labels["le"]))
    for objective in settings.slo.objectives:
        if not objective.model or objective.sli.kind not in ("availability", "latency", "p99"):
            continue
        found = edges.get(objective.model)
        if found is None:
            yield Finding(
                check, WARNING, f"objective {objective.name}: no series of model {objective.model!r} yet"
            )
        elif objective.sli.threshold is not None and float(objective.sli.threshold) not in found:
            text = f"objective {objective.name}: {objective.sli.threshold} s is no bucket edge"
            yield Finding(check, BROKEN, f"{text}; let the service call mlobs.init with this file")


def _reference(model: str, path: str | None, schema: str | None) -> Finding:
    check = f"reference of {model}"
    if path is None:
        return Finding(
            check, WARNING, "none: its drift is not judged; `mlobs drift reference build` makes one"
        )
    try:
        reference = load_reference(Path(path).read_bytes(), path)
        masked = unlike_columns(reference.spec.columns, model, logged_as(schema))
    except OSError as problem:
        return Finding(check, BROKEN, f"{path}: {problem.strerror}")
    except MlobsError as problem:
        return Finding(check, BROKEN, str(problem))
    if masked:
        told = "; ".join(f"{name}: {why}" for name, why in list(masked.items())[:3])
        return Finding(check, WARNING, f"{len(masked)} columns are not judged: {told}")
    return Finding(check, FINE, f"{reference.rows} rows, {len(reference.spec.columns)} columns")


def _store(settings: Settings) -> Finding:
    path = settings.store.removeprefix("sqlite:///")
    if path != settings.store and not Path(path).exists():
        return Finding("store", FINE, f"{path} does not exist yet: `mlobs serve` makes it")
    try:
        open_store(settings.store, SCHEMAS).close()
    except MlobsError as problem:
        return Finding("store", BROKEN, str(problem))
    return Finding("store", FINE, "opens, schema up to date")


def _port(settings: Settings) -> Finding:
    host, _, port = settings.listen.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as handle:
        handle.settimeout(1)
        taken = handle.connect_ex((host.strip("[]"), int(port))) == 0
    if taken:
        return Finding(
            "listen", WARNING, f"something answers on {settings.listen}: perhaps `mlobs serve` itself"
        )
    return Finding("listen", FINE, f"{settings.listen} is free")


def _channels(settings: Settings) -> Iterator[Finding]:
    needs = {"slack": ("slack_sdk", "slack")}
    for name, channel in settings.notify.channels.items():
        check = f"channel {name}"
        module, extra = needs.get(channel.kind, ("", ""))
        if module and importlib.util.find_spec(module) is None:
            yield Finding(check, BROKEN, install_line(extra))
            continue
        try:
            for secret in channel.secrets.values():
                secret.reveal()
        except MlobsError as problem:
            yield Finding(check, BROKEN, str(problem))
        else:
            yield Finding(check, FINE, f"{channel.kind}; `mlobs notify test` sends a marked page through it")
    missing = without_fallback(settings.notify)
    if missing:
        yield Finding("fallback", WARNING, missing)
    if not settings.notify.channels:
        yield Finding("notify", WARNING, "no channel: nobody is paged; add `notify.channels`")


def _draw(findings: list[Finding]) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    styles = {FINE: "green", WARNING: "yellow", BROKEN: "bold red"}
    for finding in findings:
        table.add_row(
            f"[{styles[finding.state]}]{finding.state}[/]", escape(finding.check), escape(finding.text)
        )
    Console(soft_wrap=True, width=None if sys.stdout.isatty() else 240).print(table)
