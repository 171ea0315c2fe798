"""Service level indicators: which samples are bad events and which are all events.

An indicator is data: sums of selectors over metrics. The embedded evaluator matches them against scraped
samples and the rules are printed from them, so that both count the same things.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from mlobs import names
from mlobs.objectives import quality_better
from mlobs.settings import ObjectiveSettings, SliSettings

WINDOW = "$window"
"""Stands for the window in a user's own PromQL."""

_ONE = r"""\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*,?"""
_MATCHER = re.compile(_ONE)
_SELECTOR = re.compile(
    rf"""([a-zA-Z_:][\w:]*)\s*(?:\{{((?:{re.sub(r"[(](?=[^?])", "(?:", _ONE)})*)\s*\}})?"""
)

REQUESTS = names.REQUEST_DURATION + "_count"
BUCKETS = names.REQUEST_DURATION + "_bucket"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label condition, with PromQL's meaning: an absent label is the empty string, `=~` matches the
    whole."""

    label: str
    op: str
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        have = labels.get(self.label, "")
        if self.op == "=":
            return have == self.value
        if self.op == "!=":
            return have != self.value
        found = re.fullmatch(self.value, have) is not None
        return found if self.op == "=~" else not found

    def promql(self) -> str:
        return f"{self.label}{self.op}{quoted(self.value)}"


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric and its label conditions."""

    metric: str
    matchers: tuple[Matcher, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(matcher.matches(labels) for matcher in self.matchers)

    def promql(self, suffix: str = "") -> str:
        """`metric{a="b"}` and `suffix`, for example `[5m]`."""
        inside = ",".join(matcher.promql() for matcher in self.matchers)
        return f"{self.metric}{{{inside}}}{suffix}" if inside else f"{self.metric}{suffix}"


@dataclass(frozen=True, slots=True)
class Term:
    """A selector that is added (`sign` 1) or taken away (-1)."""

    selector: Selector
    sign: int = 1


@dataclass(frozen=True, slots=True)
class Gauge:
    """A level, and when it is bad. Of several series the worst one speaks."""

    selector: Selector
    op: str
    """`>` or `<`: bad beyond the bound."""
    bound: float
    timestamp: bool = False
    """The series holds a time, and its age is the level."""

    def bad(self, value: float, now: float) -> bool:
        level = now - value if self.timestamp else value
        return level > self.bound if self.op == ">" else level < self.bound


@dataclass(frozen=True, slots=True)
class Indicator:
    """What an objective counts. `bad` and `total` are sums of counters, or of a gauge's checks."""

    kind: str
    cause: str
    """The alert's cause: what people call this trouble."""
    unit: str
    """What one event is: `requests`, `slices`, `rows`, `labels`, `checks`."""
    bad: tuple[Term, ...]
    total: tuple[Term, ...]
    sliced: bool = False
    """The counts are judged slice by slice, and the slices are the events."""
    unjudged: tuple[Term, ...] = ()
    """Slices that could not be judged: neither good nor bad, but too many of them are an absence."""
    gauge: Gauge | None = None
    """Each look at it is an event instead."""
    of: tuple[str, ...] = ()
    """Other objectives: each evaluation is an event, bad if the last 5 minutes of any of them broke its
    promise."""
    queries: tuple[str, str, str] | None = None
    """(`bad` or `good`, its expression, the total's), with `$window`: PromQL that Prometheus alone can
    evaluate."""

    @property
    def selectors(self) -> tuple[Selector, ...]:
        terms = (*self.bad, *self.total, *self.unjudged)
        found = [term.selector for term in terms]
        return tuple(found if self.gauge is None else [*found, self.gauge.selector])


def quoted(text: str) -> str:
    """`text` as a PromQL string: user text cannot leave it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def exactly(text: str) -> str:
    """A regular expression (RE2 and Python) that matches `text` alone."""
    return re.sub(r"([.+*?^${}()|\[\]\\])", r"\\\1", text)


def edge_pattern(threshold: Decimal) -> str:
    """Regular expression for an `le` label: Prometheus 3 writes `1.0` where 2 wrote `1`; both are matched."""
    number = float(threshold)
    spellings = {repr(number), format(number, "g"), format(Decimal(repr(number)).normalize(), "f")}
    spellings |= {spelling + ".0" for spelling in spellings if re.fullmatch(r"\d+", spelling)}
    return "|".join(exactly(spelling) for spelling in sorted(spellings))


def indicator(objective: ObjectiveSettings) -> Indicator:
    """The indicator of `objective`; its kind was checked when the configuration was read."""
    sli, base = objective.sli, _base(objective)
    served = Matcher(names.OUTCOME, "!=", names.ERROR)
    if sli.kind == "availability":
        return Indicator(
            sli.kind, "availability", "requests",
            bad=(Term(Selector(REQUESTS, (*base, Matcher(names.OUTCOME, "=", names.ERROR)))),),
            # A cancelled call is neither good nor bad: the client left.
            total=(Term(Selector(REQUESTS, (*base, Matcher(names.OUTCOME, "!=", names.CANCELLED)))),),
        )  # fmt: skip
    if sli.kind in ("latency", "p99"):
        assert sli.threshold is not None
        fast = Matcher("le", "=~", edge_pattern(sli.threshold))
        # Calls that failed are availability's; a cancelled one counts, or clients that give up would hide
        # slowness.
        total = Term(Selector(REQUESTS, (*base, served)))
        return Indicator(
            sli.kind, "latency", "slices" if sli.kind == "p99" else "requests",
            bad=(total, Term(Selector(BUCKETS, (*base, served, fast)), -1)),
            total=(total,),
            sliced=sli.kind == "p99",
        )  # fmt: skip
    if sli.kind == "data_quality":
        check = Matcher(names.CHECK, "=", sli.check or names.ANY_CHECK)
        bad = Matcher(names.RESULT, "!=", names.OK)
        return Indicator(
            sli.kind, "data_quality", "rows",
            bad=(Term(Selector(names.DATA_QUALITY_ROWS, (*base, check, bad))),),
            total=(Term(Selector(names.DATA_QUALITY_ROWS, (*base, check))),),
        )  # fmt: skip
    if sli.kind == "drift":
        judged = Matcher(names.RESULT, "=~", "ok|drifted")
        rest = Matcher(names.RESULT, "!~", "ok|drifted")
        return Indicator(
            sli.kind, "drift", "slices",
            bad=(Term(Selector(names.DRIFT_SLICES, (*base, Matcher(names.RESULT, "=", "drifted")))),),
            total=(Term(Selector(names.DRIFT_SLICES, (*base, judged))),),
            unjudged=(Term(Selector(names.DRIFT_SLICES, (*base, rest))),),
        )  # fmt: skip
    if sli.kind == "good_prediction":
        bad = Matcher(names.RESULT, "!=", names.OK)
        return Indicator(
            sli.kind, "good_prediction", "requests",
            bad=(Term(Selector(names.GOOD_PREDICTIONS, (*base, bad))),),
            total=(Term(Selector(names.GOOD_PREDICTIONS, base)),),
        )  # fmt: skip
    if sli.kind == "freshness":
        return _freshness(sli, base)
    if sli.kind == "model_quality":
        metric = Matcher(names.METRIC, "=", sli.metric or "")
        selector = Selector(names.MODEL_QUALITY, (*base, metric))
        better = quality_better(sli.metric or "", sli.better, sli.threshold)
        return _checked(
            sli.kind, Gauge(selector, ">" if better == "lower" else "<", float(sli.threshold or 0))
        )
    if sli.kind == "boolean":
        return _checked(sli.kind, Gauge(parse_selector(sli.metric or ""), "<", 1.0))
    if sli.kind == "ratio":
        return _ratio(sli)
    if sli.kind == "composite":
        return Indicator(sli.kind, sli.kind, "checks", bad=(), total=(), of=sli.of)
    raise ValueError(f"unknown SLI kind {sli.kind!r}")


def _checked(kind: str, gauge: Gauge) -> Indicator:
    return Indicator(kind, kind, "checks", bad=(), total=(), gauge=gauge)


def _freshness(sli: SliSettings, base: tuple[Matcher, ...]) -> Indicator:
    """Age of data: a histogram of ages counts requests, a timestamp or an age counts checks."""
    metric, bound = sli.metric or names.FEATURE_AGE, sli.threshold or Decimal(0)
    if metric == names.FEATURE_AGE:
        total = Term(Selector(metric + "_count", base))
        fresh = Selector(metric + "_bucket", (*base, Matcher("le", "=~", edge_pattern(bound))))
        return Indicator("freshness", "freshness", "requests", bad=(total, Term(fresh, -1)), total=(total,))
    selector = parse_selector(metric)
    if selector == Selector(metric) and metric.startswith("mlobs_"):
        selector = Selector(metric, base)
    timestamp = "timestamp_seconds" in selector.metric
    return _checked("freshness", Gauge(selector, ">", float(bound), timestamp))


def _ratio(sli: SliSettings) -> Indicator:
    which, part = ("bad", sli.bad) if sli.bad is not None else ("good", sli.good)
    part, total = part or "", sli.total or ""
    if WINDOW in part or WINDOW in total:
        return Indicator("ratio", "ratio", "events", bad=(), total=(), queries=(which, part, total))
    whole = Term(parse_selector(total))
    some = Term(parse_selector(part))
    bad = (some,) if which == "bad" else (whole, Term(some.selector, -1))
    return Indicator("ratio", "ratio", "events", bad=bad, total=(whole,))


def parse_selector(text: str) -> Selector:
    """A PromQL instant selector, `metric{label="value",...}`. Raises ValueError for anything more than
    that."""
    found = _SELECTOR.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            f'{text[:60]!r} is no selector: write metric{{label="value"}}, or an expression with [{WINDOW}]'
        )
    matchers = tuple(
        Matcher(label, op, value.replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\"))
        for label, op, value in _MATCHER.findall(found[2] or "")
    )
    for matcher in matchers:
        if "~" in matcher.op:
            re.compile(matcher.value)
    return Selector(found[1], matchers)


def _base(objective: ObjectiveSettings) -> tuple[Matcher, ...]:
    return (Matcher(names.MODEL, "=", objective.model),) if objective.model else ()
