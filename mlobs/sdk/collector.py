"""Cells -> metric families, as a Collector in any prometheus-client registry. Runs at a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from mlobs import names
from mlobs.records import Ledger
from mlobs.sdk import good, meter
from mlobs.sdk.buckets import Bounds
from mlobs.sdk.exemplars import Noted, by_bucket
from mlobs.sdk.native import make_native
from mlobs.sdk.protobuf import NativeFamily
from mlobs.sdk.runtime import Runtime
from mlobs.sdk.view import View, view_of


def _edge(value: float) -> str:
    return repr(value)


class CellCollector(Collector):
    """Everything that the SDK measures, each sample with the `service` label."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry then asks for no sample at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        runtime = self._runtime()
        yield from families(runtime, view_of(runtime))


def families(runtime: Runtime, view: View) -> Iterator[Metric]:
    """What `view` holds, in the forms that every format knows."""
    yield from _requests(runtime, view)
    yield from _plain(view)
    yield from _process(view)
    yield from _ledgers(view)


def make_registry(runtime: Runtime) -> CollectorRegistry:
    """A registry with nothing in it but what `runtime` measures."""
    registry = CollectorRegistry()
    registry.register(CellCollector(lambda: runtime))
    return registry


def _requests(runtime: Runtime, view: View) -> Iterator[Metric]:
    service = view.service
    labels = (names.SERVICE, *meter.REQUEST.labels)
    durations = HistogramMetricFamily(meter.REQUEST.name, meter.REQUEST.help, labels=[*labels, names.OUTCOME])
    in_flight = GaugeMetricFamily(names.IN_FLIGHT, "Calls that began and have not ended.", labels=labels)
    info = GaugeMetricFamily(names.MODEL_INFO, "1 for each model and version that is served.", labels=labels)
    predictions = CounterMetricFamily(meter.GOOD.name, meter.GOOD.help, labels=[*labels, names.RESULT])
    everything = view.blocks
    apart: dict[tuple[str, ...], dict[str, float]] = {}
    for key, cells, _ in everything:
        if key.family == meter.GOOD:
            apart.setdefault(key.values[:-1], {})[key.values[-1]] = cells[0]
    for key, cells, bounds in everything:
        if key.family != meter.REQUEST or bounds is None:
            continue
        block = list(cells)
        finished = 0.0
        by_outcome: dict[str, list[float]] = {}
        for place, outcome in enumerate(names.OUTCOMES):
            at = 1 + place * (bounds.size + 1)
            counts = block[at + 1 : at + 1 + bounds.size]
            finished += sum(counts)
            by_outcome[outcome] = counts
            exemplars = by_bucket(view.exemplars.get((*key.values, outcome), ()), bounds.classic)
            _add_histogram(durations, (service, *key.values, outcome), block[at], counts, bounds, exemplars)
        in_flight.add_metric((service, *key.values), max(0.0, block[0] - finished))
        if key in view.served:
            info.add_metric((service, *key.values), 1.0)
        threshold = runtime.settings.good_threshold(key.values[0])
        for result, count in good.results(by_outcome, bounds, threshold, apart.get(key.values, {})).items():
            shown = _never_less(runtime, view, key.values, result, threshold, count)
            predictions.add_metric((service, *key.values, result), shown)
    yield durations
    yield predictions
    yield in_flight
    yield info


_DIFFERENCES = {names.OK: meter.GOOD_OK, good.SLOW: meter.GOOD_SLOW}


def _never_less(
    runtime: Runtime, view: View, values: tuple[str, ...], result: str, threshold: float | None, count: float
) -> float:
    """`count`, or what any worker showed before, by the same threshold, if that was more.

    It is calls minus spoiled ones, and calls end between the reading of the two: a little less the next time
    would be a reset of the counter.
    """
    family = _DIFFERENCES.get(result)
    if family is None:
        return count
    key = meter.Key(family, (*values, repr(threshold)))
    cells = runtime.meter.block(family, key.values)
    cells[0] = max(count, cells[0], view.most.get(key, 0.0))
    return cells[0]


def _add_histogram(
    family: HistogramMetricFamily,
    values: tuple[str, ...],
    total: float,
    counts: list[float],
    bounds: Bounds,
    exemplars: Mapping[int, Noted] | None = None,
) -> None:
    edges = [*(_edge(edge) for edge in bounds.classic), "+Inf"]
    buckets: list[Any] = list(zip(edges, bounds.cumulative(counts), strict=True))
    for place, noted in (exemplars or {}).items():
        buckets[place] = (*buckets[place], _exemplar(noted))
    family.add_metric(values, buckets=buckets, sum_value=total)


def native_families(view: View) -> Iterator[NativeFamily]:
    """The durations once more as native histograms.

    A family of their own: Prometheus 2.42 drops the classic buckets of a family that has both forms.
    """
    service, name = view.service, names.REQUEST_DURATION_NATIVE
    series = []
    for key, cells, bounds in view.blocks:
        if key.family != meter.REQUEST or bounds is None:
            continue
        block = list(cells)
        for place, outcome in enumerate(names.OUTCOMES):
            at = 1 + place * (bounds.size + 1)
            values = (service, *key.values, outcome)
            labels = dict(zip((names.SERVICE, *meter.REQUEST.labels, names.OUTCOME), values, strict=True))
            noted = by_bucket(view.exemplars.get((*key.values, outcome), ()), bounds.classic).values()
            exemplars = tuple(map(_exemplar, sorted(noted, key=lambda one: one.at)))
            counts = block[at + 1 : at + 1 + bounds.size]
            series.append((labels, make_native(counts, block[at], bounds), exemplars))
    yield NativeFamily(name, meter.REQUEST.help, tuple(series))


