"""The PromQL of the dashboard. Pure text; metric names come from `names`, user text stays inside its quotes.

Grafana replaces `$name` anywhere in a query before Prometheus sees it: a dollar of the user's is written as
the character class `[$]`, which it leaves alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from mlobs import names
from mlobs.durations import format_duration
from mlobs.slo.sli import exactly, quoted

RATE: Final = "$__rate_interval"
"""Grafana's window for `rate`: at least four scrapes."""

MODEL: Final = f'{names.MODEL}=~"$model"'
"""The dashboard's own variable."""

_COUNT = names.REQUEST_DURATION + "_count"
_BUCKET = names.REQUEST_DURATION + "_bucket"
_STAGE_SUM = names.STAGE_DURATION + "_sum"
_STAGE_COUNT = names.STAGE_DURATION + "_count"
_STAGE_BUCKET = names.STAGE_DURATION + "_bucket"


def one(label: str, value: str) -> str:
    """`label="value"`."""
    return f"{label}={quoted(value)}" if "$" not in value else any_of(label, [value])


def any_of(label: str, values: Sequence[str]) -> str:
    """`label=~"a|b"` that matches these values alone; of no values, nothing but the empty one."""
    pattern = "|".join(exactly(value).replace("\\$", "[$]") for value in values)
    return f"{label}=~{quoted(pattern)}"


def selector(metric: str, *matchers: str) -> str:
    inside = ",".join(matcher for matcher in matchers if matcher)
    return f"{metric}{{{inside}}}"


def rate(metric: str, *matchers: str) -> str:
    return f"rate({selector(metric, *matchers)}[{RATE}])"


class Requests:
    """Queries on the serving process, of one service."""

    def __init__(self, service: str) -> None:
        self._own = (one(names.SERVICE, service), MODEL)

    def rate_by_outcome(self) -> str:
        return f"sum by ({names.OUTCOME}) ({rate(_COUNT, *self._own)})"

    def error_share(self) -> str:
        """Failed out of answered; a cancelled call is neither."""
        failed = rate(_COUNT, *self._own, one(names.OUTCOME, names.ERROR))
        answered = rate(_COUNT, *self._own, f"{names.OUTCOME}!={quoted(names.CANCELLED)}")
        return f"sum by ({names.MODEL}) ({failed}) / sum by ({names.MODEL}) ({answered})"

    def quantile(self, q: str) -> str:
        """Seconds, over the calls that did not fail: interpolated within its bucket."""
        served = f"{names.OUTCOME}!={quoted(names.ERROR)}"
        return f"histogram_quantile({q}, sum by (le) ({rate(_BUCKET, *self._own, served)}))"

    def in_flight(self) -> str:
        return f"sum by ({names.MODEL}) ({selector(names.IN_FLIGHT, *self._own)})"

    def versions(self) -> str:
        by = f"{names.MODEL}, {names.MODEL_VERSION}"
        return f"sum by ({by}) ({rate(_COUNT, *self._own)})"

    def stage_mean(self) -> str:
        total, count = rate(_STAGE_SUM, *self._own), rate(_STAGE_COUNT, *self._own)
        return f"sum by ({names.STAGE}) ({total}) / sum by ({names.STAGE}) ({count})"

    def stage_quantile(self, q: str) -> str:
        return f"histogram_quantile({q}, sum by (le, {names.STAGE}) ({rate(_STAGE_BUCKET, *self._own)}))"

    def overhead(self) -> str:
        """Our own CPU seconds a call."""
        ours = f"sum({rate(names.OVERHEAD, self._own[0])})"
        return f"{ours} / sum({rate(_COUNT, self._own[0])})"


class Budgets:
    """Queries on the objectives of one service: the gauges of `mlobs serve`, or the recorded rules where
    Prometheus evaluates."""

    def __init__(self, service: str, evaluator: str) -> None:
        self._recorded = evaluator == "prometheus"
        self._service = one("sloth_service", service)
        self.label = "sloth_slo" if self._recorded else names.SLO
        """Label that carries the objective's name."""

    def left(self, slos: Sequence[str]) -> str:
        if self._recorded:
            return selector(names.RULE_PERIOD_BUDGET_REMAINING, self._service, any_of(self.label, slos))
        return selector(names.BUDGET_REMAINING, any_of(self.label, slos))

    def burn(self, slo: str, windows: Sequence[float]) -> list[tuple[str, str]]:
        """(query, legend) of the burn rate by window."""
        if not self._recorded:
            return [(selector(names.BURN_RATE, one(self.label, slo)), f"{{{{{names.WINDOW}}}}}")]
        mine = (self._service, one(self.label, slo))
        budget = selector(names.RULE_ERROR_BUDGET, *mine)
        spoken = [format_duration(Decimal(str(window))) for window in windows]
        errors = [selector(names.RULE_SLI_ERROR.format(window=window), *mine) for window in spoken]
        return [
            (f"{error} / on (sloth_id) group_left () {budget}", window)
            for error, window in zip(errors, spoken, strict=True)
        ]


def drift_score() -> str:
    return f"max by ({names.FEATURE}) ({selector(names.DRIFT_SCORE, MODEL)})"


def drift_breach() -> str:
    by = f"{names.FEATURE}, {names.SEGMENT}, {names.SEVERITY}"
    return f"max by ({by}) ({selector(names.DRIFT_BREACH, MODEL)})"


def bad_row_share() -> str:
    """Share of rows that fail each check; `any` counts a row once however many it fails."""
    bad = rate(names.DATA_QUALITY_ROWS, MODEL, f"{names.RESULT}!={quoted(names.OK)}")
    every = rate(names.DATA_QUALITY_ROWS, MODEL)
    return f"sum by ({names.CHECK}) ({bad}) / sum by ({names.CHECK}) ({every})"


def slices() -> str:
    return f"sum by ({names.RESULT}) (increase({selector(names.DRIFT_SLICES, MODEL)}[{RATE}]))"


def pipeline_rate(metric: str, *by: str) -> str:
    labels = ", ".join((names.PIPELINE, *by))
    return f"sum by ({labels}) (rate({metric}[{RATE}]))"


def pipeline_now(metric: str) -> str:
    return f"max by ({names.PIPELINE}) ({metric})"


def pipeline_silence() -> str:
    return f"time() - max by ({names.PIPELINE}) ({names.PIPELINE_LAST_SUCCESS})"


def pipeline_gap() -> str:
    """Offered minus delivered, dropped and queued: 0, or the account does not add up."""

    def total(metric: str) -> str:
        return f"sum by ({names.PIPELINE}) ({metric})"

    offered = total(names.PIPELINE_OFFERED)
    # A pipeline that dropped nothing yet may have no such series.
    dropped = f"({total(names.PIPELINE_DROPPED)} or 0 * {offered})"
    return f"{offered} - {total(names.PIPELINE_DELIVERED)} - {dropped} - {total(names.PIPELINE_QUEUED)}"
