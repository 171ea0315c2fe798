"""The expressions that the rules are made of, printed from the same data that the embedded evaluator counts
by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal

from mlobs import names
from mlobs.durations import format_duration
from mlobs.slo import timeslice
from mlobs.slo.policy import Gates, Tier
from mlobs.slo.sli import Gauge, Indicator, Term, exactly, quoted

EVENTS = "mlobs:slo_events:increase"
"""Recorded counts of an objective's events, by `sloth_window`; `events` is `total`, `bad`, and `good` where
that is what the raw series count."""
SUMS = "mlobs:slo_events:sum"
"""The same of windows beyond the raw ones: sums of the recorded counts."""
REQUESTS = "mlobs:slo_requests:increase"
"""Recorded requests of a sliced objective, below its slices, by the same labels."""
SLICE = "mlobs:slo_slice:bad"
"""1 for a bad slice, 0 for a good one, nothing for an empty one."""
RATIO = "slo:sli_error:ratio_rate{window}"

_LONGEST_RAW = 6 * 3600.0
"""Windows up to here read raw samples, longer ones recorded increases: 13,000 samples instead of 380,000."""
_CONTINUITY = "1.2"
"""With it the normal approximation with its skewness term names the exact critical count, or one beside it,
for every number of requests up to 60,000."""


def window(seconds: float) -> str:
    """`5m`, `1h`, `30d`: as rule names and PromQL spell it."""
    return format_duration(Decimal(str(seconds)))


def raw(length: float) -> bool:
    """Whether the window is short enough to be read from raw samples."""
    return length <= _LONGEST_RAW


def increases(terms: Sequence[Term], length: float) -> str:
    """The increase of the terms' counters over a window."""
    return _signed([f"sum(increase({term.selector.promql(f'[{window(length)}]')}))" for term in terms], terms)


def present(terms: Sequence[Term]) -> str:
    """Zero as long as the series are there at all."""
    return f"0 * count({terms[0].selector.promql()})"


def _signed(parts: Sequence[str], terms: Sequence[Term]) -> str:
    text = parts[0]
    for part, term in zip(parts[1:], terms[1:], strict=True):
        text += f" {'+' if term.sign > 0 else '-'} {part}"
    return text


def events(indicator: Indicator, length: float) -> str:
    """Two series, told apart by `events`: all events of the window, and the bad or the good ones of them."""
    if indicator.queries is not None:
        which, part, whole = (text.replace("$window", window(length)) for text in indicator.queries)
        return f"{_named(f'sum({part})', which)}\nor\n{_named(f'sum({whole})', 'total')}"
    if indicator.sliced or indicator.gauge is not None:
        raise ValueError("slices and checks are counted for all objectives at once: see slice_events")
    total = increases(indicator.total, length)
    if len(indicator.bad) == 2:
        fast = indicator.bad[1].selector.promql(f"[{window(length)}]")
        return f"{_named(f'sum(increase({fast}))', 'good')}\nor\n{_named(total, 'total')}"
    # An error series that nobody initialised is born with its first error: until then none is zero.
    bad = f"({increases(indicator.bad, length)}) or {present(indicator.total)}"
    return f"{_named(bad, 'bad')}\nor\n{_named(total, 'total')}"


def windowed(expressions: Mapping[float, str]) -> str:
    """One expression for several windows, each told by `sloth_window`."""
    return "\nor\n".join(
        f"{_named(expression, window(length), 'sloth_window')}" for length, expression in expressions.items()
    )


def slice_requests(indicator: Indicator, length: float) -> str:
    """Requests of a sliced objective in a window: all of them, and the fast ones."""
    return events(dataclasses.replace(indicator, sliced=False), length)


def slice_events(length: float, scope: str) -> str:
    """The same two series, of the slices that have been judged, for every sliced objective at once."""
    slices = f"{SLICE}{{{scope}}}[{window(length)}]"
    bad = _named(f"sum_over_time({slices})", "bad")
    total = _named(f"count_over_time({slices})", "total")
    # Idle is zero, and not absent; checks are never idle.
    idle = f"0 * {_counted(60.0, scope, 'good', REQUESTS)}"
    return f"{bad}\nor\n{total}\nor\n{_named(idle, 'bad')}\nor\n{_named(idle, 'total')}"


