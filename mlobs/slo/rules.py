"""Objectives -> recording and alerting rules for plain Prometheus (2.42 and 3.x), as data. Pure.

Per objective one rule counts its events, in all windows at once, and one states its budget; everything else
is shared by label, so that a hundred objectives need few rules. Sloth's recorded names and labels are kept
for dashboards made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlobs import names
from mlobs.objectives import error_budget
from mlobs.settings import Settings
from mlobs.slo import promql, timeslice
from mlobs.slo.evaluate import Plan, plan
from mlobs.slo.policy import ABSENT_AFTER, Gates, Tier, window_lengths
from mlobs.slo.sli import exactly, quoted

INTERVAL = "30s"
_COUNTED_BEFORE_ABSENT = 300.0
"""Counts over 5 minutes outlive their series by so much, short of one scrape."""
BASE = (300.0, 1800.0, 3600.0, 7200.0, 21600.0)
"""Raw windows that every objective records: the tiers' and the absolute rule's."""


@dataclass(frozen=True, slots=True)
class Table:
    """Objectives that burn by the same tiers: they share their alerts."""

    label: str
    tiers: tuple[Tier, ...]
    plans: tuple[Plan, ...]


def rule_groups(settings: Settings) -> list[dict[str, Any]]:
    """The rule groups of every objective in `settings`, in evaluation order."""
    plans = [plan(objective, settings) for objective in settings.slo.objectives]
    tables = _tables(plans)
    labels = labels_of(settings, plans)
    scope = f"sloth_service={quoted(settings.service)}"
    groups = []
    sliced = [each for each in plans if each.indicator.sliced]
    if sliced:
        length = settings.slo.slice
        rules = [_requests(each, length, labels[each.name]) for each in sliced]
        rules.append(_record(promql.SLICE, promql.slice_bad(length, scope)))
        groups.append({"name": f"mlobs-{settings.service}-slices", "interval": "1m", "rules": rules})
    counted = [rule for each in plans for rule in _own(each, labels[each.name])]
    shared = [*_shared(plans, tables, scope), *_alerts(tables, scope)]
    shared += [_unjudged_alert(each, labels[each.name]) for each in plans if each.judging is not None]
    if settings.slo.breach:
        shared.append(_breach_alert(settings))
    groups.append({"name": f"mlobs-{settings.service}-slo", "interval": INTERVAL, "rules": counted + shared})
    return groups


def rules_document(settings: Settings) -> dict[str, Any]:
    """What a Prometheus rules file holds."""
    return {"groups": rule_groups(settings)}


def kubernetes_document(settings: Settings) -> dict[str, Any]:
    """The same as a PrometheusRule object of the Prometheus operator."""
    name = f"mlobs-{settings.service}-slo".lower().replace("_", "-").replace(".", "-")
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "mlobs"}},
        "spec": {"groups": rule_groups(settings)},
    }


def labels_of(settings: Settings, plans: Sequence[Plan]) -> dict[str, dict[str, str]]:
    """By objective the labels that its recorded series carry."""
    tables = _tables(plans)
    return {each.name: _labels(each, settings, tables) for each in plans}


def _tables(plans: Sequence[Plan]) -> list[Table]:
    found: dict[tuple[object, ...], list[Plan]] = {}
    for each in plans:
        key = tuple((tier.long, tier.short, tier.factor, tier.severity == each.cap) for tier in each.tiers)
        found.setdefault((*key, each.sliced, each.cap, each.period), []).append(each)
    return [
        Table(f"t{number}", members[0].tiers, tuple(members))
        for number, members in enumerate(found.values(), 1)
    ]


def _labels(each: Plan, settings: Settings, tables: Sequence[Table]) -> dict[str, str]:
    table = next(table.label for table in tables if each in table.plans)
    labels = {
        "sloth_id": f"{settings.service}-{each.name}",
        "sloth_service": settings.service,
        "sloth_slo": each.name,
        names.SLO: each.name,
        names.SERVICE: settings.service,
        names.MODEL: each.objective.model,
        "environment": settings.environment,
        "cause": each.indicator.cause,
        "mlobs_table": table,
    }
    return {label: value for label, value in labels.items() if value}


def _requests(each: Plan, length: float, labels: dict[str, str]) -> dict[str, Any]:
    """The requests of a slice and of the spans that it may grow to."""
    spans = sorted({*(count * length for count in timeslice.growth(length)), 60.0})
    return _record(
        promql.REQUESTS,
        promql.windowed({span: promql.slice_requests(each.indicator, span) for span in spans}),
        labels,
    )


def _own(each: Plan, labels: dict[str, str]) -> list[dict[str, Any]]:
    """What one objective alone can say: its events in five windows (a sliced one's are counted for all at
    once), and its budget."""
    rules = []
    if each.indicator.gauge is not None:
        rules.append(_record(promql.SLICE, promql.check_bad(each.indicator.gauge), labels))
    if each.indicator.of:
        members = [f"{labels['sloth_service']}-{member}" for member in each.indicator.of]
        rules.append(_record(promql.SLICE, promql.composite_bad(members), labels))
    if not _looked_at(each):
        windows = {length: promql.events(each.indicator, length) for length in _base_windows(each)}
        rules.append(_record(promql.EVENTS, promql.windowed(windows), labels))
    budget = error_budget(each.objective.objective)
    return [*rules, _record(names.RULE_ERROR_BUDGET, f"vector({budget})", labels)]


def _looked_at(each: Plan) -> bool:
    """Its events are slices or checks: recorded one by one and counted for all objectives at once."""
    return each.indicator.sliced or each.indicator.gauge is not None or bool(each.indicator.of)


def _base_windows(each: Plan) -> list[float]:
    wanted = (*window_lengths(each.tiers), each.period)
    return sorted({*BASE, *(length for length in wanted if promql.raw(length))})


def _shared(plans: Sequence[Plan], tables: Sequence[Table], scope: str) -> list[dict[str, Any]]:
    """Ratios and budgets of all objectives at once. `scope` keeps other services' rules out of ours."""
    bases = {length for each in plans for length in _base_windows(each)}
    longs = {length for each in plans for length in window_lengths(each.tiers) if not promql.raw(length)}
    periods = sorted({each.period for each in plans})
    looked = {length for each in plans if _looked_at(each) for length in _base_windows(each)}
    every = sorted(bases | longs | set(periods))

    def counts(
        name: str, lengths: Iterable[float], expression: Callable[[float, str], str]
    ) -> dict[str, Any]:
        windows = {length: expression(length, scope) for length in sorted(lengths)}
        return _record(name, promql.windowed(windows))

    rules = [counts(promql.EVENTS, looked, promql.slice_events)] if looked else []
    if any(promql.counts_good(each.indicator) for each in plans):
        rules.append(_record(promql.EVENTS, promql.bad_events(scope), {"events": "bad"}))
    beyond = {length for length in {*longs, *periods} if not promql.raw(length)}
    if beyond:
        rules.append(counts(promql.SUMS, beyond, promql.long_events))
    rules += [
        _record(promql.RATIO.format(window=promql.window(length)), promql.ratio(length, scope))
        for length in every
    ]
    promised = f"{names.RULE_ERROR_BUDGET}{{{scope}}}"
    rules.append(_record(names.RULE_OBJECTIVE, f"1 - {promised}"))
    rules.append(_record(names.RULE_PERIOD_DAYS, _days(tables, periods, scope)))
    rules.append(_record("sloth_slo_info", f"{promised} * 0 + 1"))
    rules.append(_record(names.RULE_CURRENT_BURN, promql.burn(300.0, scope)))
    rates = [
        f"{promql.burn(length, scope)} and ({names.RULE_PERIOD_DAYS}{{{scope}}} == {length / 86400:g})"
        for length in periods
    ]
    rules.append(_record("slo:period_burn_rate:ratio", "\nor\n".join(rates)))
    # A period that has only begun is stretched to its length, or the first bad minute spends it all.
    left = [
        f"1 - slo:period_burn_rate:ratio{{{scope}}} * {promql.lived(length, scope)}"
        f" and ({names.RULE_PERIOD_DAYS}{{{scope}}} == {length / 86400:g})"
        for length in periods
    ]
    return [*rules, _record(names.RULE_PERIOD_BUDGET_REMAINING, "\nor\n".join(left))]


