"""Objectives -> one Grafana dashboard. Pure: the same settings give the same bytes."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final

from mlobs import names
from mlobs.durations import speak_duration
from mlobs.grafana import panels, queries
from mlobs.grafana.panels import Json, Query, Size, Step
from mlobs.objectives import show_objective
from mlobs.settings import ObjectiveSettings, Settings
from mlobs.slo.policy import period_length, tiers, window_lengths

SCHEMA_VERSION: Final = 39
"""Of Grafana 10.4; later ones migrate it when they load it."""
_LONGEST_UID: Final = 40

_BUDGET_STEPS = (Step(None, panels.BAD), Step(0, panels.WARN), Step(0.25, panels.GOOD))
_SCORE_STEPS = (
    Step(None, "#e8ecf8"),
    Step(0.1, "#c3cff3"),
    Step(0.25, "#94a8e8"),
    Step(0.5, "#6f88dc"),
    Step(1, "#4a63c4"),
    Step(3, "#2c409a"),
)
# One shade for each step, no red: a score has no verdict.


def dashboard(settings: Settings) -> Json:
    """The dashboard of a service: budgets, requests, stages, drift, pipelines."""
    objectives = settings.slo.objectives
    found = [
        *(_budgets(objectives, settings) if objectives else ()),
        *_requests(settings),
        *_stages(settings),
        *_drift(),
        *_pipelines(),
    ]
    return {
        "uid": uid_of(settings),
        "title": _plain(f"{settings.service} by mlobs"),
        "description": "Written by `mlobs grafana write`: changes here are lost when it is written again.",
        "tags": ["mlobs"],
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": SCHEMA_VERSION,
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "browser",
        "refresh": "1m",
        "annotations": {"list": [_breaches_as_marks()]},
        "templating": {"list": _variables(settings)},
        "links": _links(settings),
        "panels": panels.laid_out(found),
    }


def encoded(value: Json) -> str:
    """As it is written to a file: sorted keys, so that a diff shows what changed."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def uid_of(settings: Settings) -> str:
    """`mlobs-<service>`: at most 40 of the characters that Grafana allows, a digest where text was lost."""
    whole = "-".join(part for part in ("mlobs", settings.environment, settings.service) if part)
    clean = re.sub(r"[^A-Za-z0-9_-]", "-", whole)
    if clean == whole and len(clean) <= _LONGEST_UID:
        return clean
    digest = hashlib.blake2b(whole.encode("utf-8", "backslashreplace"), digest_size=4).hexdigest()
    return f"{clean[: _LONGEST_UID - 9]}-{digest}"


def _plain(text: str) -> str:
    """User text for a title: Grafana replaces `$name` there, so a dollar becomes its full-width twin."""
    return text.replace("$", "\uff04")


