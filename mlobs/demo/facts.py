"""The plain numbers of a run: requests, labels, log, cost, windows; each read from where it is kept."""

from __future__ import annotations

from collections import Counter

import httpx
from prometheus_client.parser import text_string_to_metric_families

from mlobs import names
from mlobs.demo.plan import Plan
from mlobs.demo.replay import Progress
from mlobs.drift import read as drift_read
from mlobs.durations import format_duration
from mlobs.settings import Settings
from mlobs.store import Store


def gather(store: Store, progress: Progress, service: str, plan: Plan, settings: Settings) -> dict[str, str]:
    """Name -> value, in the order in which they are told. `service` is the serving process's base URL."""
    totals = _totals(httpx.get(f"{service}/metrics/", timeout=30).raise_for_status().text)
    cost = totals[names.OVERHEAD] / max(totals[f"{names.REQUEST_DURATION}_count"], 1.0)
    windows = Counter(
        window.verdict
        for model in settings.models
        for window in drift_read.windows(store, model.name, last=10 * plan.days)
    )
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(windows.items()))
    return {
        "requests": f"{progress.requests} in {plan.days} simulated days, {progress.failed} failed",
        "labels": f"{progress.labels} arrived, {progress.unlabelled} never will (diverted flights)",
        "feature log": _ledger(totals),
        "instrumentation": f"{cost * 1e6:.0f} us of CPU a call, every call logged, all threads counted",
        "windows": f"{sum(windows.values())} of one day in New York: {verdicts}",
        "stretched": _stretched(settings),
    }


def _totals(text: str) -> dict[str, float]:
    """Every sample's sum over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def _ledger(totals: dict[str, float]) -> str:
    parts = {
        word: totals.get(name, 0.0)
        for word, name in (
            ("offered", names.PIPELINE_OFFERED),
            ("delivered", names.PIPELINE_DELIVERED),
            ("dropped", names.PIPELINE_DROPPED),
            ("queued", names.PIPELINE_QUEUED),
        )
    }
    offered, *rest = (f"{count:.0f} {word}" for word, count in parts.items())
    return f"{offered} = {' + '.join(rest)}"


def _stretched(settings: Settings) -> str:
    """What the demo's file stretches, so that a month of flights fits into minutes."""
    tiers = ", ".join(
        f"{format_duration(one.long)} and {format_duration(one.short)} for {one.budget:.0%} of the budget"
        for one in settings.slo.windows or ()
    )
    k, n = settings.drift.persistence
    day = format_duration(settings.drift.window)
    return f"windows and p99 slices of {day}; burn windows of {tiers}; a breach is {k} of {n} windows"
