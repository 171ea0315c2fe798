"""This process's own registry, read like any other target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry


def own_samples(registry: CollectorRegistry) -> Iterable[tuple[str, float]]:
    """The registry's samples, in the spelling that the exposition would give them."""
    for family in registry.collect():
        for sample in family.samples:
            yield _spelled(sample.name, sample.labels), float(sample.value)


def _spelled(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    inside = ",".join(
        '{}="{}"'.format(label, value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\""))
        for label, value in labels.items()
    )
    return f"{name}{{{inside}}}"
