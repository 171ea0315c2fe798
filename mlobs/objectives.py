"""Objectives as exact ratios: `99.9%` and `0.999` are both Decimal("0.999"), and 99.9 is refused."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

from mlobs.errors import nearest

BETTER: Final = {
    "auc": "higher", "precision": "higher", "recall": "higher",
    "log_loss": "lower", "brier": "lower", "mae": "lower", "rmse": "lower",
}  # fmt: skip
"""Of the measures of a model's quality that mlobs makes, which way is better."""
_SHARES = frozenset({"auc", "precision", "recall", "brier"})


def parse_objective(text: str | int | float | Decimal) -> Decimal:
    """The ratio in (0, 1) that `text` means.

    Accepts `99.9%` and `0.999`. Raises ValueError, with the advice in it, for everything else: 99.9 without a
    sign could be a ratio written wrongly, and 100 % leaves no budget to spend.
    """
    written = str(text).strip()
    try:
        if written.endswith("%"):
            value = Decimal(written[:-1].strip()) / 100
        else:
            value = Decimal(written)
    except InvalidOperation:
        raise ValueError(f"{written[:40]!r} is no number: write 99.9% or 0.999") from None
    if not value.is_finite():
        raise ValueError(f"{written[:40]} is not finite: write 99.9% or 0.999")
    if value == 1:
        raise ValueError(
            "an objective of 100 % has no error budget: every failure breaks it; write 99.99% or less"
        )
    if value > 1:
        percent = not written.endswith("%") and value < 100
        advice = f"did you mean {written[:40]}% ?" if percent else "write 99.9% or 0.999"
        raise ValueError(f"{written[:40]} is more than everything: {advice}")
    if value <= 0:
        raise ValueError(f"{written[:40]} promises nothing: write a ratio between 0 and 1, like 99.9%")
    return value


def show_objective(objective: Decimal) -> str:
    """`99.9%` of Decimal("0.999"): exact, without trailing zeros."""
    return f"{format((objective * 100).normalize(), 'f')}%"


def error_budget(objective: Decimal) -> Decimal:
    """`1 - objective`, exactly: 0.001 of 99.9 %."""
    return 1 - objective


def quality_better(metric: str, better: str | None, threshold: Decimal | None) -> str:
    """`higher` or `lower`: where a measure of a model's quality is better.

    Known of the measures in BETTER; of another `better` has to say it. Raises ValueError, with the advice in
    it, for one that does not, for one that says the opposite of what is known, and for a threshold that no
    value of the measure, or every one, keeps.
    """
    known = BETTER.get(metric)
    if known is None and better is None:
        raise ValueError(
            f"{metric[:40]!r} is no measure of mlobs's own, so say which way is better: `better: higher` or "
            f"`better: lower`; {nearest(metric, BETTER)}"
        )
    if known is not None and better not in (None, known):
        raise ValueError(f"{known} is better of {metric}: drop `better: {better}`")
    if threshold is not None and known is not None:
        if metric in _SHARES and not 0 <= threshold <= 1:
            raise ValueError(f"{metric} lies between 0 and 1: write a threshold like 0.8, not {threshold}")
        if threshold < 0:
            raise ValueError(f"{metric} is never below zero: every look would be bad at {threshold}")
    return known or better or "higher"
