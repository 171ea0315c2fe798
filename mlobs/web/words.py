"""Numbers and times in people's words. Pure; every function takes None for what is not known and says so."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from mlobs.durations import speak_duration
from mlobs.web.model import (
    ABSENT,
    BURNING,
    DRIFTED,
    EXHAUSTED,
    INSUFFICIENT,
    LOW_TRAFFIC,
    OK,
    YOUNG,
    SloView,
)

UNKNOWN: Final = "no data"

STATE_WORDS: Final = {
    OK: "ok",
    BURNING: "burning",
    EXHAUSTED: "budget spent",
    ABSENT: "no data",
    DRIFTED: "drifted",
    INSUFFICIENT: "not judged",
    LOW_TRAFFIC: "few events",
    YOUNG: "too young to judge",
    "open": "open",
    "resolved": "resolved",
    "page": "page",
    "ticket": "ticket",
    "sent": "sent",
    "acknowledged": "acknowledged",
    "pending": "waiting",
    "sending": "on its way",
    "failed": "failed",
}

_KIND_WORDS: Final = {
    "availability": "requests answered without an error",
    "latency": "requests within {threshold}",
    "p99": "{unit} whose p99 is within {threshold}",
    "data_quality": "rows that pass every check",
    "drift": "{unit} without a drift verdict",
    "freshness": "time with data no older than {threshold}",
    "good_prediction": "predictions fast, valid, fresh and successful at once",
    "model_quality": "{unit} with the quality asked for",
    "ratio": "good events",
    "boolean": "time in the good state",
}
_BAD_WORDS: Final = {
    "availability": "failed",
    "latency": "too slow",
    "p99": "too slow",
    "data_quality": "failed a check",
    "drift": "drifted",
    "freshness": "stale",
}


def known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def state(name: str) -> str:
    return STATE_WORDS.get(name, name)


def percent(value: float | None, digits: int = 1) -> str:
    """`0.123` as `12.3 %`, `0.5` as `50 %`. A share that is small but not zero never reads `0 %`."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value * 100:.{digits}f}"
    if float(text) == 0 and value != 0:
        bound = f"{10.0**-digits:.{digits}f}"
        return f"< {bound} %" if value > 0 else f"> -{bound} %"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} %"


def ratio(value: Decimal) -> str:
    """An objective, exactly as it was written: `0.999` as `99.9 %`."""
    return f"{format((value * 100).normalize(), 'f')} %"


def count(value: float | None) -> str:
    """Whole numbers with a thin space between thousands."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}".replace(",", "\u2009")


def number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.3g}" if abs(value) < 1000 else count(value)


def value(given: object) -> str:
    """A feature or prediction: floats to six digits, everything else as it is."""
    return f"{given:.6g}" if isinstance(given, float) else str(given)


def rate(value: float | None) -> str:
    """A burn rate: how many times faster than the objective allows."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.0f}×" if value >= 10 else f"{value:.1f}×"


def duration(seconds: float | None) -> str:
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if 0 < abs(seconds) < 0.001:
        return f"{seconds * 1e6:.0f}\u00a0µs"
    if 0 < abs(seconds) < 0.01:  # stages are often as short
        return f"{seconds * 1000:.2g}\u00a0ms"
    return _together(speak_duration(seconds))


def _together(text: str) -> str:
    """No line break between a number and its unit."""
    return text.replace(" ", "\u00a0")


def zone_of(name: str) -> ZoneInfo:
    return ZoneInfo(name or "UTC")


def moment(at: float | None, zone: str) -> str:
    """`Thu 14 Mar 2013, 20:00 EDT`."""
    if at is None or not math.isfinite(at):
        return UNKNOWN
    when = datetime.fromtimestamp(at, zone_of(zone))
    return f"{when:%a} {when.day} {when:%b %Y, %H:%M} {when:%Z}"


def short_moment(at: float | None, zone: str) -> str:
    """`14 Mar, 20:00`: where the zone stands beside it already."""
    if at is None or not math.isfinite(at):
        return UNKNOWN
    when = datetime.fromtimestamp(at, zone_of(zone))
    return f"{when.day} {when:%b, %H:%M}"


def day(at: float, zone: str) -> str:
    when = datetime.fromtimestamp(at, zone_of(zone))
    return f"{when.day} {when:%b}"


def window(start: float, end: float, zone: str) -> str:
    """A window as its day where it is one, else as its span."""
    first, last = datetime.fromtimestamp(start, zone_of(zone)), datetime.fromtimestamp(end, zone_of(zone))
    if (first.hour, first.minute, last.hour, last.minute) == (0, 0, 0, 0):
        return f"{first:%a} {first.day} {first:%b}"
    if first.date() == last.date():
        return f"{first.day} {first:%b, %H:%M} – {last:%H:%M}"
    return f"{first.day} {first:%b, %H:%M} – {last.day} {last:%b, %H:%M}"


def iso(at: float | None) -> str | None:
    if at is None or not math.isfinite(at):
        return None
    return datetime.fromtimestamp(at, ZoneInfo("UTC")).isoformat().replace("+00:00", "Z")


def target(slo: SloView) -> str:
    """`99 % of days whose p99 is within 100 ms, over 30 d`."""
    threshold = duration(slo.threshold_s) if slo.threshold_s is not None else "the threshold"
    what = _KIND_WORDS.get(slo.kind, "good {unit}").format(threshold=threshold, unit=slo.unit)
    period = f"each {slo.calendar}" if slo.calendar else f"over {duration(slo.period_s)}"
    return f"{ratio(slo.objective)} of {what}, {period}"


def spent(slo: SloView) -> str:
    """`27 of 930 requests too slow`."""
    if slo.bad is None or slo.total is None or not slo.total > 0 or not known(slo.bad + slo.total):
        return f"no {slo.unit} seen"
    return f"{count(slo.bad)} of {count(slo.total)} {slo.unit} {_BAD_WORDS.get(slo.kind, 'bad')}"


def left(slo: SloView) -> str:
    """`62 % left`, `spent, 40 % over`, `spent 5.2 times`."""
    if slo.remaining is None or not math.isfinite(slo.remaining):
        return UNKNOWN
    if slo.remaining <= 0:
        over = -slo.remaining
        if over < 0.005:
            return "spent"
        return f"spent, {percent(over, 0)} over" if over < 1 else f"spent {1 + over:.1f} times"
    return f"{percent(slo.remaining, 0)} left"


def runs_out(slo: SloView, now: float | None) -> str:
    """`gone in 2 d 3 h at this rate`, or nothing where it does not run out."""
    if slo.remaining is None or slo.exhausted_at is None or now is None or slo.remaining <= 0:
        return ""
    rest = slo.exhausted_at - now
    if rest > slo.period_s:
        return ""  # it lasts longer than it has to
    return f"gone in {duration(rest)} at this rate" if rest > 0 else "about to be gone"
