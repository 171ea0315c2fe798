"""How `mlobs drift` shows what it found: tables for people, strict JSON for scripts."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlobs.drift.checks import CheckResult, DayShares
from mlobs.drift.compare import ColumnReport, Comparison
from mlobs.drift.multivariate import joint_text
from mlobs.drift.refdiff import (
    Difference,
    limit_json,
    limits_of,
    rows_judged,
    rows_text,
    slicing_text,
    span_text,
)
from mlobs.drift.reference import WHOLE, Reference
from mlobs.drift.score import Score
from mlobs.drift.spec import NEGATIVE, ColumnSpec

_STYLES = {"ok": "green", "drifted": "bold red", "insufficient": "yellow", "absent": "yellow"}
_SEGMENTS = 20
_WIDE = 80
"""A narrower terminal needs its columns for the reasons."""


def print_json(value: Any) -> None:
    """Strict JSON on stdout: what is not finite is null."""
    json.dump(_strict(value), sys.stdout, allow_nan=False, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")
    sys.stdout.flush()  # before the warnings, where both streams are one


def comparison_json(result: Comparison) -> dict[str, Any]:
    """The comparison as plain data."""
    return {
        "verdict": result.verdict,
        "exit_code": result.exit_code,
        "reference": result.reference,
        "current": result.current,
        "rows": {"reference": result.rows_reference, "current": result.rows_current},
        "extra_columns": list(result.extra),
        "joint": [
            {
                "statistic": one.statistic,
                "columns": list(one.names),
                "value": one.value,
                "n_reference": one.n_reference,
                "n_current": one.n_current,
                "status": one.status,
                "pair": one.pair,
            }
            for one in result.joint
        ],
        "rows_checks": [_check_json(check) for check in result.rows_checks],
        "columns": [_column_json(column) for column in result.columns],
    }


def print_comparison(result: Comparison) -> None:
    """One line a column: the drifted ones first."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("column", overflow="fold", min_width=12)
    table.add_column("verdict", no_wrap=True)
    statistics = ("psi", "js", "ks") if console.width >= _WIDE else ("psi",)  # the verdicts' own
    for name in statistics:
        table.add_column(name.upper(), justify="right", no_wrap=True)
    table.add_column("why", overflow="fold", min_width=12)
    order = {"drifted": 0, "absent": 1, "insufficient": 1, "ok": 2}
    for column in sorted(result.columns, key=lambda column: order[column.verdict]):
        why = column.detail or ("" if column.status == "ok" else column.status)
        style = _STYLES[column.verdict]
        table.add_row(
            escape(_plain(column.name)),
            f"[{style}]{column.verdict}[/]",
            *(_number(column.scores.get(statistic)) for statistic in statistics),
            escape(_plain(why)),
        )
    console.print(table)
    for one in result.joint:
        value = one.status if one.value is None else f"{one.value:.4g}"
        console.print(escape(_plain(f"{one.statistic} {value} over {joint_text(one)} (no verdict)")))
    if result.rows_detail:
        console.print(escape(_plain(f"rows: {result.rows_detail}")))
    console.print(
        f"[bold]{result.verdict}[/]: {len(result.drifted)} of {len(result.columns)} columns drifted, "
        f"{len(result.unjudged)} not judged; {result.rows_reference:,} rows in "
        f"{escape(_plain(result.reference))}, "
        f"{result.rows_current:,} in {escape(_plain(result.current))}"
    )


def differences_json(found: Sequence[Difference]) -> dict[str, Any]:
    """The differences as sentences, and each in its parts."""
    parts = [{"column": one.column, "what": one.what, "old": one.old, "new": one.new} for one in found]
    return {"differences": [one.text for one in found], "changes": parts}


def print_line(text: str, err: bool = False) -> None:
    """A line with names of users in it."""
    typer.echo(_plain(text), err=err)


def reference_json(reference: Reference) -> dict[str, Any]:
    """What a reference holds, as plain data. Limits of times are seconds, of moments since the epoch."""
    days = reference.days[WHOLE]
    columns = [
        {
            "name": column.name,
            "kind": column.kind,
            "arrow": column.arrow,
            "limits": column.limits,
            "bins": column.cells,
            "categories": list(column.categories[:50]),
            "worst_day": {check: limit_json(limit) for check, limit in limits_of(column, days).items()},
        }
        for column in reference.spec.columns.values()
    ]
    segments = sorted(set(reference.days) - {WHOLE})
    return {
        "name": reference.name,
        "id": reference.id,
        "model_version": reference.model_version,
        "rows": reference.rows,
        "days": len(days.labels),
        "slices": slicing_text(reference.slicing),
        "segments": segments,
        "by_segment": {segment: _segment_json(reference, segment) for segment in segments},
        "rows_judged": rows_judged(reference),
        "joint": list(reference.spec.block),
        "source": reference.source,
        "columns": columns,
    }