def _days(tables: Sequence[Table], periods: Sequence[float], scope: str) -> str:
    """Days of every objective's period: a table's objectives have one."""
    if len(periods) == 1:
        return f"{names.RULE_ERROR_BUDGET}{{{scope}}} * 0 + {periods[0] / 86400:g}"
    cases = []
    for period in periods:
        labels = "|".join(table.label for table in tables if table.plans[0].period == period)
        cases.append(f'{names.RULE_ERROR_BUDGET}{{{scope},mlobs_table=~"{labels}"}} * 0 + {period / 86400:g}')
    return "\nor\n".join(cases)


def _alerts(tables: Sequence[Table], scope: str) -> list[dict[str, Any]]:
    """One alert per table for burning, of either severity, and one for absent data."""
    rules = []
    for table in tables:
        selector = f"{scope},mlobs_table={quoted(table.label)}"
        first = table.plans[0]
        cases, longs = [], []
        for severity in names.SEVERITIES:
            tiers = [tier for tier in table.tiers if tier.severity == severity and tier.reachable]
            burning = [promql.tier(tier, first.gates, selector, first.sliced) for tier in tiers]
            longs += [tier.long for tier in tiers]
            if severity == first.cap and not first.sliced:
                burning.append(promql.absolute(first.gates, selector))
                longs.append(first.gates.absolute_windows[-1])
            if burning:
                cases.append(promql.either(burning, severity))
        if cases:
            rules.append(_burn_alert(table.label, cases, sorted(set(longs))))
        rules.append(_absent_alert(first.cap, table.label, selector, first.gates))
    return rules


_LEFT = (
    '{{ with printf "slo:period_error_budget_remaining:ratio{sloth_id=%q}" $labels.sloth_id | query }}'
    "{{ . | first | value }}{{ end }}"
)


