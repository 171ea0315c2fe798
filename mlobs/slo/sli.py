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
from mlobs.settings import ObjectiveSettings

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
    gauge: Selector | None = None
    """Each look at it is an event instead; bad when `gauge_bad` says so."""
    gauge_op: str = ""
    gauge_bound: float = 0.0
    part: str = ""
    """Label by which spending is attributed."""

    @property
    def selectors(self) -> tuple[Selector, ...]:
        terms = (*self.bad, *self.total, *self.unjudged)
        found = [term.selector for term in terms]
        return tuple(found if self.gauge is None else [*found, self.gauge])


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
            part=names.MODEL_VERSION,
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
            part=names.MODEL_VERSION,
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
    raise ValueError(f"unknown SLI kind {sli.kind!r}")


def _base(objective: ObjectiveSettings) -> tuple[Matcher, ...]:
    return (Matcher(names.MODEL, "=", objective.model),) if objective.model else ()
