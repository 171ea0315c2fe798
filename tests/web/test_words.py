"""Numbers and times as people read them."""

from decimal import Decimal

import pytest

from mlobs.web import words
from tests.web import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "50 %"),
        (0.123, "12.3 %"),
        (0.0, "0 %"),
        (0.0002, "< 0.1 %"),
        (-0.0002, "> -0.1 %"),
        (1.0, "100 %"),
        (None, "no data"),
        (float("nan"), "no data"),
        (float("inf"), "no data"),
    ],
)
def test_a_share_reads_as_percent_and_never_as_zero_when_it_is_small(value: float | None, text: str) -> None:
    assert words.percent(value) == text


@pytest.mark.parametrize("objective", ["0.999", "0.99", "0.9", "0.99995", "0.5"])
def test_an_objective_keeps_its_digits(objective: str) -> None:
    assert Decimal(words.ratio(Decimal(objective)).removesuffix(" %")) / 100 == Decimal(objective)


def test_a_budget_says_what_is_left_what_was_spent_and_when_it_is_gone() -> None:
    available, p99, data, drift = figures.slos()
    assert words.left(available) == "86 % left"
    assert words.spent(available) == "3 of 21\u2009340 requests failed"
    assert words.target(available) == "99.9 % of requests answered without an error, over 31\u00a0d"
    assert words.runs_out(p99, figures.NOW) == "gone in 2\u00a0d\u00a04\u00a0h at this rate"
    assert words.left(data) == "spent, 76 % over"
    assert words.runs_out(data, figures.NOW) == ""
    assert (words.left(drift), words.spent(drift)) == ("no data", "no days seen")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_what_is_not_known_is_said_so(value: float | None) -> None:
    for say in (words.percent, words.count, words.number, words.rate, words.duration):
        assert say(value) == "no data"
    assert words.moment(value, "UTC") == "no data"
    assert words.iso(value) is None


def test_a_time_is_told_in_its_zone_and_the_zone_with_it() -> None:
    assert words.moment(figures.START, figures.ZONE) == "Fri 1 Mar 2013, 00:00 EST"
    assert words.moment(figures.START, "UTC") == "Fri 1 Mar 2013, 05:00 UTC"


def test_a_window_of_a_day_is_called_by_its_day_also_when_the_clock_changes() -> None:
    spring = figures.drift().windows[9]
    assert spring[1] - spring[0] == 23 * 3600
    assert words.window(*spring, figures.ZONE) == "Sun 10 Mar"
    assert words.window(figures.START + 3600, figures.START + 7200, figures.ZONE) == "1 Mar, 01:00 – 02:00"


def test_a_stage_that_took_no_time_to_speak_of_keeps_its_digits() -> None:
    assert words.duration(0.0004) == "400\u00a0µs"
    assert words.duration(0.0031) == "3.1\u00a0ms"
    assert words.duration(0.222) == "222\u00a0ms"
    assert words.duration(0) == "0\u00a0ms"
