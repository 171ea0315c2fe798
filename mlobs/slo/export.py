"""The engine's own metrics: a collector that shows what the last evaluation found, and nothing where
nothing is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mlobs import names
from mlobs.slo.status import SloStatus


class SloCollector(Collector):
    """`mlobs_slo_error_budget_remaining_ratio{slo}` and `mlobs_slo_burn_rate{slo,window}`; absent, never
    NaN."""

    def __init__(self) -> None:
        self._statuses: Sequence[SloStatus] = ()

    def show(self, statuses: Sequence[SloStatus]) -> None:
        self._statuses = tuple(statuses)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        left = GaugeMetricFamily(
            names.BUDGET_REMAINING,
            "Share of the period's error budget that is left; negative when overspent.",
            labels=[names.SLO, names.MODEL],
        )  # fmt: skip
        burn = GaugeMetricFamily(
            names.BURN_RATE, "How many times faster than allowed the budget goes, by window.",
            labels=[names.SLO, names.MODEL, names.WINDOW],
        )  # fmt: skip
        for status in self._statuses:
            if status.remaining is not None:
                left.add_metric([status.name, status.model], status.remaining)
            for window, rate in status.burn_rates.items():
                if rate is not None:
                    burn.add_metric([status.name, status.model, window], rate)
        return [left, burn]
