"""Two tables beside each other: `mlobs drift check`. Pure.

The user named the pair, so distributions are judged too: drifted is a column whose PSI lies above the
harmless margin (non-central chi-square, p below 0.001 over the number of columns), or that fails a check in
a share of rows above the reference's worst day by five points. There is no persistence: it is one comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from mlobs.drift.arrays import type_text
from mlobs.drift.causes import describe, describe_rows
from mlobs.drift.checks import CheckResult, is_masked, run_checks, run_table_checks
from mlobs.drift.columns import Columns
from mlobs.drift.exact import Whole, exact_scores
from mlobs.drift.moments import said
from mlobs.drift.multivariate import JointScore, joint_scores
from mlobs.drift.profile import profile
from mlobs.drift.reference import WHOLE, Reference
from mlobs.drift.score import (
    ALL_STATISTICS,
    CONSTANT,
    CONSTANT_CHANGED,
    INSUFFICIENT,
    NO_DATA,
    OK,
    PSI,
    Score,
    score,
)
from mlobs.drift.spec import NUMBER, RANGE, SCHEMA, TYPE, UNUSABLE, ColumnSpec, Spec
from mlobs.drift.state import State, empty_state, merge
from mlobs.drift.verdicts import ABSENT, DRIFTED, MASKED, MASKED_DETAIL
from mlobs.errors import EXIT_FINDING, EXIT_FINE, EXIT_UNAVAILABLE
from mlobs.stats.margin import PSI_MARGIN

SIGNIFICANCE: Final = 0.001
"""False-alarm rate of the whole comparison when every column lies exactly at the margin."""
MIN_ROWS: Final = 100
MARGIN: Final = 0.05
UNSUPPORTED: Final = "unsupported"
_WHOLE: Final = 2.0**53
"""Integers beyond are rounded to the nearest float64."""
MISSING: Final = "missing"
DISTRIBUTION: Final = "distribution"


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One column. `status` says why the verdict is what it is: `ok`, `distribution`, or the failed check."""

    name: str
    kind: str
    verdict: str
    status: str
    detail: str
    rows: int
    scores: Mapping[str, Score] = field(default_factory=dict)
    checks: tuple[CheckResult, ...] = ()
    threshold: float | None = None
    """The p-value below which a distribution counts as drifted."""

    @property
    def judged(self) -> bool:
        return self.verdict in (OK, DRIFTED)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole result; `columns` in the order of the reference."""

    reference: str
    current: str
    rows_reference: int
    rows_current: int
    columns: tuple[ColumnReport, ...]
    extra: tuple[str, ...]
    """Columns that the reference does not know."""
    joint: tuple[JointScore, ...] = ()
    """Scores of several columns at once, without a verdict."""
    rows_checks: tuple[CheckResult, ...] = ()
    """Checks of rows as a whole: repeated ones, where the reference has a sketch of rows."""
    rows_detail: str = ""
    """What fails among them."""

    @property
    def drifted(self) -> tuple[ColumnReport, ...]:
        return tuple(column for column in self.columns if column.verdict == DRIFTED)

    @property
    def unjudged(self) -> tuple[ColumnReport, ...]:
        return tuple(column for column in self.columns if not column.judged)

    @property
    def verdict(self) -> str:
        if self.drifted or self.rows_detail:
            return DRIFTED
        return OK if any(column.judged for column in self.columns) else INSUFFICIENT

    @property
    def exit_code(self) -> int:
        """0 without drift, 1 with, 3 when no column could be judged."""
        return {DRIFTED: EXIT_FINDING, OK: EXIT_FINE}.get(self.verdict, EXIT_UNAVAILABLE)


def compare(
    reference: Reference,
    batches: Iterable[Columns],
    where: str,
    min_rows: float = MIN_ROWS,
    psi_margin: float = PSI_MARGIN,
    margin: float = MARGIN,
    significance: float = SIGNIFICANCE,
    spec: Spec | None = None,
    keep: Callable[[State], None] | None = None,
) -> Comparison:
    """Profile `batches` in the bins of `reference` and judge every column; `keep` is given the profile. Never
    raises for what is in the data.
    """
    spec = spec or reference.spec
    current = empty_state(spec.reference)
    types: dict[str, str] = {}
    for batch in batches:
        types.update({field.name: type_text(field.type) for field in batch.schema})
        current = merge(current, profile(batch, spec))
    if keep is not None:
        keep(current)
    return judge_pair(reference, spec, current, where, types, min_rows, psi_margin, margin, significance)


def with_unknown(result: Comparison, spec: Spec, present: Iterable[str] | None) -> Comparison:
    """The comparison with the columns of the current table that the reference does not know and that were not
    read; with none at all where `present` is None."""
    if present is None:
        return replace(result, extra=())
    unknown = {name for name in present if name not in spec.columns and name not in spec.ignored}
    return replace(result, extra=tuple(sorted(unknown.union(result.extra))))


def compare_state(
    reference: Reference, current: State, where: str, types: Mapping[str, str], min_rows: float = MIN_ROWS
) -> Comparison:
    """`compare` of a profile that an engine made; `types` are those of its columns, as text."""
    return judge_pair(
        reference, reference.spec, current, where, types, min_rows, PSI_MARGIN, MARGIN, SIGNIFICANCE
    )


def made_exact(result: Comparison, spec: Spec, before: Whole, after: Whole) -> Comparison:
    """The comparison with the scores that need no bins taken from the whole columns; verdicts stay. Memory:
    one column of both sides."""
    columns = []
    for report in result.columns:
        column = spec.columns[report.name]
        if report.status not in (MISSING, SCHEMA) and column.cells:
            scores = exact_scores(report.scores, column, before(report.name), after(report.name))
            report = replace(report, scores=scores)
        columns.append(report)
    return replace(result, columns=tuple(columns))


def judge_pair(
    reference: Reference,
    spec: Spec,
    current: State,
    where: str,
    types: Mapping[str, str],
    min_rows: float,
    psi_margin: float,
    margin: float,
    significance: float,
) -> Comparison:
    """The comparison of a profile that is made already."""
    by_column: dict[str, dict[str, Score]] = {}
    for one in score(reference.state, current, spec, ALL_STATISTICS, min_rows, psi_margin):
        by_column.setdefault(one.feature, {})[one.statistic] = one
    threshold = significance / max(len(by_column), 1)
    reports = []
    for column in spec.columns.values():
        checks = tuple(run_checks(current, column, reference.days[WHOLE], margin)) if current.rows else ()
        scores = by_column.get(column.name, {})
        verdict, status, detail = _judge(
            column, reference, current, scores, checks, threshold, types, min_rows
        )
        reports.append(
            ColumnReport(
                column.name, column.kind, verdict, status, detail, current.rows, scores, checks, threshold
            )
        )
    table = run_table_checks(current, spec, reference.days[WHOLE], margin)
    told = "; ".join(describe_rows(result, current) for result in table if result.failed)
    extra = {name for stratum in current.strata.values() for name in stratum.extra}
    return Comparison(
        reference.name,
        where,
        reference.rows,
        current.rows,
        tuple(reports),
        tuple(sorted(extra)),
        tuple(joint_scores(reference.state, current)),
        tuple(table),
        told,
    )


def _judge(
    column: ColumnSpec,
    reference: Reference,
    current: State,
    scores: Mapping[str, Score],
    checks: tuple[CheckResult, ...],
    threshold: float,
    types: Mapping[str, str],
    min_rows: float,
) -> tuple[str, str, str]:
    """(verdict, status, detail) of one column."""
    if not current.rows:
        return ABSENT, NO_DATA, "no row in the current table"
    failed = [result for result in checks if result.failed]
    missing = next((result for result in failed if result.check == SCHEMA), None)
    if missing is not None:
        if missing.share < 1.0:  # files of one table that differ
            return DRIFTED, MISSING, f"{100 * missing.share:.3g} % of rows come without this column"
        if column.name in types:
            return DRIFTED, SCHEMA, "the current table has this column twice"
        return DRIFTED, MISSING, "the current table has no such column"
    if column.kind == UNUSABLE:
        return ABSENT, UNSUPPORTED, _unsupported(column, types.get(column.name, column.arrow))
    if current.effective_rows < min_rows or reference.rows < min_rows:
        fewest = min(current.effective_rows, reference.rows)
        return (
            INSUFFICIENT,
            INSUFFICIENT,
            f"{_count(fewest, 'row')}, fewer than the {min_rows:g} that a verdict takes",
        )
    if failed:
        texts = [_check_detail(result, column, reference, current, types) for result in failed]
        worst = max(failed, key=lambda result: result.share - result.worst)
        return DRIFTED, worst.check, "; ".join(texts)
    if is_masked(current, column):
        return ABSENT, MASKED, MASKED_DETAIL
    psi = scores.get(PSI)
    if psi is None or psi.status == NO_DATA:
        side = "reference" if psi is None or not psi.n_reference else "current table"
        return ABSENT, NO_DATA, f"no value in the {side}"
    if psi.status == INSUFFICIENT:
        fewest = min(psi.n_reference, psi.n_current)
        return (
            INSUFFICIENT,
            INSUFFICIENT,
            f"{_count(fewest, 'value')}, fewer than the {min_rows:g} that a verdict takes",
        )
    constant = _constant(column, reference, current)
    if constant is not None:
        return OK, *constant
    if psi.p_value is not None and psi.p_value < threshold:
        return (
            DRIFTED,
            DISTRIBUTION,
            f"PSI {psi.value:.3g} (p = {_p(psi.p_value)} for no more than the margin)",
        )
    return OK, OK, ""


def _check_detail(
    result: CheckResult, column: ColumnSpec, reference: Reference, current: State, types: Mapping[str, str]
) -> str:
    detail = describe(result, column, current, reference.state if result.check == RANGE else None)
    if result.check == TYPE and column.name in types:
        detail += f"; it is {types[column.name]} now"
    return detail


def _unsupported(column: ColumnSpec, now: str) -> str:
    text = f"{column.arrow} columns have no distribution here; nulls are counted"
    differs = now.partition("<")[0] != column.arrow.partition("<")[0]
    return f"{text}; it is {now} now" if differs else text


def _count(number: float, word: str) -> str:
    return f"{number:.0f} {word}" + ("" if round(number) == 1 else "s")


def _constant(column: ColumnSpec, reference: Reference, current: State) -> tuple[str, str] | None:
    """Status and detail of a numeric column that is constant on both sides; None for any other."""
    if column.kind != NUMBER:
        return None
    before, after = (_only_value(state, column.name) for state in (reference.state, current))
    if before is None or after is None:
        return None
    about = "about " if abs(before) >= _WHOLE and column.arrow.startswith(("int", "uint")) else ""
    if before == after:
        return CONSTANT, f"always {about}{said(before, column.arrow)}"
    change = abs(after - before) / max(abs(before), 5e-324)
    text = f"always {about}{said(before, column.arrow)}, now always {about}{said(after, column.arrow, 9)}"
    return CONSTANT_CHANGED, f"{text} (a relative change of {change:.1e}, within rounding)"


def _only_value(state: State, name: str) -> float | None:
    low = min((s.columns[name].low for s in state.strata.values() if name in s.columns), default=np.inf)
    high = max((s.columns[name].high for s in state.strata.values() if name in s.columns), default=-np.inf)
    return float(low) if low == high else None


def _p(value: float) -> str:
    return f"{value:.1e}" if value > 1e-300 else "0"
