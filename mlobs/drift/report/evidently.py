"""evidently's own report of two tables, in a process of its own: it is heavy, and never on our import path.

An edge: it starts a process.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mlobs.errors import MissingExtraError, UnavailableError, shown

WORKER = "mlobs.drift.report.evidently_worker"
_PATIENCE = 3600.0
"""Seconds: evidently takes some 270 s of CPU for 1,000,000 x 50."""


def need_evidently() -> None:
    """Raises MissingExtraError without the extra [evidently]."""
    if importlib.util.find_spec("evidently") is None:
        raise MissingExtraError.for_extra("--evidently", "evidently")


def write_evidently(
    reference: Path, current: Path, output: Path, columns: Sequence[str] | None = None
) -> None:
    """Write evidently's default drift report as HTML. Raises MissingExtraError without the extra [evidently],
    UnavailableError where its process fails."""
    need_evidently()
    command = [sys.executable, "-m", WORKER, str(reference), str(current), str(output), *(columns or ())]
    try:
        done = subprocess.run(  # noqa: S603 - our own module, the user's own files
            command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError.of(
            "--evidently", "a report within the hour", "none", "compare fewer rows or columns"
        ) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UnavailableError.of(
            "--evidently",
            "a report",
            shown(lines[-1]),
            "try --html, or fewer columns",
        )