def counts_good(indicator: Indicator) -> bool:
    """Whether its good events are recorded: the bad ones follow for all objectives at once."""
    if indicator.queries is not None:
        return indicator.queries[0] == "good"
    return len(indicator.bad) == 2 and not indicator.sliced


def bad_events(scope: str) -> str:
    """The bad events of every objective that counts its good ones; the rule's label says `bad`."""
    total, good = (
        f'sum without (events) ({EVENTS}{{{scope},events="{which}"}})' for which in ("total", "good")
    )
    return f"{total} - {good}"


def recorded(length: float) -> str:
    """Name under which the counts of a window are recorded."""
    return EVENTS if raw(length) else SUMS


def selected(name: str, scope: str, length: float, which: str) -> str:
    """A recorded count of one window."""
    return f'{name}{{{scope},events="{which}",sloth_window="{window(length)}"}}'


def _named(expression: str, value: str, label: str = "events") -> str:
    return f'label_replace({expression}, "{label}", "{value}", "", "")'


def check_bad(gauge: Gauge) -> str:
    """1 if the worst of the gauge's series is beyond its bound, else 0; nothing if there is none."""
    level = gauge.selector.promql()
    return f"max({f'(time() - {level})' if gauge.timestamp else level} {gauge.op} bool {gauge.bound:g})"


def composite_bad(identities: Sequence[str]) -> str:
    """1 if any member's last 5 minutes broke its promise, else 0; nothing while a member has no events."""
    members = f"{{sloth_id=~{quoted('|'.join(exactly(identity) for identity in identities))}}}"
    five = RATIO.format(window="5m")
    broken = f"{five}{members} > bool on (sloth_id) group_left () slo:error_budget:ratio{members}"
    return f"max({broken}) and count({five}{members}) == {len(identities)}"


def slice_bad(length: float, selector: str) -> str:
    """1 if the slice that ends now is bad, 0 if it is good, nothing if it is empty (timeslice.py says the
    rule)."""
    spans = [count * length for count in timeslice.growth(length)]
    totals = [_counted(span, selector, "total", REQUESTS) for span in spans]
    slows = [
        f"({total} - {_counted(span, selector, 'good', REQUESTS)})"
        for span, total in zip(spans, totals, strict=True)
    ]
    # The shortest span that holds enough decides: a longer one speaks only where the shorter ones are too
    # thin.
    evidence = f"({_refuted(slows[-1], totals[-1])})"
    for slow, total in zip(slows[-2::-1], totals[-2::-1], strict=True):
        enough = f"{total} >= {timeslice.ENOUGH}"
        evidence = f"(({_refuted(slow, total)} and {enough})\nor\n({evidence} unless {enough}))"
    bad = f"({slows[0]} > {timeslice.SLOW_SHARE} * {totals[0]})\nand\n{evidence}"
    return f"(({bad}) * 0 + 1)\nor\n(({totals[0]} > 0) * 0)"


def _refuted(slow: str, total: str) -> str:
    share, exact = timeslice.SLOW_SHARE, timeslice.EXACT_FROM
    spread = share * (1 - share)
    margin = f"2.3263 * sqrt({spread:.6g} * {total}) + {_CONTINUITY}"
    return f"{slow} > {share} * {total} + ({margin}) * ({total} < bool {exact})"


def mostly_unjudged(indicator: Indicator, length: float) -> str:
    """Where more of a window's slices were left unjudged than were judged, and at least two; the value is by
    how many."""
    span = window(length) if raw(length) else f"{window(length)}:5m"
    left, judged = (
        f"sum(increase({terms[0].selector.promql(f'[{span}]')}))"
        for terms in (indicator.unjudged, indicator.total)
    )
    # Whole numbers that `increase` stretches: half of one decides.
    return f"{left} - ({judged} or {present(indicator.unjudged)}) > 0.5\nand {left} > 1.5"


def long_events(length: float, scope: str) -> str:
    """Counts of a window beyond the raw ones, for every objective at once: tiles of 5 minutes, or of an
    hour for a whole period, so that nothing is averaged and nothing counted twice."""
    tile = "1h" if length > 7 * 86400.0 else "5m"
    tiles = f'{EVENTS}{{{scope},events=~"bad|total",sloth_window="{tile}"}}'
    return f"sum_over_time({tiles}[{window(length)}:{tile}])"