def _speaking(longs: Sequence[float]) -> str:
    """A template that sets `$w` to the long window whose burn rate the alert has for its value: the tiers of
    an alert are one condition, so that it stays one alert while it goes from one to the next."""
    spoken = " ".join(f'"{promql.window(length)}"' for length in longs)
    rate = "slo:sli_error:ratio_rate%s{sloth_id=%q} / on (sloth_id) slo:error_budget:ratio == %v"
    return (
        f'{{{{ $w := "" }}}}{{{{ range args {spoken} }}}}{{{{ if eq $w "" }}}}'
        f'{{{{ if query (printf "{rate}" . $labels.sloth_id $value) }}}}{{{{ $w = . }}}}{{{{ end }}}}'
        "{{ end }}{{ end }}"
    )


def _burn_alert(table: str, cases: Sequence[str], longs: Sequence[float]) -> dict[str, Any]:
    window = _speaking(longs)
    counted = (
        '{{ with query (printf "{__name__=~%q,sloth_id=%q,events=%q,sloth_window=%q}" '
        f'"{promql.EVENTS}|{promql.SUMS}" $labels.sloth_id "EVENTS" $w) }}}}'
        '{{ . | first | value | printf "%.0f" }}{{ end }}'
    )
    return {
        "alert": "MlobsSloBurn",
        "expr": "\nor\n".join(cases),
        "labels": {"kind": "burn", "mlobs_table": table},
        "annotations": {
            "summary": "{{ $labels.slo }}: burning {{ $value | humanize }} times too fast",
            "description": "See slo:current_burn_rate:ratio and slo:period_error_budget_remaining:ratio "
            "of {{ $labels.sloth_id }}.",
            "burn_rate": "{{ $value }}",
            "budget_remaining": _LEFT,
            "window": f"{window}{{{{ $w }}}}",
            "bad": window + counted.replace("EVENTS", "bad"),
            "total": window + counted.replace("EVENTS", "total"),
        },
    }


def _absent_alert(severity: str, table: str, selector: str, gates: Gates) -> dict[str, Any]:
    # Bad events are known only where all that they are made of is there: a missing bucket is an absence.
    counted = promql.selected(promql.EVENTS, selector, 300.0, "bad")
    wait = max(gates.absent_after, ABSENT_AFTER) - _COUNTED_BEFORE_ABSENT
    return {
        "alert": "MlobsSloAbsent",
        "expr": f"{names.RULE_OBJECTIVE}{{{selector}}}\nunless on (sloth_id)\n{counted}",
        "for": promql.window(wait),
        "labels": {names.SEVERITY: severity, "kind": "absent", "cause": "absent", "mlobs_table": table},
        "annotations": {"summary": "{{ $labels.slo }}: no target shows its data"},
    }


def _unjudged_alert(each: Plan, labels: dict[str, str]) -> dict[str, Any]:
    """Slices come in, and most of them could not be judged: as absent as no data at all."""
    assert each.judging is not None
    blind = promql.mostly_unjudged(each.indicator, each.judging)
    own = ",".join(f"{label}={quoted(labels[label])}" for label in ("sloth_service", "sloth_id"))
    return {
        "alert": "MlobsSloAbsent",
        "expr": f"{names.RULE_OBJECTIVE}{{{own}}}\nand on () (\n{blind}\n)",
        "labels": {names.SEVERITY: each.cap, "kind": "absent", "cause": "absent"},
        "annotations": {
            "summary": "{{ $labels.slo }}: most slices of the last "
            f"{promql.window(each.judging)} could not be judged"
        },
    }


_ONSET = (
    f'{{{{ with printf "{names.DRIFT_BREACH_SINCE}'
    '{model=%q,feature=%q,segment=%q,severity=%q}" $labels.model $labels.feature $labels.segment '
    "$labels.severity | query }}{{ . | first | value }}{{ end }}"
)
"""When what broke began: the alert itself begins when that is found."""


def _breach_alert(settings: Settings) -> dict[str, Any]:
    """A drift breach alerts at once: it has been debounced where it was found."""
    models = sorted({o.model for o in settings.slo.objectives} | {m.name for m in settings.models})
    known = "|".join(exactly(model) for model in models if model)
    inside = f"{names.MODEL}=~{quoted(known)}" if known and "" not in models else ""
    return {
        "alert": "MlobsDriftBreach",
        "expr": f"{names.DRIFT_BREACH}{{{inside}}} >= 1" if inside else f"{names.DRIFT_BREACH} >= 1",
        "labels": {
            "kind": "breach",
            "cause": "drift",
            names.SERVICE: settings.service,
            **({"environment": settings.environment} if settings.environment else {}),
        },
        "annotations": {
            "summary": "{{ $labels.model }}: {{ $labels.feature }} broke its check",
            "since": _ONSET,
        },
    }


def _record(name: str, expression: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"record": name, "expr": expression}
    return {**rule, "labels": dict(labels)} if labels else rule