def _exemplar(noted: Noted) -> Exemplar:
    return Exemplar({"trace_id": noted.trace_id, "span_id": noted.span_id}, noted.value, noted.at)


def _plain(view: View) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for key, cells, bounds in view.blocks:
        family = key.family
        if family.kind in (meter.REQUESTS, meter.SPOILED):
            continue
        labels = [names.SERVICE, *family.labels]
        values = (view.service, *key.values)
        found = families.get(family.name)
        if family.kind == meter.HISTOGRAM:
            if found is None:
                found = families[family.name] = HistogramMetricFamily(family.name, family.help, labels=labels)
            assert isinstance(found, HistogramMetricFamily)
            assert bounds is not None
            block = list(cells)
            _add_histogram(found, values, block[0], block[1:], bounds)
        elif family.kind == meter.COUNTER:
            if found is None:
                found = families[family.name] = CounterMetricFamily(family.name, family.help, labels=labels)
            assert isinstance(found, CounterMetricFamily)
            found.add_metric(values, cells[0])
        else:
            if found is None:
                found = families[family.name] = GaugeMetricFamily(family.name, family.help, labels=labels)
            assert isinstance(found, GaugeMetricFamily)
            found.add_metric(values, cells[0])
    yield from families.values()


def _process(view: View) -> Iterator[Metric]:
    service = view.service
    start = GaugeMetricFamily(
        names.PROCESS_START,
        "Start of this process, of the first of several workers, seconds since the epoch.",
        labels=[names.SERVICE],
    )
    start.add_metric((service,), view.started)
    yield start
    yield _counter(names.OVERHEAD, "CPU seconds that mlobs itself spent.", service, view.overhead)
    for name, text, label, counts in (
        (names.INTERNAL_ERRORS, "Failures of mlobs that the guard swallowed, by place.", names.REASON,
         view.errors),
        (names.LABEL_OVERFLOW, "Look-ups beyond the cap, counted under __other__.", names.METRIC,
         view.overflow),
    ):  # fmt: skip
        family = CounterMetricFamily(name, text, labels=[names.SERVICE, label])
        for value, count in counts.items():
            family.add_metric((service, value), count)
        yield family


def _counter(name: str, text: str, service: str, value: float) -> Metric:
    family = CounterMetricFamily(name, text, labels=[names.SERVICE])
    family.add_metric((service,), value)
    return family


def _ledgers(view: View) -> Iterator[Metric]:
    """Each family once, however many pipelines there are: OpenMetrics refuses a name that comes twice."""
    families: dict[str, Metric] = {}
    for ledger in view.ledgers:
        for family in ledger_families(ledger, view.service):
            known = families.setdefault(family.name, family)
            if known is not family:
                known.samples += family.samples
    yield from families.values()


def ledger_families(ledger: Ledger, service: str) -> Iterator[Metric]:
    """A pipeline's account as metrics: offered = delivered + dropped{reason} + queued."""
    labels = [names.SERVICE, names.PIPELINE]
    values = (service, ledger.pipeline)
    counters: Mapping[str, tuple[str, float]] = {
        names.PIPELINE_OFFERED: ("Handed to the pipeline.", ledger.offered),
        names.PIPELINE_DELIVERED: ("Arrived at its destination.", ledger.delivered),
        names.PIPELINE_RETRIED: ("Attempts that were repeated.", ledger.retried),
        names.PIPELINE_SAMPLED_OUT: ("Decided against before the queue.", ledger.sampled_out),
    }
    for name, (text, count) in counters.items():
        family = CounterMetricFamily(name, text, labels=labels)
        family.add_metric(values, count)
        yield family
    dropped = CounterMetricFamily(names.PIPELINE_DROPPED, "Lost, by reason.", labels=[*labels, names.REASON])
    for reason, count in ledger.dropped.items():
        dropped.add_metric((*values, reason), count)
    yield dropped
    gauges: Mapping[str, tuple[str, float | None]] = {
        names.PIPELINE_QUEUED: ("Waiting in the pipeline.", ledger.queued),
        names.PIPELINE_OLDEST_AGE: ("Age of the oldest that waits.", ledger.oldest_age_s),
        names.PIPELINE_LAST_SUCCESS: ("When something last arrived.", ledger.last_success),
    }
    for name, (text, value) in gauges.items():
        if value is not None:
            gauge = GaugeMetricFamily(name, text, labels=labels)
            gauge.add_metric(values, value)
            yield gauge
    times = GaugeMetricFamily(
        names.PIPELINE_EVENT_TIME, "Newest event time that went in, that came out.", labels=[*labels, "end"]
    )
    for end, at in (("in", ledger.event_time_in), ("out", ledger.event_time_out)):
        if at is not None:
            times.add_metric((*values, end), at)
    yield times