def _legend(*labels: str) -> str:
    """Grafana's template of a series' name: the values of `labels`."""
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def _variables(settings: Settings) -> list[Json]:
    service = queries.one(names.SERVICE, settings.service)
    models = f"label_values({queries.selector(names.MODEL_INFO, service)}, {names.MODEL})"
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0},
        {
            "name": "model",
            "label": "Model",
            "type": "query",
            "datasource": panels.SOURCE,
            "query": models,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def _links(settings: Settings) -> list[Json]:
    if not settings.public_url:
        return []
    return [
        {
            "title": "mlobs",
            "type": "link",
            "icon": "external link",
            "tooltip": "budgets, drift and incidents as mlobs sees them",
            "url": settings.public_url,
            "tags": [],
            "asDropdown": False,
            "targetBlank": True,
            "includeVars": False,
            "keepTime": False,
        }
    ]


def _breaches_as_marks() -> Json:
    return {
        "name": "Drift breaches",
        "datasource": panels.SOURCE,
        "enable": True,
        "iconColor": "orange",
        "expr": f"{queries.drift_breach()} == 1",
        "titleFormat": _legend(names.FEATURE),
        "textFormat": f"drift, {_legend(names.SEVERITY)}",
        "step": "60s",
    }


def _budgets(objectives: tuple[ObjectiveSettings, ...], settings: Settings) -> list[Json]:
    ask = queries.Budgets(settings.service, settings.slo.evaluator)
    left = [Query(ask.left([objective.name for objective in objectives]), _legend(ask.label))]
    about = "Share of the period's error budget that is left; below zero it is overspent."
    return [
        panels.row("Error budgets"),
        panels.figures("Budget left", Size(24, 5), left, "percentunit", _BUDGET_STEPS, about),
        panels.lines(
            "Burn-down",
            Size(24, 8),
            left,
            "percentunit",
            about=about,
            limits=[Step(0, panels.BAD)],
            least=None,
        ),
        *(_burn(objective, settings) for objective in objectives),
    ]


def _burn(objective: ObjectiveSettings, settings: Settings) -> Json:
    found = tiers(objective, settings.slo)
    ask = queries.Budgets(settings.service, settings.slo.evaluator)
    limits = {
        float(tier.factor): Step(
            float(tier.factor), panels.BAD if tier.severity == names.PAGE else panels.WARN
        )
        for tier in found
    }
    shown = ", ".join(
        f"{tier.severity} above {float(tier.factor):g} in both {speak_duration(tier.long)} and"
        f" {speak_duration(tier.short)}"
        for tier in found
    )
    period = speak_duration(period_length(objective))
    about = f"{show_objective(objective.objective)} over {period}. At 1 the budget lasts as long. {shown}."
    return panels.lines(
        _plain(f"Burn rate: {objective.name}"),
        Size(8, 8),
        [Query(*each) for each in ask.burn(objective.name, window_lengths(found))],
        "none",
        about=_plain(about),
        limits=[limits[factor] for factor in sorted(limits)],
    )


def _requests(settings: Settings) -> list[Json]:
    ask = queries.Requests(settings.service)
    model = _legend(names.MODEL)
    thresholds = sorted(
        {
            float(objective.sli.threshold)
            for objective in settings.slo.objectives
            if objective.sli.threshold is not None and objective.sli.kind in ("latency", "p99")
        }
    )
    quantiles = [Query(ask.quantile(q), f"p{q[2:].ljust(2, '0')}") for q in ("0.5", "0.95", "0.99")]
    return [
        panels.row("Requests"),
        panels.lines(
            "Requests",
            Size(8, 8),
            [Query(ask.rate_by_outcome(), _legend(names.OUTCOME))],
            "reqps",
            about="By outcome. A cancelled call is one whose client left.",
            stacked=True,
        ),
        panels.lines(
            "Share of errors",
            Size(8, 8),
            [Query(ask.error_share(), model)],
            "percentunit",
            about="Failed out of answered calls.",
        ),
        panels.lines(
            "Latency",
            Size(8, 8),
            quantiles,
            "s",
            limits=[Step(t, panels.WARN) for t in thresholds],
            about="Of the calls that did not fail, within a bucket interpolated. Dashed: the thresholds.",
        ),
        panels.lines("In flight", Size(12, 7), [Query(ask.in_flight(), model)], "none"),
        panels.lines(
            "Versions",
            Size(12, 7),
            [Query(ask.versions(), _legend(names.MODEL, names.MODEL_VERSION))],
            "reqps",
            about="Which version answers: a rollout shows here.",
            stacked=True,
        ),
    ]


def _stages(settings: Settings) -> list[Json]:
    ask = queries.Requests(settings.service)
    stage = _legend(names.STAGE)
    return [
        panels.row("Stages"),
        panels.lines(
            "Mean duration of a stage", Size(8, 8), [Query(ask.stage_mean(), stage)], "s", stacked=True
        ),
        panels.lines("p99 of a stage", Size(8, 8), [Query(ask.stage_quantile("0.99"), stage)], "s"),
        panels.lines(
            "Cost of mlobs in a call",
            Size(8, 8),
            [Query(ask.overhead(), "CPU time")],
            "s",
            about="CPU seconds that mlobs itself spent in the serving process, by call.",
        ),
    ]


def _drift() -> list[Json]:
    feature = _legend(names.FEATURE)
    about = "Distance of each feature from its reference. Shown, not judged: spring is no incident."
    return [
        panels.row("Drift and data quality"),
        panels.history(
            "Drift score by feature",
            Size(24, 12),
            [Query(queries.drift_score(), feature)],
            _SCORE_STEPS,
            about,
        ),
        panels.states(
            "Breaches",
            Size(12, 8),
            [Query(queries.drift_breach(), _legend(names.FEATURE, names.SEGMENT))],
            {"0": ("quiet", panels.GOOD), "1": ("broken", panels.BAD)},
            "A check that failed in enough of the last windows.",
        ),
        panels.lines(
            "Rows that fail a check",
            Size(12, 8),
            [Query(queries.bad_row_share(), _legend(names.CHECK))],
            "percentunit",
            about="`any` counts a row once, however many checks it fails.",
        ),
        panels.lines(
            "Windows by verdict",
            Size(24, 6),
            [Query(queries.slices(), _legend(names.RESULT))],
            "none",
            stacked=True,
        ),
    ]


def _pipelines() -> list[Json]:
    pipeline = _legend(names.PIPELINE)
    moved = [
        Query(queries.pipeline_rate(names.PIPELINE_OFFERED), f"{pipeline} offered"),
        Query(queries.pipeline_rate(names.PIPELINE_DELIVERED), f"{pipeline} delivered"),
        Query(queries.pipeline_rate(names.PIPELINE_RETRIED), f"{pipeline} retried"),
    ]
    dropped = [
        Query(
            queries.pipeline_rate(names.PIPELINE_DROPPED, names.REASON), _legend(names.PIPELINE, names.REASON)
        )
    ]
    gap = (Step(None, panels.BAD), Step(0, panels.GOOD), Step(0.5, panels.BAD))
    return [
        panels.row("Pipelines"),
        panels.lines("Moved", Size(12, 8), moved, "cps"),
        panels.lines("Dropped, by reason", Size(12, 8), dropped, "cps"),
        panels.lines(
            "Waiting", Size(8, 7), [Query(queries.pipeline_now(names.PIPELINE_QUEUED), pipeline)], "short"
        ),
        panels.lines(
            "Oldest that waits",
            Size(8, 7),
            [Query(queries.pipeline_now(names.PIPELINE_OLDEST_AGE), pipeline)],
            "s",
        ),
        panels.lines(
            "Since the last success", Size(8, 7), [Query(queries.pipeline_silence(), pipeline)], "s"
        ),
        panels.figures(
            "Missing in the account",
            Size(24, 4),
            [Query(queries.pipeline_gap(), pipeline)],
            "short",
            gap,
            "Offered minus delivered, dropped and waiting: zero, or the account does not add up.",
        ),
    ]
