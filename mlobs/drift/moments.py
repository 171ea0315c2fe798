"""Values of a column as people read them: times as times, what was counted of them being seconds. Pure."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from mlobs.durations import speak_duration

MOMENT: Final = "moment"
DATE: Final = "date"
CLOCK: Final = "clock"
SPAN: Final = "span"
_SORTS = {
    "timestamp": MOMENT,
    "date32": DATE,
    "date64": DATE,
    "time32": CLOCK,
    "time64": CLOCK,
    "duration": SPAN,
}
_TIME = re.compile(r"(?:dictionary<values=|run_end_encoded<run_ends: int\d\d, values: )?(\w+)\[")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86400.0


def sort_of(arrow: str) -> str:
    """What a column's values are, from the text of its Arrow type; "" for what are no times."""
    found = _TIME.match(arrow)
    return _SORTS.get(found[1], "") if found else ""


def said(value: float, arrow: str, digits: int = 6) -> str:
    """A value of a column of type `arrow`: `2026-03-01 12:00:00 UTC` (without UTC where the column has no
    zone), a date, a time of day, a duration; else the number with so many digits."""
    text = _text(value, arrow)
    return f"{value:.{digits}g}" if text is None else text


def axis_text(value: float, span: float, arrow: str) -> str:
    """The same for an axis of `span` seconds: short."""
    text = _text(value, arrow)
    if text is None:
        return f"{value:.4g}"
    if sort_of(arrow) != MOMENT:
        return text
    return text[:10] if span >= 3 * _DAY else text[5:16] if span >= 600 else text.removesuffix(" UTC")


def _text(value: float, arrow: str) -> str | None:
    sort = sort_of(arrow)
    if not sort or not math.isfinite(value):
        return None
    if sort == SPAN:
        return _span_text(value)
    try:
        moment = _EPOCH + timedelta(seconds=value if abs(value) > 1e-3 else 0.0)
    except OverflowError:
        return None
    if sort == DATE:
        return date.isoformat(moment.date())
    exact = "seconds" if moment.microsecond == 0 else "milliseconds"
    if sort == CLOCK:
        return moment.time().isoformat(exact)
    whole = moment.replace(tzinfo=None).isoformat(" ", exact)
    return f"{whole} UTC" if "tz=" in arrow else whole


def _span_text(value: float) -> str:
    """A duration; a short one with four digits, for microseconds differ."""
    if value == 0 or abs(value) >= 60:
        return speak_duration(value or 0.0)
    return f"{value:.4g} s" if abs(value) >= 1 else f"{value * 1000:.4g} ms"
