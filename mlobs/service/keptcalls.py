"""A kept call's address on the web page, and the way back from it into the feature log."""

from __future__ import annotations

import math
from collections.abc import Callable

from mlobs.featurelog.reader import LogReader
from mlobs.records import FeatureRecord

NEAR = 3600.0
"""Seconds before and after the time of an address that are looked at: people round."""


def call_link(page: str, key: str, at: float | None) -> str:
    """The address of a kept call on the web page `page`, with its time where that is known; empty without."""
    if not page:
        return ""
    return f"{page}/calls/{key}" + (f"?at={at:.0f}" if at is not None and math.isfinite(at) else "")


def call_finder(reader: LogReader | None) -> Callable[[str, float | None], FeatureRecord | None]:
    """`find(id, at)`: the kept call with that trace or prediction id; where `at` is None the newest part of
    the log is looked at, else what was logged about then.
    """

    def find(key: str, at: float | None) -> FeatureRecord | None:
        if reader is None:
            return None
        start, end = (-math.inf, math.inf) if at is None else (at - NEAR, at + NEAR)
        found = reader.find(trace_ids=[key], prediction_ids=[key], start=start, end=end, limit=1)
        return found[0] if found else None

    return find
