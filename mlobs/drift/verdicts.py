"""A closed window's state against its reference: verdicts of the checks, scores without a verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from mlobs.drift.causes import describe, describe_rows
from mlobs.drift.checks import DayShares, is_masked, run_checks, run_table_checks
from mlobs.drift.multivariate import joint_scores, joint_text
from mlobs.drift.reference import SCORE, WHOLE, Reference
from mlobs.drift.score import INSUFFICIENT, OK, STATISTICS, score
from mlobs.drift.spec import NULL, RANGE, ROWS, Spec
from mlobs.drift.state import State
from mlobs.drift.unlike import REMEDY
from mlobs.records import Verdict

DRIFTED: Final = "drifted"
ABSENT: Final = "absent"
NO_REFERENCE: Final = "no_reference"
NO_DATA: Final = "no_data"
MASKED: Final = "masked"
MASKED_DETAIL: Final = (
    "the rows are keyed hashes, the reference has raw text or another key's (masked): " + REMEDY
)
EVERY: Final = "(all)"
"""What stands in the place of a version where all of them are judged together."""
JOINT: Final = "(joint)"
"""What stands in the place of a feature where a score is of several."""
EXPORTED: Final = "exported"
"""Status of a score that is shown and judges nothing."""
CHECKS_PREFIX: Final = "check:"
RESULTS: Final = (OK, DRIFTED, INSUFFICIENT, ABSENT, NO_REFERENCE)


@dataclass(frozen=True, slots=True)
class Stream:
    """What is judged on its own: a model version, whole or one segment of it."""

    model: str
    version: str
    segment: str


@dataclass(frozen=True, slots=True)
class WindowVerdict:
    """A window of one stream. `verdicts` are of its features: failed checks and scores."""

    stream: Stream
    start: float
    end: float
    rows: int
    verdict: str
    status: str
    reference: str
    detail: str
    verdicts: tuple[Verdict, ...] = ()

    @property
    def judged(self) -> bool:
        return self.verdict in (OK, DRIFTED)

    @property
    def result(self) -> str:
        """The value of the `result` label: the verdict, with `no_reference` told apart."""
        return NO_REFERENCE if self.status == NO_REFERENCE else self.verdict

    @property
    def failed(self) -> dict[tuple[str, str], Verdict]:
        """Failed checks by (feature, check)."""
        return {(found.feature, found.status): found for found in self.verdicts if found.verdict == DRIFTED}


def judge(
    stream: Stream,
    start: float,
    end: float,
    state: State,
    reference: Reference,
    spec: Spec,
    min_rows: float,
    margin: float,
) -> WindowVerdict:
    """The verdict of one window: `drifted` when a check fails, however the distributions lie.

    `spec` is that of the reference with what was declared on top. Below `min_rows` effective rows it is
    `insufficient`; a segment that the reference has no days of is not judged.
    """
    rows = state.rows

    def slice_says(verdict: str, status: str, detail: str, found: Sequence[Verdict] = ()) -> WindowVerdict:
        return WindowVerdict(stream, start, end, rows, verdict, status, reference.name, detail, tuple(found))

    if not rows:
        return slice_says(ABSENT, NO_DATA, "no row in this window")
    days = reference.days.get(stream.segment)
    if days is None:
        return slice_says(ABSENT, NO_REFERENCE, f"the reference has no days of segment {stream.segment!r}")
    enough = state.effective_rows >= min_rows
    scores = _scores(stream, start, end, state, reference, spec, min_rows) if stream.segment == WHOLE else []
    if not enough:
        detail = (
            f"{state.effective_rows:.0f} effective rows, fewer than the {min_rows:g} that a verdict takes"
        )
        return slice_says(INSUFFICIENT, INSUFFICIENT, detail, scores)
    failed = _checks(stream, start, end, state, reference, spec, days, margin)
    masked = [column.name for column in spec.columns.values() if is_masked(state, column)]
    scores = [_not_comparable(one) if one.feature in masked else one for one in scores]
    if not failed:
        return slice_says(OK, OK, f"{', '.join(masked)}: {MASKED_DETAIL}" if masked else "", scores)
    worst = max(failed, key=lambda found: (found.value or 0.0) - (found.threshold or 0.0))
    detail = "; ".join(f"{found.feature}: {found.detail}" for found in failed[:3])
    return slice_says(DRIFTED, worst.status, detail, [*failed, *scores])


def without_reference(stream: Stream, start: float, end: float, rows: int) -> WindowVerdict:
    """Rows of a model version that nothing can be laid beside: said, not paged."""
    detail = f"no reference for version {stream.version!r}: build one with `mlobs drift reference build`"
    return WindowVerdict(stream, start, end, rows, ABSENT, NO_REFERENCE, "", detail)


def absent(model: str, start: float, end: float) -> WindowVerdict:
    """A window in which a model that had traffic before had none."""
    return WindowVerdict(Stream(model, "", ""), start, end, 0, ABSENT, NO_DATA, "", "no row in this window")


def _not_comparable(one: Verdict) -> Verdict:
    return replace(one, verdict=ABSENT, status=MASKED, value=None, p_value=None, detail=MASKED_DETAIL)


def _checks(
    stream: Stream, start: float, end: float, state: State, reference: Reference, spec: Spec, days: DayShares,
    margin: float,
) -> list[Verdict]:  # fmt: skip
    found = []
    for column in spec.columns.values():
        for result in run_checks(state, column, days, margin):
            if not result.failed or (column.name == SCORE and result.check == NULL):
                continue
            detail = describe(result, column, state, reference.state if result.check == RANGE else None)
            found.append(
                Verdict(
                    stream.model, stream.version, column.name, start, end, DRIFTED, result.check,
                    CHECKS_PREFIX + result.check, result.share, result.most, state.rows,
                    reference.name, stream.segment, None, detail,
                )
            )  # fmt: skip
    table = run_table_checks(state, spec, days, margin)
    found += [
        Verdict(
            stream.model, stream.version, ROWS, start, end, DRIFTED, result.check,
            CHECKS_PREFIX + result.check, result.share, result.most, state.rows,
            reference.name, stream.segment, None, describe_rows(result, state),
        )
        for result in table
        if result.failed
    ]  # fmt: skip
    return found


def _scores(
    stream: Stream, start: float, end: float, state: State, reference: Reference, spec: Spec, min_rows: float
) -> list[Verdict]:
    """Scores as verdicts that say nothing: `ok` with the status `exported`, or insufficient, or absent."""
    found = [
        Verdict(
            stream.model, stream.version, JOINT, start, end, OK if one.value is not None else ABSENT,
            EXPORTED if one.value is not None else one.status, one.statistic, one.value, None, one.n_current,
            reference.name, stream.segment, None, joint_text(one),
        )
        for one in joint_scores(reference.state, state)
    ]  # fmt: skip
    for one in score(reference.state, state, spec, STATISTICS, min_rows):
        verdict = {OK: OK, INSUFFICIENT: INSUFFICIENT}.get(one.status, ABSENT)
        status = EXPORTED if one.status == OK else one.status
        found.append(
            Verdict(
                stream.model, stream.version, one.feature, start, end, verdict, status, one.statistic,
                one.value, None, round(one.n_current), reference.name, stream.segment, one.p_value,
            )
        )  # fmt: skip
    return found
