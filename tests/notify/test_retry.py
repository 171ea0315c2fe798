"""The retry table over every status code, and the waits."""

from __future__ import annotations

import random

import pytest

from mlobs.notify.retry import CAP_S, LONGEST_WAIT_S, Outcome, Reason, judge_status, retry_after, wait_before

NOW = 1_700_000_000.0

RETRIED = {408, 425, 429, *range(500, 600)}


def test_every_status_is_sent_or_retried_or_given_up_for_a_listed_reason():
    for status in range(100, 600):
        outcome = judge_status(status, {}, NOW)
        assert outcome.sent == (200 <= status < 300), status
        assert outcome.retry == (status in RETRIED), status
        assert outcome.reason in Reason


def test_only_what_may_have_arrived_is_uncertain():
    assert {status for status in range(100, 600) if judge_status(status, {}, NOW).uncertain} == {502, 504}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("-3", 0.0),
        ("nan", None),
        ("inf", LONGEST_WAIT_S),
        ("999999", LONGEST_WAIT_S),
        ("soon", None),
        ("", None),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0.0),
        ("Tue, 99 Nov 2023 22:13:10 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(value: str | None, seconds: float | None):
    assert retry_after(value, NOW) == seconds


def test_a_service_unavailable_that_names_a_time_is_a_rate_limit():
    outcome = judge_status(503, {"retry-after": "30"}, NOW)
    assert (outcome.reason, outcome.retry_after_s) == (Reason.RATE_LIMITED, 30.0)


def test_waits_have_full_jitter_grow_to_the_cap_and_never_undercut_what_was_asked():
    rng = random.Random(1)
    outcome = Outcome(False, Reason.SERVER_ERROR, True)
    for attempts in range(1, 2000):
        wait = wait_before(attempts, outcome, rng)
        assert 0 <= wait <= min(CAP_S, 2.0 ** min(attempts, 9))
    late = [wait_before(20, outcome, rng) for _ in range(2000)]
    assert 0.45 * CAP_S < sum(late) / len(late) < 0.55 * CAP_S
    asked = Outcome(False, Reason.RATE_LIMITED, True, 40.0)
    assert all(wait_before(1, asked, rng) >= 40 for _ in range(100))
