"""The accounts of the pipelines in this process, out of the metrics that they show. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric

from mlobs import names
from mlobs.records import Ledger

_COUNTS = {
    names.PIPELINE_OFFERED: "offered",
    names.PIPELINE_DELIVERED: "delivered",
    names.PIPELINE_QUEUED: "queued",
    names.PIPELINE_RETRIED: "retried",
    names.PIPELINE_SAMPLED_OUT: "sampled_out",
}


def ledgers(families: Iterable[Metric]) -> list[Ledger]:
    """Every pipeline that says what it was offered, by name."""
    counts: dict[str, dict[str, int]] = {}
    dropped: dict[str, dict[str, int]] = {}
    for family in families:
        if not family.name.startswith("mlobs_pipeline"):
            continue
        for sample in family.samples:
            pipeline = sample.labels.get(names.PIPELINE, "")
            if sample.name in _COUNTS:
                counts.setdefault(pipeline, {})[_COUNTS[sample.name]] = int(sample.value)
            elif sample.name == names.PIPELINE_DROPPED:
                reason = sample.labels.get(names.REASON, "")
                dropped.setdefault(pipeline, {})[reason] = int(sample.value)
    return [
        Ledger(
            pipeline=pipeline,
            offered=found["offered"],
            delivered=found.get("delivered", 0),
            dropped=dropped.get(pipeline, {}),
            queued=found.get("queued", 0),
            retried=found.get("retried", 0),
            sampled_out=found.get("sampled_out", 0),
        )
        for pipeline, found in sorted(counts.items())
        if "offered" in found
    ]
