"""Where a period begins: so many days back, or at the first of the month or quarter in a zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from mlobs.settings import ObjectiveSettings


def period_start(objective: ObjectiveSettings, now: float) -> float:
    """Seconds since the epoch at which the period that holds `now` began."""
    if objective.calendar is None:
        return now - objective.period
    zone = ZoneInfo(objective.zone)
    local = datetime.fromtimestamp(now, zone)
    month = local.month if objective.calendar == "month" else (local.month - 1) // 3 * 3 + 1
    return datetime(local.year, month, 1, tzinfo=zone).timestamp()
