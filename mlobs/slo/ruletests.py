"""Unit tests for the written rules, in promtool's own form: they prove on the user's machine that the
alerts speak.

For every objective: its quickest page fires at T and is silent one step before, a five-minute blip that
spends less than the tier's share is silent, and absent data page after a quarter of an hour. For drift
besides: slices that nobody could judge are no events, and most of them are an absence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlobs import names
from mlobs.settings import Settings
from mlobs.slo import promql
from mlobs.slo.evaluate import Plan, plan
from mlobs.slo.policy import Tier
from mlobs.slo.promql import raw, window
from mlobs.slo.sli import Selector, quoted

SCRAPE = 15
STEP = 30
_MARGIN = 900
"""So much longer than the tier's long window is the history before anything happens."""
_BLIP = 300


def tests_document(settings: Settings, rules_file: str) -> dict[str, Any]:
    """What `promtool test rules` reads, beside the file `rules_file`."""
    plans = [plan(objective, settings) for objective in settings.slo.objectives]
    # Series can be made up for counters alone: not for gauges, nor for a user's own PromQL.
    testable = [each for each in plans if each.indicator.total]
    burning = [each for each in testable if _quickest(each) is not None]
    tests = [_burn_test(group) for group in _apart(burning)]
    tests += [_blip_test(group) for group in _apart(burning)]
    tests += [_absent_test(group) for group in _apart(testable)]
    # Longer ones would take minutes: a rule is evaluated every 30 seconds.
    tests += [_unjudged_test(each) for each in testable if each.judging is not None and raw(each.judging)]
    return {"rule_files": [rules_file], "evaluation_interval": f"{STEP}s", "tests": tests}


def _quickest(each: Plan) -> Tier | None:
    """The tier that is tested; windows beyond raw ones would need days of samples."""
    return next((tier for tier in each.tiers if raw(tier.long) and tier.reachable), None)


def _apart(plans: Sequence[Plan]) -> list[list[Plan]]:
    """Groups of objectives that share no series, so that each can have its own trouble in one test."""
    groups: list[tuple[set[str], list[Plan]]] = []
    for each in plans:
        series = {found["series"] for found in _series(each, [])}
        for taken, members in groups:
            if not taken & series:
                taken |= series
                members.append(each)
                break
        else:
            groups.append((series, [each]))
    return [members for _, members in groups]


def _history(plans: Sequence[Plan]) -> int:
    """Seconds of health before anything happens, so that no window is young."""
    return int(max(tier.long for each in plans if (tier := _quickest(each)))) + _MARGIN


def _burn_test(plans: Sequence[Plan]) -> dict[str, Any]:
    mature, series, checks = _history(plans), [], []
    for each in plans:
        tier = _quickest(each)
        assert tier is not None
        share, fires = _aim(each, tier)
        series += _series(each, [(mature, 0.0), (fires + 5 * STEP, share)])
        silent = fires - (4 * STEP if _by_minutes(each) else STEP)
        checks.append(_expect(each, tier.severity, mature + silent, firing=False))
        checks.append(_expect(each, tier.severity, mature + fires, firing=True))
    return _test("burns, and pages when it should", plans, series, checks)


def _blip_test(plans: Sequence[Plan]) -> dict[str, Any]:
    mature, series, checks = _history(plans), [], []
    for each in plans:
        tier = _quickest(each)
        assert tier is not None
        share = min(1.0, 0.8 * float(tier.threshold) * tier.long / _BLIP)
        series += _series(each, [(mature, 0.0), (_BLIP, share), (900, 0.0)])
        checks += [_expect(each, tier.severity, mature + at, firing=False) for at in (120, 300, 600, 1200)]
    return _test("a blip of five minutes is silent", plans, series, checks)


def _absent_test(plans: Sequence[Plan]) -> dict[str, Any]:
    series, checks = [], []
    for each in plans:
        series += _series(each, [(_MARGIN, 0.0)])  # data, then the targets are gone
        gone = _MARGIN + int(each.gates.absent_after)
        for at, firing in ((gone - 60, False), (gone + 60, True)):
            checks.append(_expect(each, each.cap, at, firing=firing, alert="MlobsSloAbsent"))
    return _test("absent data speak after a quarter of an hour", plans, series, checks)


def _unjudged_test(each: Plan) -> dict[str, Any]:
    """As long as the judging looks back every slice is judged, then none is."""
    assert each.judging is not None
    whole, slices = int(each.judging), 20
    phases, pace = [(whole, 0.0), (whole, 1.0)], SCRAPE * slices / whole
    left, judged = each.indicator.unjudged[0].selector, each.indicator.total[0].selector
    series = [
        {"series": _spelled(judged), "values": _values(phases, pace, -1.0)},
        {"series": _spelled(left, result="insufficient"), "values": _values(phases, pace, 1.0)},
    ]
    some, longest = whole * 14 // 10 // STEP * STEP, 6 * 3600
    seen = slices * (whole - max(0, some - longest)) / whole
    total = promql.selected(promql.EVENTS, f"slo={quoted(each.name)}", longest, "total")
    checks = [
        _expect(each, each.cap, some, firing=False, alert="MlobsSloAbsent"),
        _expect(each, each.cap, whole * 2, firing=True, alert="MlobsSloAbsent"),
        {
            "expr": f"abs(sum({total}) - {seen:g}) < bool 0.01",
            "eval_time": window(some),
            "exp_samples": [{"labels": "{}", "value": 1}],
        },
    ]
    return _test(
        "slices that could not be judged are no events, most of them an absence", [each], series, checks
    )