def _counted(length: float, scope: str, which: str, name: str = "") -> str:
    """By objective the counts of one window."""
    counts = selected(name or recorded(length), scope, length, which)
    return f"sum without (events, sloth_window) ({counts})"


def ratio(length: float, scope: str) -> str:
    """Bad share of every objective; no sample where there were no events, never NaN."""
    bad, total = (
        f"sum without (events) ({selected(recorded(length), scope, length, which)})"
        for which in ("bad", "total")
    )
    return f"{bad}\n/\n({total} > 0)"


def coverage(length: float, scope: str) -> str:
    """Share of the window for which counts are there, in [0, 1]."""
    step, tiles = next(
        (step, round(length / seconds))
        for step, seconds in (("5m", 300.0), ("30m", 1800.0), ("1h", 3600.0), ("1d", 86400.0))
        if length / seconds <= 24 or seconds == 86400.0
    )
    counts = f"{selected(EVENTS, scope, 300.0, 'total')}[{window(length)}:{step}]"
    return f"clamp_max(sum without (events, sloth_window) (count_over_time({counts})) / {tiles}, 1)"


def lived(length: float, scope: str) -> str:
    """Share of a period since its first counts, in (0, 1]: to the hour, as its tiles are, and rounded up."""
    counts = f"timestamp({selected(EVENTS, scope, 300.0, 'total')})[{window(length)}:1h]"
    age = f"time() - sum without (events, sloth_window) (min_over_time({counts})) + 3600"
    return f"clamp_max(({age}) / {length:.0f}, 1)"


def age(length: float, scope: str) -> str:
    """Seconds since the first recorded counts of the last `length` seconds, to five minutes; by objective."""
    counts = selected(EVENTS, scope, 300.0, "total")
    return f"time() - min_over_time(timestamp({counts})[{window(length)}:5m])"


def tier(tier: Tier, gates: Gates, scope: str, sliced: bool) -> str:
    """Where the tier burns; the value is the burn rate of the long window."""
    factor = f"{float(tier.factor):g}"
    seen = coverage(tier.long, scope)
    least_long, least_short = gates.min_bad_long, gates.min_bad_short
    if sliced:
        least_long = gates.min_bad_slices if tier.severity == names.PAGE else 1
    return (
        f"(\n  {burn(tier.long, scope)}\n  > {factor} * (2 - {seen}) / {seen}\n)\n"
        f"and {burn(tier.short, scope)} > {factor}\n"
        f"and {_counted(tier.long, scope, 'bad')} >= {least_long:g}\n"
        f"and {_counted(tier.short, scope, 'bad')} >= {least_short:g}"
    )


def either(cases: Sequence[str], severity: str) -> str:
    """Where any of the cases holds, with its severity as a label."""
    return _named("\nor\n".join(f"({case})" for case in cases), severity, names.SEVERITY)


def burn(length: float, scope: str) -> str:
    """Burn rate of a window, by objective."""
    ratios = f"{RATIO.format(window=window(length))}{{{scope}}}"
    return f"sum without (sloth_window) ({ratios}) / slo:error_budget:ratio{{{scope}}}"


def absolute(gates: Gates, scope: str) -> str:
    """Where the last events were all bad, or half of those of the longest window, for services too quiet to
    burn; the value is the longest window's burn rate."""
    # `increase` extrapolates: ten events may read as 9.9.
    few, cases = gates.absolute_events - 0.5, []
    for length in gates.absolute_windows:
        bad = _counted(length, scope, "bad")
        cases.append(f"({bad} > {few:g} and {bad} >= 0.999 * {_counted(length, scope, 'total')})")
    longest = gates.absolute_windows[-1]
    bad, total = _counted(longest, scope, "bad"), _counted(longest, scope, "total")
    half = f"{bad} >= 0.5 * {total} and {bad} > slo:error_budget:ratio{{{scope}}} * {total}"
    cases.append(f"({bad} >= {gates.absolute_bad:g} and {half} and {total} > {few:g})")
    quiet = f"{_counted(3600.0, scope, 'total')} <= {gates.quiet_events:g}"
    return f"{burn(longest, scope)}\nand (\n" + "\nor\n".join(cases) + f"\n)\nand {quiet}"
