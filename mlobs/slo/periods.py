"""Where a period begins and how long it is: so many days back, or at the first of the month or quarter in a
zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from mlobs.settings import ObjectiveSettings


def period_of(objective: ObjectiveSettings, now: float) -> tuple[float, float]:
    """Start of the period that holds `now`, in seconds since the epoch, and its true length in seconds."""
    if objective.calendar is None:
        return now - objective.period, objective.period
    zone = ZoneInfo(objective.zone)
    local = datetime.fromtimestamp(now, zone)
    months = 1 if objective.calendar == "month" else 3
    first = (local.month - 1) // months * months
    start = datetime(local.year, first + 1, 1, tzinfo=zone).timestamp()
    after = first + months
    end = datetime(local.year + after // 12, after % 12 + 1, 1, tzinfo=zone).timestamp()
    return start, end - start
