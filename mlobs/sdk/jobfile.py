"""A job's metrics between its runs: samples, how a run changes them, and their file. Pure but for the file.

The file is for the node exporter's textfile collector: it is read back before it is written, so that counters
go on and the last success stays known while runs fail. Written beside and renamed: a reader sees the old one
or the new one. Two runs of one name that end at the same moment: the later one wins.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from mlobs import names
from mlobs.sdk.meter import COUNTER, GAUGE, Family

_JOB = (names.JOB,)
_LAST = "last"  # of several workers: the one that was written last
DURATION = Family(names.JOB_DURATION, GAUGE, _JOB, "Duration of the last run.", _LAST)
RUNS = Family(names.JOB_RUNS, COUNTER, (names.JOB, names.OUTCOME), "Runs that ended, by outcome.")
ROWS = Family(names.JOB_ROWS, COUNTER, _JOB, "Rows that the job went through.")
LAST_RUN = Family(names.JOB_LAST_RUN, GAUGE, _JOB, "End of the last run, seconds since the epoch.", _LAST)
LAST_SUCCESS = Family(
    names.JOB_LAST_SUCCESS, GAUGE, _JOB, "End of the last run that was ok, seconds since the epoch.", _LAST
)
DATA = Family(
    names.JOB_DATA_TIMESTAMP, GAUGE, _JOB, "Time of the newest data used, seconds since the epoch.", _LAST
)
CHECKPOINT = Family(
    names.CHECKPOINT_TIMESTAMP,
    GAUGE,
    (names.MODEL,),
    "When the model's checkpoint was made, epoch seconds.",
    _LAST,
)
FAMILIES = (DURATION, RUNS, ROWS, LAST_RUN, LAST_SUCCESS, DATA, CHECKPOINT)

Samples = Mapping[tuple[Family, tuple[str, ...]], float]
"""Value by family and label values."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One run of a job. Times are seconds since the epoch."""

    job: str
    outcome: str
    duration_s: float
    at: float
    rows: float = 0.0
    data: float | None = None
    checkpoints: Mapping[str, float] = field(default_factory=dict)
    """When each model's checkpoint was made, by model."""


def samples_of(run: Ended) -> Samples:
    """What one run says by itself: counters are its own increments, every outcome is there."""
    job = (run.job,)
    found: dict[tuple[Family, tuple[str, ...]], float] = {
        (RUNS, (run.job, outcome)): float(outcome == run.outcome) for outcome in names.OUTCOMES
    }
    found |= {(ROWS, job): run.rows, (DURATION, job): run.duration_s, (LAST_RUN, job): run.at}
    if run.outcome == names.OK:
        found[LAST_SUCCESS, job] = run.at
    if run.data is not None:
        found[DATA, job] = run.data
    return found | {(CHECKPOINT, (model,)): at for model, at in run.checkpoints.items()}


def after(before: Samples, run: Samples) -> Samples:
    """`before` changed by a run: counters add up, gauges take the new value where there is one."""
    found = dict(before)
    for key, value in run.items():
        found[key] = value + (found.get(key, 0.0) if key[0].kind == COUNTER else 0.0)
    return found


def render(samples: Samples, service: str) -> str:
    """The Prometheus text of the samples, each with the `service` label."""
    registry = CollectorRegistry()
    registry.register(_Given(samples, service))
    return generate_latest(registry).decode()


class _Given(Collector):
    def __init__(self, samples: Samples, service: str) -> None:
        self._samples, self._service = samples, service

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            labels = [names.SERVICE, *family.labels]
            made: CounterMetricFamily | GaugeMetricFamily = (
                CounterMetricFamily(family.name, family.help, labels=labels)
                if family.kind == COUNTER
                else GaugeMetricFamily(family.name, family.help, labels=labels)
            )
            for (other, values), value in self._samples.items():
                if other is family:
                    made.add_metric([self._service, *values], value)
            if made.samples:
                yield made


def parse(text: str) -> Samples:
    """The samples that `render` wrote; others are left out. Raises ValueError for what is no such text."""
    known = {family.name: family for family in FAMILIES}
    found = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            family = known.get(sample.name)
            if family is not None:
                values = tuple(sample.labels.get(label, "") for label in family.labels)
                found[family, values] = float(sample.value)
    return found


def path_of(folder: str | os.PathLike[str], job: str) -> Path:
    """The job's file in the collector's folder: `mlobs_<job>.prom`."""
    return Path(folder) / f"mlobs_{re.sub(r'[^A-Za-z0-9_-]', '_', job)[:100]}.prom"


def read(path: Path) -> Samples:
    """What an earlier run left there, nothing where there is no file. Raises ValueError, OSError."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def write(path: Path, text: str) -> None:
    """Replace the file by one step, readable for the node exporter's own user. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
