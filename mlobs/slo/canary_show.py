"""A verdict as JSON, as metrics, as a sentence; and blocks from JSON. Pure."""

from __future__ import annotations

import json
from typing import Any

from mlobs import names
from mlobs.errors import UnreadableError, shown
from mlobs.slo.canary import VERDICTS, Arm, Block, Verdict

_ARM = ("requests", "errors", "rows", "bad_rows")
_BINS = ("durations", "scores", "decisions")


def as_json(found: Verdict) -> dict[str, Any]:
    """Plain data; strict JSON takes all of it."""
    return {
        "verdict": found.verdict,
        "reason": found.reason,
        "at": found.at,
        "blocks": found.blocks,
        "missing_blocks": found.missing,
        "requests": {"candidate": found.requests[0], "baseline": found.requests[1]},
        "evidence": [
            {
                "metric": one.metric,
                "candidate": one.candidate,
                "baseline": one.baseline,
                "e_value": one.e_value,
                "needed": one.needed,
                "harmful": one.harmful,
                "safe": one.safe,
                "text": one.text,
            }
            for one in found.evidence
        ],
        "not_compared": dict(found.not_compared),
    }


def as_metrics(found: Verdict, model: str) -> str:
    """Prometheus text: one series a verdict, 1 for the one that holds; and the e-value of every metric."""
    label = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    verdicts = [({names.RESULT: each}, float(each == found.verdict)) for each in VERDICTS]
    odds = [({names.METRIC: one.metric}, one.e_value) for one in found.evidence]
    needed = [({names.METRIC: one.metric}, one.needed) for one in found.evidence]
    lines = []
    for name, text, values in (
        (names.CANARY_VERDICT, "The verdict that holds is 1.", verdicts),
        (names.CANARY_E_VALUE, "Odds against the candidate being no worse.", odds),
        (names.CANARY_NEEDED, "The odds that a rollback takes.", needed),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        for labels, value in values:
            own = ",".join(f'{key}="{word}"' for key, word in labels.items())
            lines.append(f'{name}{{{names.MODEL}="{label}",{own}}} {value!r}')
    return "\n".join(lines) + "\n"


def block_of(line: str, where: str) -> Block:
    """A block from a line of JSON: `{"start": 0, "end": 10, "candidate": {"requests": 900, "errors": 1,
    "durations": [...], "decisions": [...], "scores": [...], "rows": 900, "bad_rows": 2}, "baseline": {...},
    "pairs": 90, "flips": 1}`; an arm may be null. Raises UnreadableError for anything else."""
    try:
        given = json.loads(line)
        start, end = float(given["start"]), float(given["end"])
        if not start < end < 1e15:
            raise ValueError("start is not before end")
        pairs, flips = _count(given.get("pairs", 0)), _count(given.get("flips", 0))
        if flips > pairs:
            raise ValueError("more flips than pairs")
        return Block(start, end, _arm(given["candidate"]), _arm(given["baseline"]), pairs, flips)
    except KeyError as problem:
        raise UnreadableError.of(
            where, "a block as JSON (see docs/canary.md)", f"no {problem.args[0]!r}", "mend the line"
        ) from None
    except (ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise UnreadableError.of(
            where, "a block as JSON (see docs/canary.md)", shown(str(problem)), "mend the line"
        ) from None


def _arm(given: Any) -> Arm | None:
    if given is None:
        return None
    requests, errors, rows, bad = (_count(given.get(name, 0)) for name in _ARM)
    if errors > requests or bad > rows:
        raise ValueError("more errors than requests, or more bad rows than rows")
    bins = [tuple(_count(each) for each in given.get(name, ())) for name in _BINS]
    return Arm(requests, errors, bins[0], bins[1], rows, bad, bins[2])


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ValueError(f"not a count: {value!r}")
    return value