def _test(
    title: str, plans: Sequence[Plan], series: list[dict[str, str]], checks: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "name": f"{', '.join(each.name for each in plans)}: {title}",
        "interval": f"{SCRAPE}s",
        "input_series": series,
        "promql_expr_test": checks,
    }


def _by_minutes(each: Plan) -> bool:
    """Slices come one a minute: the tier's moment is known to a minute and a scrape."""
    return each.sliced


def _aim(each: Plan, tier: Tier) -> tuple[float, int]:
    """A share of bad events and the evaluation at which the tier finds it; the moment lies amid two
    evaluations."""
    needed = float(tier.threshold) * tier.long
    if _by_minutes(each):
        slices = max(math.floor(needed / 60.0) + 1, 3)
        return 1.0, slices * 60 + 2 * STEP
    middle = STEP / 2 + STEP * max(10, math.ceil(needed / STEP))
    return needed / middle, int(middle + STEP / 2)


def _expect(
    each: Plan, severity: str, at: int, *, firing: bool, alert: str = "MlobsSloBurn"
) -> dict[str, Any]:
    selector = (
        f'ALERTS{{alertname="{alert}",alertstate="firing",severity="{severity}",slo={quoted(each.name)}}}'
    )
    return {
        "expr": f"count({selector}) or vector(0)",
        "eval_time": window(at),
        "exp_samples": [{"labels": "{}", "value": int(firing)}],
    }


def _series(each: Plan, phases: Sequence[tuple[int, float]]) -> list[dict[str, str]]:
    """Counters of the objective under phases of (seconds, share of bad events)."""
    indicator = each.indicator
    # One drift slice a minute; else enough requests that a slice of a minute stands for itself.
    pace = SCRAPE / 60 if each.sliced and not indicator.sliced else 5000.0 * SCRAPE
    bad, total = indicator.bad, indicator.total
    if len(bad) == 2:  # all but the fast ones
        return [
            {"series": _spelled(total[0].selector), "values": _values(phases, pace, 0.0)},
            {"series": _spelled(bad[1].selector), "values": _values(phases, pace, -1.0)},
        ]
    return [
        {
            "series": _spelled(_good(total[0].selector, bad[0].selector)),
            "values": _values(phases, pace, -1.0),
        },
        {"series": _spelled(_both(total[0].selector, bad[0].selector)), "values": _values(phases, pace, 1.0)},
    ]


def _values(phases: Sequence[tuple[int, float]], pace: float, sign: float) -> str:
    """`0+1500x1680 ...`: per scrape all events (sign 0), the bad ones (1) or the others (-1)."""
    parts, level = ["0"], 0.0
    for seconds, share in phases:
        count = seconds // SCRAPE
        if count > 0:
            step = pace if sign == 0 else pace * share if sign > 0 else pace * (1 - share)
            parts.append(f"{level + step:.12g}+{step:.12g}x{count - 1}")
            level += step * count
    return " ".join(parts)


def _spelled(selector: Selector, **more: str) -> str:
    labels = {**{m.label: _value(m.op, m.value, m.label) for m in selector.matchers}, **more}
    inside = ",".join(f"{label}={quoted(value)}" for label, value in labels.items() if value)
    return f"{selector.metric}{{{inside}}}"


def _value(op: str, value: str, label: str) -> str:
    """A label value that the matcher lets through."""
    if op == "=":
        return value
    if op == "=~":
        return re.sub(r"\\(.)", r"\1", value.split("|", 1)[0])
    return (
        names.OK
        if label == names.OUTCOME and value != names.OK
        else "failed"
        if label == names.RESULT
        else ""
    )


def _both(total: Selector, bad: Selector) -> Selector:
    """What matches both: the bad events."""
    return Selector(bad.metric, tuple({(m.label): m for m in (*total.matchers, *bad.matchers)}.values()))


def _good(total: Selector, bad: Selector) -> Selector:
    """What `total` matches and `bad` does not."""
    flipped: Mapping[str, str] = {
        m.label: m.value if m.op == "!=" else names.OK for m in bad.matchers if m not in total.matchers
    }
    kept = [m for m in total.matchers if m.label not in flipped]
    return Selector(
        total.metric, (*kept, *(type(bad.matchers[0])(label, "=", value) for label, value in flipped.items()))
    )
