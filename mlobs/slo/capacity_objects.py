"""HorizontalPodAutoscaler and KEDA's ScaledObject for a plan. Pure: plain data, written as YAML elsewhere.

Both scale on what is in flight or queued, which follows the load at once and in proportion; the slow share
only guards, slowly: scaled on alone it oscillates, as it says nothing until the queue is full and stays high
until the queue is empty.
"""

from __future__ import annotations

import math
from typing import Any

from mlobs import names
from mlobs.slo.capacity import Plan

GUARD = "mlobs_scaling_replicas_wanted"
"""Recorded: the replicas that the latency objective asks for; 0 while it asks for none."""
_CALM = 300
"""Seconds of looking back before replicas are taken away."""


def hpa(name: str, plan: Plan, model: str, guarded: bool) -> dict[str, Any]:
    """An autoscaling/v2 object; its metrics come through the metrics adapter of your cluster."""
    guard = {
        "type": "External",
        "external": {
            "metric": {"name": GUARD, "selector": {"matchLabels": {names.MODEL: model}}},
            "target": {"type": "AverageValue", "averageValue": "1"},
        },
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": _target(name),
            "minReplicas": _least(plan),
            "maxReplicas": _most(plan),
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {
                            "name": names.IN_FLIGHT,
                            "selector": {"matchLabels": {names.MODEL: model}},
                        },
                        "target": {"type": "AverageValue", "averageValue": str(plan.concurrency)},
                    },
                },
                *([guard] if guarded else []),
            ],
            "behavior": _behaviour(),
        },
    }


def keda(name: str, plan: Plan, model: str, prometheus: str, guard: str | None) -> dict[str, Any]:
    """A keda.sh/v1alpha1 ScaledObject: in flight and queued per replica, with `guard` (see `guard_query`)."""
    of = selector(model)
    waiting = f"(sum({names.QUEUE_LENGTH}{of}) or vector(0))"
    triggers = [_trigger(prometheus, f"sum({names.IN_FLIGHT}{of}) + {waiting}", str(plan.concurrency))]
    if guard is not None:
        triggers.append(_trigger(prometheus, guard, "1"))
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": _target(name),
            "minReplicaCount": _least(plan),
            "maxReplicaCount": _most(plan),
            "pollingInterval": 15,
            "cooldownPeriod": _CALM,
            # Blind is not idle: with Prometheus away the plan's replicas stand.
            "fallback": {"failureThreshold": 3, "replicas": plan.replicas},
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behaviour()}},
            "triggers": triggers,
        },
    }


def guard_query(model: str, threshold: float, budget: float) -> str:
    """PromQL: the replicas that are asked for. `threshold` in seconds is a bucket's edge; `le` is matched in
    both spellings.

    While the slow share of five minutes is above `budget`: a tenth and one more than there are, as an
    autoscaler lets a metric within 10 % of its target be. Above half of it: as many as there are. Else 0, for
    the autoscaler takes the most that any metric asks for: a guard that always said "as many as there are"
    would never let a replica go.
    """
    plain = f"{threshold:g}"
    edge = plain.replace(".", "\\\\.") if "." in plain else f"{plain}|{plain}\\\\.0"
    count = f"sum(rate({names.REQUEST_DURATION}_count{selector(model)}[5m]))"
    fast = f"sum(rate({names.REQUEST_DURATION}_bucket{selector(model, edge)}[5m]))"
    there = f"count(count by (instance) ({names.IN_FLIGHT}{selector(model)}))"
    slow, more = f"(1 - {fast} / {count})", f"(floor(0.1 * {there}) + 1)"
    return f"{there} * ({slow} > bool {budget / 2:g}) + {more} * ({slow} > bool {budget:g})"


def guard_rule(name: str, model: str, query: str) -> dict[str, Any]:
    """A PrometheusRule that records the guard, for the HPA to read through the external metrics adapter."""
    rule = {"record": GUARD, "expr": query, "labels": {names.MODEL: model}}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"{name}-scaling"},
        "spec": {"groups": [{"name": f"{name}-scaling", "rules": [rule]}]},
    }


def selector(model: str, edge: str | None = None) -> str:
    """The matchers of a model's series, its name escaped."""
    escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    le = "" if edge is None else f',le=~"{edge}"'
    return f'{{{names.MODEL}="{escaped}"{le}}}'


def _trigger(prometheus: str, query: str, threshold: str) -> dict[str, Any]:
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {"serverAddress": prometheus, "query": query, "threshold": threshold},
    }


def _target(name: str) -> dict[str, str]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}


def _least(plan: Plan) -> int:
    """Through a night at a fifth of the peak, never fewer than two."""
    return max(2, math.ceil(plan.replicas / 5))


def _most(plan: Plan) -> int:
    return max(2 * plan.replicas, _least(plan))


def _behaviour() -> dict[str, Any]:
    """Up at once by as much as half; down by a tenth a minute, from the most of five minutes."""
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [
                {"type": "Percent", "value": 50, "periodSeconds": 30},
                {"type": "Pods", "value": 2, "periodSeconds": 30},
            ],
            "selectPolicy": "Max",
        },
        "scaleDown": {
            "stabilizationWindowSeconds": _CALM,
            "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}],
        },
    }
