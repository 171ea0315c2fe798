"""What a page says, and that it stays short and printable."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mlobs.notify.channels.base import Message
from mlobs.notify.channels.console import ConsoleChannel
from mlobs.notify.compose import cleaned_parts, compose, trial_page
from mlobs.notify.drawing import MOST_LINES, WIDTH, plain
from mlobs.notify.grouping import Grouping, absorb
from mlobs.notify.incident import incident_key
from mlobs.notify.page import (
    ChangeFinding,
    FeatureFinding,
    PageParts,
    SegmentHit,
    StageFinding,
    TraceFinding,
    decode_page,
    encode,
)
from mlobs.notify.text import clean
from tests.notify.desks import T0, an_alert, an_incident, make_settings, with_objective

FULL = PageParts(
    features=(
        FeatureFinding(
            "temp", "check:range", 0.93, 0.05, "below the training minimum: Celsius?", "mend the feed"
        ),
    ),
    segments=(SegmentHit("carrier=UA", 41, 300),),
    stage=StageFinding("inference", 0.412, 0.0004, 0.93),
    traces=(
        TraceFinding(
            "4bf92f3577b34da6a3ce929d0e0e4736", "p1", 0.512, {"inference": 0.49}, "https://t.example/4bf9"
        ),
    ),
    change=ChangeFinding(T0 - 120, "deploy", "2026-11-02"),
    versions=("2026-11-01",),
    dashboard="https://grafana.example/d/x?from=1&to=2",
)


def test_a_full_page_answers_the_first_five_questions():
    text = "\n".join(plain(compose(an_incident(parts=FULL), make_settings(), T0 + 600)))
    assert text == (
        "PAGE fraud: latency burns its budget 14.4 times too fast; broken: temp\n"
        "prod/fraud-api/fraud/latency since 2013-03-20 05:00 UTC, for 10 min\n"
        "What burns\n"
        "  fraud-latency (latency, page), 14.4 times too fast over 1 h, 42 bad of 1,000, budget left 31 %\n"
        "Whom it hits\n"
        "  version 2026-11-01\n"
        "  segment carrier=UA: 41 bad of 300\n"
        "Features\n"
        "  temp, check:range 0.93 over 0.05: below the training minimum: Celsius?\n"
        "  repair: mend the feed\n"
        "Slowest stage\n"
        "  inference, p99 412 ms where 0.4 ms is usual, 93 % of the time\n"
        "Traces\n"
        "  4bf92f3577b34da6a3ce929d0e0e4736, 512 ms: inference 490 ms https://t.example/4bf9\n"
        "Suspected change\n"
        "  2013-03-20 04:58 UTC deploy: 2026-11-02 (2 min before)\n"
        "Links\n"
        "  runbook: https://runbooks.example/fraud\n"
        "  dashboard: https://grafana.example/d/x?from=1&to=2\n"
        f"  incident: https://mlobs.example/incidents/{an_incident().id}"
    )


def test_the_runbook_of_the_objective_goes_before_that_of_the_model():
    told = with_objective(make_settings(), "fraud-latency", "https://runbooks.example/latency")
    assert compose(an_incident(), told, T0).runbook == "https://runbooks.example/latency"


def test_a_page_survives_its_json():
    page = compose(an_incident(parts=FULL), make_settings(), T0)
    assert decode_page(encode(page)) == page


def test_keys_of_different_incidents_never_collide():
    one = incident_key(an_alert(model="a/b", service="c"))
    two = incident_key(an_alert(model="b", service="c/a"))
    assert one != two
    assert incident_key(an_alert(model="a/b")) == "prod/fraud-api/a%2Fb/latency"


_number = st.none() | st.floats() | st.integers(-(2**60), 2**60).map(float)
_text = st.text(st.characters(), max_size=300)  # lone surrogates and controls too
_feature = st.builds(FeatureFinding, _text, _text, _number, _number, _text, _text, _text, _number)
_trace = st.builds(
    TraceFinding, _text, _text, _number, st.dictionaries(_text, st.floats(), max_size=4), _text, _text
)
_parts = st.builds(
    PageParts,
    st.lists(_feature, max_size=9).map(tuple),
    st.lists(st.builds(SegmentHit, _text, _number, _number), max_size=9).map(tuple),
    st.none() | st.builds(StageFinding, _text, _number, _number, _number),
    st.lists(_trace, max_size=9).map(tuple),
    st.none() | st.builds(ChangeFinding, st.floats(), _text, _text),
    st.lists(_text, max_size=9).map(tuple),
    _text,
    st.lists(_text, max_size=9).map(tuple),
)
_alerts = st.lists(
    st.builds(
        lambda texts, numbers: an_alert(
            texts[0],
            name=texts[1],
            feature=texts[2],
            segment=texts[3],
            summary=texts[4],
            model_version=texts[5],
            severity=texts[6],
            burn_rate=numbers[0],
            budget_remaining=numbers[1],
            exhausted_at=numbers[2],
            bad=numbers[3],
            total=numbers[4],
        ),
        st.lists(_text, min_size=7, max_size=7),
        st.lists(_number, min_size=5, max_size=5),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=150, deadline=None)
@given(_alerts, _parts)
def test_whatever_comes_in_a_page_is_at_most_40_printable_lines_and_strict_json(alerts, parts):
    changes = absorb([], alerts, T0, Grouping())
    for change in changes:
        page = compose(replace(change.incident, parts=cleaned_parts(parts)), make_settings(), T0)
        lines = plain(page)
        assert len(lines) <= MOST_LINES
        assert all(len(line) <= WIDTH + 2 and line.isprintable() for line in lines)
        "\n".join(lines).encode()
        assert decode_page(encode(page)) == page


def test_what_is_longest_still_ends_with_its_links():
    many = PageParts(
        features=tuple(FeatureFinding(f"f{n}", "psi", 1.0, 0.1, "cause", "repair") for n in range(9)),
        segments=tuple(SegmentHit(f"s{n}", 1, 2) for n in range(9)),
        stage=StageFinding("inference", 1.0),
        traces=tuple(TraceFinding(f"t{n}") for n in range(9)),
        change=ChangeFinding(T0, "deploy", "x"),
        versions=("1",),
        dashboard="https://grafana.example/d/x",
        notes=("one", "two", "three"),
    )
    alerts = [an_alert(f"cause{n}") for n in range(9)]
    lines = plain(compose(an_incident(*alerts, parts=many), make_settings(), T0))
    assert len(lines) == MOST_LINES
    assert lines[-1].startswith("  incident: https://")
    page = replace(compose(an_incident(*alerts, parts=many), make_settings(), T0), changed=("a", "b"))
    assert plain(page)[0] == "New: a; b"
    assert len(plain(page)) == MOST_LINES
    assert plain(page)[-1] == lines[-1]


def test_a_long_cause_is_folded_and_not_cut():
    cause = (
        "observed 5/50/95 %: 3.898, 4.391, 6.016; " * 4
        + "values look like a change of unit: Fahrenheit to Celsius"
    )
    parts = PageParts(features=(FeatureFinding("temp", "check:range", 0.9, 0.05, cause),))
    lines = plain(compose(an_incident(parts=parts), make_settings(), T0))
    assert "Celsius" in "\n".join(lines)
    assert max(len(line) for line in lines) <= 110


def test_tiers_of_one_objective_are_one_line_and_the_page_names_the_page():
    ticket = an_alert("data_quality", severity="ticket", burn_rate=6.35)
    breach = an_alert("drift", slo="", kind="breach", feature="temp", burn_rate=None, budget_remaining=None)
    page = compose(an_incident(ticket, replace(ticket, name="slow"), breach), make_settings(), T0)
    assert page.title == "fraud: drift; broken: temp"
    assert [one.name for one in page.burns] == ["fraud-drift", "fraud-data_quality"]


def test_what_is_absent_says_so_in_its_title():
    absent = an_alert("absent", burn_rate=None, summary="no target shows its data since 05:00")
    assert compose(an_incident(absent), make_settings(), T0).title == (
        "fraud: absent: no target shows its data since 05:00"
    )


def test_a_budget_that_is_gone_is_spent_and_not_left():
    for alert in (an_alert(budget_remaining=-0.5), an_alert(budget_remaining=0.1, exhausted_at=T0 - 1)):
        text = "\n".join(plain(compose(an_incident(alert), make_settings(), T0)))
        assert "budget spent" in text
        assert "budget left" not in text


def test_times_are_shown_in_the_zone_of_the_objectives():
    settings = make_settings()
    settings = replace(settings, slo=replace(settings.slo, zone="America/New_York"))
    assert "since 2013-03-20 01:00 EDT" in plain(compose(an_incident(), settings, T0))[1]


def test_clean_keeps_letters_and_drops_what_hides_or_breaks():
    assert clean(" a\tb\nc\u202ed\x00e\ud800f ü 温 ") == "a b cdef ü 温"
    assert clean("x" * 500, 10) == "x" * 9 + "…"


def test_the_console_prints_the_page_once_and_the_resolution_shortly():
    printed: list[str] = []
    channel = ConsoleChannel("terminal", printed.append)
    page = compose(an_incident(parts=FULL), make_settings(), T0)
    assert channel.send(Message("firing", page, "k", 1, T0)).sent
    assert channel.send(Message("resolved", page, "k", 2, T0)).sent
    assert "Slowest stage" in printed[0]
    assert printed[1].count("\n") == 4


def test_a_closed_terminal_is_a_failure_to_try_again():
    def closed(text: str) -> None:
        raise BrokenPipeError

    outcome = ConsoleChannel("terminal", closed).send(
        Message("firing", trial_page(make_settings(), T0), "k", 1, T0)
    )
    assert (outcome.sent, outcome.retry) == (False, True)


def test_a_budget_that_is_spent_to_the_last_event_has_no_minus_nought():
    spent = plain(compose(an_incident(an_alert(budget_remaining=0.0)), make_settings(), T0))
    assert any("budget spent" in line for line in spent)
    assert not any(" -0" in line or "0 % over" in line for line in spent)
