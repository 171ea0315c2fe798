"""Durations, objectives, slices and secrets."""

from __future__ import annotations

import os
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlobs.durations import format_duration, parse_duration, speak_duration
from mlobs.errors import ConfigError, nearest, shown
from mlobs.objectives import error_budget, parse_objective, show_objective
from mlobs.records import Ledger
from mlobs.secret import Secret
from mlobs.slices import slice_at, slices_between

NEW_YORK = "America/New_York"


def utc(year: int, month: int, day: int, hour: int = 0) -> float:
    return datetime(year, month, day, hour, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", "0.1"), ("1h30m", "5400"), ("30d", "2592000"), ("1.5s", "1.5"), (" 2w ", "1209600")],
)
def test_a_duration_is_read_exactly(text: str, seconds: str) -> None:
    assert parse_duration(text) == Decimal(seconds)


@pytest.mark.parametrize("text", ["", "100", "1 d", "-5m", "5min", "1e3s", "5m x"])
def test_what_could_mean_anything_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_written_duration_reads_back_as_itself(microseconds: int) -> None:
    seconds = Decimal(microseconds) / 1_000_000
    assert parse_duration(format_duration(seconds)) == seconds


def test_durations_are_spoken_in_two_units() -> None:
    assert speak_duration(273_600) == "3 d 4 h"
    assert speak_duration(86_400) == "1 d"
    assert speak_duration(0.85) == "850 ms"
    assert speak_duration(float("inf")) == "for ever"


@pytest.mark.parametrize("text", ["99.9%", "0.999", "99.90 %"])
def test_an_objective_is_exact(text: str) -> None:
    objective = parse_objective(text)
    assert str(error_budget(objective).normalize()) == "0.001"
    assert show_objective(objective) == "99.9%"


@pytest.mark.parametrize("text", ["99.9", "1", "100%", "0", "-1%", "nan", "inf", "abc", ""])
def test_an_ambiguous_or_impossible_objective_is_refused_with_advice(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|did you mean"):
        parse_objective(text)


def test_advice_for_an_objective_is_one_that_would_be_taken() -> None:
    for text, advice in (("99.9", "did you mean 99.9% ?"), ("999", "write 99.9%"), ("150%", "write 99.9%")):
        with pytest.raises(ValueError, match=advice):
            parse_objective(text)


def test_a_day_with_a_clock_change_is_one_slice_of_23_hours() -> None:
    spring = slice_at(utc(2013, 3, 10, 12), 86400, NEW_YORK)
    assert spring == (utc(2013, 3, 10, 5), utc(2013, 3, 11, 4))
    assert spring.length == 23 * 3600


def test_short_slices_end_on_full_minutes() -> None:
    assert slice_at(125.0, 60) == (120.0, 180.0)
    assert slice_at(120.0, 60).start == 120.0


@pytest.mark.parametrize("length", [0, -60, 7 * 60, 86400 * 1.5])
def test_a_slice_that_would_drift_against_the_clock_is_refused(length: float) -> None:
    with pytest.raises(ValueError, match="slice"):
        slice_at(0.0, length)


def test_slices_of_a_month_cover_it_without_gap_or_overlap() -> None:
    days = slices_between(utc(2013, 3, 1, 5), utc(2013, 4, 1, 4), 86400, NEW_YORK)
    assert len(days) == 31
    assert all(a.end == b.start for a, b in pairwise(days))


def test_a_secret_shows_its_field_and_never_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("xoxb-very-secret\n")
    secret = Secret("notify.channels.oncall.slack.token_file", file=str(file))
    assert secret.reveal() == "xoxb-very-secret"
    monkeypatch.setenv("TOKEN", "from-environment")
    assert Secret("f", env="TOKEN").reveal() == "from-environment"
    assert b"xoxb" not in pickle.dumps(secret)
    assert "xoxb" not in f"{secret} {secret!r}"
    os.truncate(file, 0)
    with pytest.raises(ConfigError, match="got nothing"):
        secret.reveal()


def test_a_value_that_refuses_to_be_shown_is_still_reported() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "repr raised" in shown(Broken())
    assert "\\udc00" in shown("\udc00")
    assert len(shown("x" * 1000)) == 80


def test_a_typo_gets_the_nearest_name() -> None:
    assert nearest("treshold", ["threshold", "metric"]) == "did you mean 'threshold'?"
    assert nearest("qqq", ["a", "b"]) == "known names: a, b"


def test_a_ledger_balances_exactly_or_says_so() -> None:
    assert Ledger("p", 10, 6, {"full": 3}, 1).balanced
    assert not Ledger("p", 10, 6, {"full": 3}, 0).balanced