def _segment_json(reference: Reference, segment: str) -> dict[str, Any]:
    """Days and rows of a segment, and its worst days where there is something to tell."""
    days = reference.days[segment]
    told = {
        column.name: {
            check: limit_json(limit)
            for check, limit in limits_of(column, days).items()
            if limit.worst or limit.off
        }
        for column in reference.spec.columns.values()
    }
    worst = {name: limits for name, limits in told.items() if limits}
    return {"days": len(days.labels), "rows": sum(days.rows), "worst_day": worst}


def print_reference(reference: Reference) -> None:
    """Columns with their limits, worst days, and the checks that are off with the day that turns them off;
    then segments, checks of rows, joint columns."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    days = reference.days[WHOLE]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("column", "kind", "limits", "worst day", "off"):
        table.add_column(name, overflow="fold")
    for column in reference.spec.columns.values():
        span = "" if column.limits is None else span_text(column)
        if column.categories:
            span = f"{len(column.categories) + len(column.known)} categories"
        cells = (column.name, column.kind, span, *_worst_and_off(column, days))
        table.add_row(*(escape(_plain(text)) for text in cells))
    console.print(table)
    segments = sorted(set(reference.days) - {WHOLE})
    console.print(
        f"{escape(_plain(reference.name))}: {reference.rows:,} rows, {len(days.labels)} days "
        f"({escape(_plain(slicing_text(reference.slicing)))}), segments: {len(segments) or 'none'}, "
        f"id {reference.id[:12]}"
    )
    for segment in segments[:_SEGMENTS]:
        console.print(escape(_plain(_segment_text(reference, segment))))
    if len(segments) > _SEGMENTS:
        console.print(f"and {len(segments) - _SEGMENTS} more segments: --json has them all")
    for check, told in rows_judged(reference).items():
        console.print(f"{check}: {rows_text(check, told)}")
    if reference.spec.block:
        console.print(escape(_plain("joint: " + ", ".join(reference.spec.block))))
    if len(days.labels) == 1:
        console.print(
            "[yellow]one day only: give --day or --time, so that the worst ordinary day is known[/]"
        )


def _worst_and_off(column: ColumnSpec, days: DayShares) -> tuple[str, str]:
    limits = limits_of(column, days)
    worst = ", ".join(
        f"{check} {limit.worst:.1%}" + (f" ({limit.day})" if limit.day else "")
        for check, limit in limits.items()
        if limit.worst and not limit.off
    )
    # A column that has both signs is no news: negative values are a check where there were none.
    off = ", ".join(
        f"{check} ({limit.day or 'whole'})"
        for check, limit in limits.items()
        if limit.off and check != NEGATIVE
    )
    return worst, off


def _segment_text(reference: Reference, segment: str) -> str:
    days = reference.days[segment]
    off = []
    for column in reference.spec.columns.values():
        if column.name == reference.slicing.segment:
            continue  # the same in all of its rows
        whole = limits_of(column, reference.days[WHOLE])
        for check, limit in limits_of(column, days).items():
            if limit.off and not whole[check].off and check != NEGATIVE:
                off.append(f"{column.name} {check} ({limit.day or 'whole'})")
    text = f"segment {segment}: {len(days.labels)} days, {sum(days.rows):,} rows"
    return text + (f"; off besides: {', '.join(off)}" if off else "")


def _column_json(column: ColumnReport) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind,
        "verdict": column.verdict,
        "status": column.status,
        "detail": column.detail,
        "rows": column.rows,
        "p_threshold": column.threshold,
        "scores": {
            name: {
                "value": one.value,
                "plain": one.plain,
                "p_value": one.p_value,
                "bound": one.bound,
                "n_reference": one.n_reference,
                "n_current": one.n_current,
                "status": one.status,
            }
            for name, one in column.scores.items()
        },
        "checks": [_check_json(check) for check in column.checks],
    }


def _check_json(result: CheckResult) -> dict[str, Any]:
    return {
        "check": result.check,
        "share": result.share,
        "worst_reference_day": result.worst,
        "day": result.day,
        "off": result.off,
        "most": result.most,
        "declared": result.declared,
        "failed": result.failed,
    }


def _number(one: Score | None) -> str:
    return "" if one is None or one.value is None or one.status != "ok" else f"{one.value:.4f}"


def _plain(text: str) -> str:
    """Text of users without control characters: a column name must not paint the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_strict(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
