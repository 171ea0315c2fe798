"""Bundle -> OpenSLO v1 documents. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from mlobs.durations import format_duration
from mlobs.objectives import show_objective
from mlobs.settings import BurnWindowSettings, ObjectiveSettings, SloSettings
from mlobs.slo import promql
from mlobs.slo.openslo.bundle import NOTE, VERSION, Bundle
from mlobs.slo.policy import period_length
from mlobs.slo.sli import Term, indicator
from mlobs.slo.write import to_yaml

DEFAULT_POLICY = "burn-rates"
CALENDAR_UNITS = {"month": "1M", "quarter": "1Q"}
CALENDAR_START = "2026-01-01 00:00:00"
"""Any first of January: periods are counted from it."""
_SLICED = frozenset({"p99", "drift"})


def write_openslo(bundle: Bundle) -> str:
    """The documents as one YAML text."""
    texts = [to_yaml(document, header="") for document in openslo_documents(bundle)]
    return "---\n".join(texts)


def openslo_documents(bundle: Bundle) -> list[dict[str, Any]]:
    """Service, data sources, targets, conditions, policies, objectives: what is referred to comes first."""
    documents = [_service(bundle)]
    documents += [
        _document("DataSource", name, {"type": "Prometheus", "connectionDetails": {"url": url}})
        for name, url in bundle.sources
    ]
    documents += [
        _document("AlertNotificationTarget", name, {"target": kind}) for name, kind in bundle.targets
    ]
    if bundle.slo.windows is not None:
        documents += _policy(DEFAULT_POLICY, bundle.slo.windows, _NOMINAL, bundle)
    for objective in bundle.slo.objectives:
        if objective.windows is not None:
            documents += _policy(
                f"{objective.name}-burn", objective.windows, period_length(objective), bundle
            )
        documents += [_sli(objective, bundle), _slo(objective, bundle)]
    return documents


_NOMINAL = 30 * 86400.0
"""Period for which a shared policy's factors are written; each objective derives its own from the share."""


def _document(
    kind: str, name: str, spec: dict[str, Any], notes: dict[str, str] | None = None
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if notes:
        metadata["annotations"] = {NOTE + key: value for key, value in notes.items()}
    return {"apiVersion": VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _service(bundle: Bundle) -> dict[str, Any]:
    slo, plain = bundle.slo, SloSettings()
    notes = {
        name: str(getattr(slo, name))
        for name in ("evaluator", "slice", "zone", "scrape_interval", "evaluation_interval", "breach")
        if getattr(slo, name) != getattr(plain, name)
    }
    spec = {"description": bundle.description} if bundle.description else {}
    return _document("Service", bundle.service, spec, notes)


def _sli(objective: ObjectiveSettings, bundle: Bundle) -> dict[str, Any]:
    sli = objective.sli
    fields = ("threshold", "check", "metric", "good", "bad", "total", "better")
    notes = {"kind": sli.kind} | {
        name: str(getattr(sli, name)) for name in fields if getattr(sli, name) is not None
    }
    counted = indicator(objective)
    if counted.of:
        notes["of"] = ",".join(counted.of)
        query = promql.composite_bad([f"{bundle.service}-{member}" for member in counted.of])
        return _document("SLI", f"{objective.name}-sli", {"thresholdMetric": _source(query, bundle)}, notes)
    if counted.gauge is not None:
        query = counted.gauge.selector.promql()
        spec: dict[str, Any] = {"thresholdMetric": _source(query, bundle)}
    elif counted.queries is not None:
        which, part, total = counted.queries
        spec = {
            "ratioMetric": {"counter": True, which: _source(part, bundle), "total": _source(total, bundle)}
        }
    elif len(counted.bad) == 2:
        good = _sum((Term(counted.bad[1].selector),))
        spec = {
            "ratioMetric": {
                "counter": True,
                "good": _source(good, bundle),
                "total": _source(_sum(counted.total), bundle),
            }
        }
    else:
        spec = {
            "ratioMetric": {
                "counter": True,
                "bad": _source(_sum(counted.bad), bundle),
                "total": _source(_sum(counted.total), bundle),
            }
        }
    return _document("SLI", f"{objective.name}-sli", spec, notes)


def _sum(terms: Sequence[Term]) -> str:
    return " + ".join(term.selector.promql() for term in terms)


def _source(query: str, bundle: Bundle) -> dict[str, Any]:
    source: dict[str, Any] = {"type": "Prometheus", "spec": {"query": query}}
    if bundle.sources:
        source = {"metricSourceRef": bundle.sources[0][0], **source}
    return {"metricSource": source}


def _slo(objective: ObjectiveSettings, bundle: Bundle) -> dict[str, Any]:
    notes = {
        name: value
        for name in ("model", "runbook", "severity")
        if (value := getattr(objective, name)) is not None and value != ""
    }
    if objective.zone != "UTC" and objective.calendar is None:
        notes["zone"] = objective.zone
    target: dict[str, Any] = {
        "target": objective.objective,
        "displayName": show_objective(objective.objective),
    }
    counted = indicator(objective)
    if counted.gauge is not None:
        target |= {
            "op": "lte" if counted.gauge.op == ">" else "gte",
            "value": Decimal(str(counted.gauge.bound)),
        }
    spec: dict[str, Any] = {"description": objective.description} if objective.description else {}
    sliced = objective.sli.kind in _SLICED
    spec |= {
        "service": bundle.service,
        "indicatorRef": f"{objective.name}-sli",
        "timeWindow": [_time_window(objective)],
        "budgetingMethod": "Timeslices" if sliced else "Occurrences",
    }
    if sliced:
        target |= {"timeSliceTarget": Decimal("0.99"), "timeSliceWindow": _duration(bundle.slo.slice)}
    spec["objectives"] = [target]
    policy = f"{objective.name}-burn" if objective.windows is not None else DEFAULT_POLICY
    if objective.windows is not None or bundle.slo.windows is not None:
        spec["alertPolicies"] = [policy]
    return _document("SLO", objective.name, spec, notes)


def _time_window(objective: ObjectiveSettings) -> dict[str, Any]:
    if objective.calendar is None:
        return {"duration": _duration(objective.period), "isRolling": True}
    calendar = {"startTime": CALENDAR_START, "timeZone": objective.zone}
    return {"duration": CALENDAR_UNITS[objective.calendar], "isRolling": False, "calendar": calendar}


def _policy(
    name: str, windows: Sequence[BurnWindowSettings], period: float, bundle: Bundle
) -> list[dict[str, Any]]:
    conditions = []
    for number, window in enumerate(windows, 1):
        factor = window.budget * Decimal(str(period)) / Decimal(str(window.long))
        condition = {
            "kind": "burnrate", "op": "gt", "threshold": factor,
            "lookbackWindow": _duration(window.long), "alertAfter": _duration(window.short),
        }  # fmt: skip
        spec = {"severity": window.severity, "condition": condition}
        notes = {"budget": str(window.budget)}
        conditions.append(_document("AlertCondition", f"{name}-{number}", spec, notes))
    policy: dict[str, Any] = {
        "alertWhenBreaching": True,
        "alertWhenNoData": True,
        "alertWhenResolved": True,
        "conditions": [{"conditionRef": each["metadata"]["name"]} for each in conditions],
        "notificationTargets": [{"targetRef": target} for target, _ in bundle.targets],
    }
    return [*conditions, _document("AlertPolicy", name, policy)]


def _duration(seconds: float) -> str:
    return format_duration(Decimal(str(seconds)))
