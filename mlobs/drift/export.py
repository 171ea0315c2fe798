"""The metrics of the drift stage, in the registry that it is given.

Every result is there from the start at 0: a series that is born with its first error loses that error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mlobs import names
from mlobs.drift.spec import ROW_CHECKS
from mlobs.drift.state import State
from mlobs.drift.verdicts import JOINT, RESULTS, WindowVerdict
from mlobs.records import Breach, Ledger

PIPELINE = "drift"
_BAD = "bad"


Gains = dict[tuple[str, str, str, str], float]
"""By (metric, model, check or empty, result)."""


def gains_of(window: WindowVerdict, state: State | None) -> Gains:
    """What a closed unsegmented window adds to the counters: one slice, and its rows by check, weighted."""
    model = window.stream.model
    found: Gains = {(names.DRIFT_SLICES, model, "", window.result): 1.0}
    if state is not None and window.reference:
        total = state.weighted_rows
        for check in (*ROW_CHECKS, names.ANY_CHECK):
            bad = sum(w * stratum.bad_rows.get(check, 0) for w, stratum in state.strata.items())
            found[names.DATA_QUALITY_ROWS, model, check, _BAD] = float(bad)
            found[names.DATA_QUALITY_ROWS, model, check, names.OK] = max(total - bad, 0.0)
    return found


class DriftMetrics:
    """Counters of closed windows and rows, gauges of scores and breaches."""

    def __init__(self, registry: CollectorRegistry, models: Collection[str]) -> None:
        self._slices = Counter(
            names.DRIFT_SLICES.removesuffix("_total"), "Windows by the verdict of their checks.",
            [names.MODEL, names.RESULT], registry=registry,
        )  # fmt: skip
        self._rows = Counter(
            names.DATA_QUALITY_ROWS.removesuffix("_total"), "Rows by check, weighted by sampling.",
            [names.MODEL, names.CHECK, names.RESULT], registry=registry,
        )  # fmt: skip
        self._breach = Gauge(
            names.DRIFT_BREACH, "1 while a check is broken in k of the last n windows.",
            [names.MODEL, names.FEATURE, names.SEGMENT, names.SEVERITY], registry=registry,
        )  # fmt: skip
        self._since = Gauge(
            names.DRIFT_BREACH_SINCE, "Start of the first window of the run that broke the check.",
            [names.MODEL, names.FEATURE, names.SEGMENT, names.SEVERITY], registry=registry,
        )  # fmt: skip
        self._score = Gauge(
            names.DRIFT_SCORE, "Distance of the last window from the reference; no verdict.",
            [names.MODEL, names.FEATURE, names.STATISTIC, names.REFERENCE], registry=registry,
        )  # fmt: skip
        self._known: set[str] = set()
        self._shown: set[tuple[str, ...]] = set()
        for model in models:
            self.know(model)

    def know(self, model: str) -> None:
        """Bring up the model's counters at 0."""
        if model in self._known:
            return
        self._known.add(model)
        for result in RESULTS:
            self._slices.labels(model, result)
        for check in (*ROW_CHECKS, names.ANY_CHECK):
            for result in (names.OK, _BAD):
                self._rows.labels(model, check, result)

    def add(self, gains: Gains) -> None:
        """Count what closed windows gained, or what the store says they gained before this process began."""
        for (metric, model, part, result), value in gains.items():
            self.know(model)
            labels = (model, result) if metric == names.DRIFT_SLICES else (model, part, result)
            (self._slices if metric == names.DRIFT_SLICES else self._rows).labels(*labels).inc(value)

    def show(self, window: WindowVerdict) -> None:
        """The scores of an unsegmented window that was closed."""
        model = window.stream.model
        for found in window.verdicts:
            if (found.statistic == "psi" or found.feature == JOINT) and found.value is not None:
                self._score.labels(model, found.feature, found.statistic, window.reference).set(found.value)

    def breaches(self, current: Iterable[Breach]) -> None:
        """Show exactly these as 1, with their onset; what was shown before goes to 0, and has none."""
        firing: dict[tuple[str, ...], float] = {}
        for found in current:
            labels = (found.model, found.feature, found.segment, found.severity)
            firing[labels] = min(firing.get(labels, found.since), found.since)
        for gone in self._shown - firing.keys():
            self._breach.labels(*gone).set(0)
            self._since.remove(*gone)
        for broken, since in firing.items():
            self._breach.labels(*broken).set(1)
            self._since.labels(*broken).set(since)
        self._shown = set(firing)


class LedgerCollector(Collector):
    """A pipeline's account as metrics, read when they are asked for."""

    def __init__(self, account: Callable[[], Ledger]) -> None:
        self._account = account

    def describe(self) -> list[Metric]:
        """Nothing: other pipelines of the process export families of the same names."""
        return []

    def collect(self) -> Iterator[Metric]:
        account = self._account()
        labels, values = [names.PIPELINE], [account.pipeline]
        for name, text, count in (
            (names.PIPELINE_OFFERED, "Rows read.", account.offered),
            (names.PIPELINE_DELIVERED, "Rows in closed windows.", account.delivered),
        ):
            counter = CounterMetricFamily(name, text, labels=labels)
            counter.add_metric(values, count)
            yield counter
        dropped = CounterMetricFamily(
            names.PIPELINE_DROPPED, "Rows that no window took.", labels=[*labels, names.REASON]
        )
        for reason, count in account.dropped.items():
            dropped.add_metric([*values, reason], count)
        yield dropped
        for name, text, value in (
            (names.PIPELINE_QUEUED, "Rows in open windows.", account.queued),
            (names.PIPELINE_LAST_SUCCESS, "When the last tick went through.", account.last_success),
        ):
            if value is not None:
                gauge = GaugeMetricFamily(name, text, labels=labels)
                gauge.add_metric(values, value)
                yield gauge
        times = GaugeMetricFamily(
            names.PIPELINE_EVENT_TIME,
            "Newest event time that went in, that came out.",
            labels=[*labels, "end"],
        )
        for end, moment in (("in", account.event_time_in), ("out", account.event_time_out)):
            if moment is not None:
                times.add_metric([*values, end], moment)
        yield times
