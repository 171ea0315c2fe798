"""Why a message was not delivered, whether another attempt is worth it, and when. Pure.

The table follows what the services document: Slack and PagerDuty answer 429 with Retry-After when they are
pressed, 5xx when they are ill, and 4xx when the message or the token is wrong, which no repetition mends.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum

BASE_S = 1.0
CAP_S = 300.0
LONGEST_WAIT_S = 3600.0
"""A Retry-After beyond this is taken for this: no channel may silence us for a day."""


class Reason(StrEnum):
    """Closed list: it is a metric label."""

    OK = "ok"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    REJECTED = "rejected"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    REDIRECT = "redirect"
    TOO_LARGE = "too_large"
    ADDRESS_REFUSED = "address_refused"
    CONFIGURATION = "configuration"
    MALFORMED_ANSWER = "malformed_answer"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt.

    `uncertain`: it may have arrived (a time-out after the request was written). `whole_channel`: the next
    message would fare the same, so the channel waits and not only this message.
    """

    sent: bool
    reason: Reason
    retry: bool = False
    retry_after_s: float | None = None
    uncertain: bool = False
    whole_channel: bool = False
    ref: str | None = None
    detail: str = ""
    """For people; never holds an address, a token or an answer's body."""


def sent(ref: str | None = None) -> Outcome:
    return Outcome(True, Reason.OK, ref=ref)


def judge_status(status: int, headers: Mapping[str, str], now: float) -> Outcome:
    """The outcome of an HTTP answer by its status code alone. `headers` by lower-case name."""
    detail = f"HTTP {status}"
    if 200 <= status < 300:
        return Outcome(True, Reason.OK, detail=detail)
    if status == 429 or (status == 503 and "retry-after" in headers):
        wait = retry_after(headers.get("retry-after"), now)
        return Outcome(False, Reason.RATE_LIMITED, True, wait, whole_channel=True, detail=detail)
    if status in (408, 425):
        return Outcome(False, Reason.TIMEOUT, True, whole_channel=True, detail=detail)
    if status >= 500:
        # 501 and 505 speak of the request, and yet come from proxies in trouble: trying again costs little
        return Outcome(
            False,
            Reason.SERVER_ERROR,
            True,
            uncertain=status in (502, 504),
            whole_channel=True,
            detail=detail,
        )
    if 300 <= status < 400 or status < 200:
        return Outcome(False, Reason.REDIRECT, detail=detail)
    by_code = {
        401: Reason.UNAUTHORIZED,
        403: Reason.UNAUTHORIZED,
        404: Reason.NOT_FOUND,
        410: Reason.NOT_FOUND,
    }
    reason = by_code.get(status, Reason.TOO_LARGE if status == 413 else Reason.REJECTED)
    return Outcome(False, reason, detail=detail)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds of a Retry-After header, given as seconds or as a date; None when it says nothing usable."""
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    if not seconds >= 0:  # negative or NaN
        return 0.0 if seconds < 0 else None
    return min(seconds, LONGEST_WAIT_S)


def wait_before(attempts: int, outcome: Outcome, rng: random.Random) -> float:
    """Seconds until the next attempt, after `attempts` that failed (at least 1).

    Full jitter: uniform in [0, min(cap, base * 2**attempts)], on top of what the service asked for; never
    earlier.
    """
    ceiling = min(CAP_S, BASE_S * 2.0 ** min(attempts, 20))
    return (outcome.retry_after_s or 0.0) + rng.uniform(0.0, ceiling)
