"""Silences, inhibition, escalation, fallback, routes by the hour: who is told when, and when nobody is."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlobs.config import parse_settings
from mlobs.errors import ConfigError
from mlobs.notify import keeping, read
from mlobs.notify.retry import Outcome, Reason, sent
from mlobs.notify.routing import Silence, route, within
from mlobs.settings import EscalationSettings, MaintenanceSettings, RouteSettings, TimesSettings
from tests.notify.desks import T0, Told, an_alert, an_incident, ceased, make_desk, make_settings, make_store


def failing(message: object) -> Outcome:
    return Outcome(False, Reason.SERVER_ERROR, True, whole_channel=True)


def test_a_channel_without_success_is_replaced_by_the_fallback_after_the_stated_time():
    slack, phone = Told("slack", answer=failing), Told("phone")
    settings = make_settings(
        "slack", "phone", routes=[RouteSettings({}, ("slack",))], fallback="phone", fallback_after=300.0
    )
    desk = make_desk(slack, phone, settings=settings)
    desk.receive([an_alert()], T0)
    for seconds in range(0, 300, 10):
        desk.pump(T0 + seconds)
    assert phone.kinds == []
    desk.pump(T0 + 300)
    desk.pump(T0 + 900)
    assert phone.kinds == ["firing"], "once, however long it lasts"


def test_a_message_that_is_refused_for_good_goes_to_the_fallback_at_once():
    slack, phone = Told("slack", answer=lambda message: Outcome(False, Reason.REJECTED)), Told("phone")
    settings = make_settings("slack", "phone", routes=[RouteSettings({}, ("slack",))], fallback="phone")
    desk = make_desk(slack, phone, settings=settings)
    desk.receive([an_alert()], T0)
    desk.pump(T0)
    desk.pump(T0 + 1)
    assert phone.kinds == ["firing"]


def test_nobody_acknowledging_wakes_the_next_and_acknowledging_spares_them():
    first, second, third = Told("first"), Told("second"), Told("third")
    steps = (EscalationSettings(900.0, ("second",)), EscalationSettings(1800.0, ("boss",)))
    settings = make_settings(
        "first", "second", "third",
        routes=[RouteSettings({}, ("first",), escalate=steps)], people={"boss": ("third",)},
    )  # fmt: skip
    desk = make_desk(first, second, third, settings=settings)
    (incident,) = desk.receive([an_alert()], T0)
    for minute in range(29):
        desk.receive([an_alert()], T0 + 60 * minute)
        desk.pump(T0 + 60 * minute)
    assert (first.kinds, second.kinds, third.kinds) == (["firing"], ["firing"], [])
    desk.acknowledge(incident.id, "ada", T0 + 60 * 29)
    desk.pump(T0 + 60 * 60)
    assert third.kinds == []


def test_a_silenced_incident_is_told_when_the_silence_ends_and_it_still_fires():
    channel, store = Told(), make_store()
    desk = make_desk(channel, store=store)
    keeping.silence(store, Silence(0, {"model": "fraud"}, T0 - 1, T0 + 600, "ada", "known"))
    (incident,) = desk.receive([an_alert()], T0)
    assert incident.muted == "silenced by ada until 2013-03-20 05:10 UTC: known"
    for seconds in range(0, 600, 30):
        desk.receive([an_alert()], T0 + seconds)
        desk.pump(T0 + seconds)
    assert channel.kinds == []
    desk.pump(T0 + 600)
    assert channel.kinds == ["firing"]


def test_what_heals_under_a_silence_is_never_told():
    channel, store = Told(), make_store()
    desk = make_desk(channel, store=store)
    keeping.silence(store, Silence(0, {}, T0 - 1, T0 + 3600, "ada"))
    desk.receive([an_alert()], T0)
    desk.receive([ceased(an_alert(), T0 + 60)], T0 + 60)
    for minute in range(120):
        desk.pump(T0 + 60 * minute)
    assert channel.kinds == []
    assert [one.state for one in read.incidents(store, make_settings())] == ["resolved"]


def test_a_silence_of_another_model_and_one_that_is_over_mute_nothing():
    channel, store = Told(), make_store()
    desk = make_desk(channel, store=store)
    keeping.silence(store, Silence(0, {"model": "other"}, T0 - 1, T0 + 3600, "ada"))
    keeping.silence(store, Silence(0, {"model": "fraud"}, T0 - 100, T0, "ada"))
    desk.receive([an_alert()], T0)
    desk.pump(T0)
    assert channel.kinds == ["firing"]


def test_a_maintenance_window_mutes_by_date_or_by_the_hour():
    night = TimesSettings((0, 1, 2, 3, 4, 5, 6), 4 * 3600.0, 6 * 3600.0)
    for window in (
        MaintenanceSettings({"model": "fraud"}, T0 - 10, T0 + 10),
        MaintenanceSettings({"severity": "page"}, times="night"),
    ):
        channel = Told()
        settings = make_settings(times={"night": night}, maintenance=(window,))
        desk = make_desk(channel, settings=settings)
        desk.receive([an_alert()], T0)
        desk.pump(T0)
        assert channel.kinds == []
    forgotten = make_settings(maintenance=(MaintenanceSettings({"model": "fraud"}),))
    channel = Told()
    desk = make_desk(channel, settings=forgotten)
    desk.receive([an_alert()], T0)
    desk.pump(T0)
    assert channel.kinds == ["firing"], "a window without an end would mute for ever"


def test_a_ticket_under_a_page_of_the_same_model_waits_until_the_page_has_healed():
    channel = Told(updates=False)
    desk = make_desk(channel)
    page, ticket = an_alert("latency"), an_alert("drift", severity="ticket")
    desk.receive([page], T0)
    later = T0 + 7200
    desk.receive([page, ticket], later)
    desk.pump(later)
    assert [one.page.severity for one in channel.got] == ["page"]
    desk.receive([ceased(page, later + 60), ticket], later + 60)
    desk.pump(later + 60)
    desk.receive([ticket], later + 90)
    desk.pump(later + 90)
    assert [one.page.severity for one in channel.got] == ["page", "ticket"]


def test_routes_follow_the_hours_of_their_zone():
    office = TimesSettings((0, 1, 2, 3, 4), 9 * 3600.0, 17 * 3600.0, "Europe/Berlin")
    settings = make_settings(
        "desk", "phone", times={"office": office},
        routes=[RouteSettings({}, ("desk",), times="office"), RouteSettings({}, ("phone",))],
    ).notify  # fmt: skip
    day = datetime(2026, 11, 23, 8, 30, tzinfo=UTC).timestamp()  # Monday, 09:30 in Berlin
    assert route(an_incident(), settings, day).to == ("desk",)
    assert route(an_incident(), settings, day - 3600).to == ("phone",)
    assert route(an_incident(), settings, day - 86400).to == ("phone",)


def test_a_stretch_over_midnight_belongs_to_the_day_on_which_it_begins():
    friday_night = TimesSettings((4,), 22 * 3600.0, 6 * 3600.0)
    at = lambda day, hour: datetime(2026, 11, day, hour, tzinfo=UTC).timestamp()  # noqa: E731 - the 27th is a Friday
    assert [within(friday_night, at(*when)) for when in ((27, 21), (27, 23), (28, 5), (28, 6), (28, 23))] == [
        False, True, True, False, False,
    ]  # fmt: skip


def test_a_channel_that_hangs_holds_neither_the_pump_nor_the_others(tmp_path: Path):
    released = threading.Event()

    def hang(message: object) -> Outcome:
        released.wait(30)
        return sent()

    stuck, well = Told("stuck", answer=hang), Told("well")
    store = make_store(tmp_path / "state.db")
    desk = make_desk(stuck, well, store=store, inline=False)
    desk.receive([an_alert()], T0)
    began = time.monotonic()
    told = desk.pump(T0)
    assert time.monotonic() - began < 5
    assert [one.channel for one in told] == ["well"]
    desk.pump(T0 + 1)
    assert len(stuck.got) == 1, "it is not asked twice while it may still answer"
    released.set()
    deadline = time.monotonic() + 10
    found = ()
    while not found and time.monotonic() < deadline:
        found = desk.pump(T0 + 2)
    assert [one.channel for one in found] == ["stuck"]
    store.close()


def test_what_was_resolved_by_hand_and_still_fires_is_left_alone_for_an_hour():
    channel = Told()
    desk = make_desk(channel)
    (incident,) = desk.receive([an_alert()], T0)
    desk.pump(T0)
    desk.resolve(incident.id, "ada", T0 + 60)
    for minute in range(2, 60):
        desk.receive([an_alert()], T0 + 60 * minute)
        desk.pump(T0 + 60 * minute)
    assert channel.kinds == ["firing", "resolved"]
    desk.receive([an_alert()], T0 + 3661)
    desk.pump(T0 + 3661)
    assert channel.kinds == ["firing", "resolved", "firing"]


@pytest.mark.parametrize("period", [1, 60, 300, 600])
def test_square_waves_from_a_second_to_ten_minutes_page_a_few_times_and_are_detected(period: int):
    channel = Told(updates=False)
    desk = make_desk(channel)
    first = None
    for now in range(0, 6 * 3600, 30):
        alert = an_alert(at=T0 + now)
        firing = now % period < period / 2
        desk.receive([alert] if firing else [ceased(alert, T0 + now)], T0 + now)
        desk.pump(T0 + now)
        first = now if first is None and channel.got else first
    assert channel.kinds.count("firing") <= 3
    assert first == 0


def test_a_slow_wave_earns_longer_holds_and_few_pages():
    """Twenty minutes on, twenty off, for 12 hours: 18 pages without the growing hold."""
    channel = Told(updates=False)
    desk = make_desk(channel)
    for now in range(0, 12 * 3600, 60):
        alert = an_alert(at=T0 + now)
        desk.receive([alert] if now % 2400 < 1200 else [ceased(alert, T0 + now)], T0 + now)
        desk.pump(T0 + now)
    assert channel.kinds.count("firing") <= 4
    assert len({one.dedup_key for one in channel.got}) == 1


YAML = """
service: fraud-api
notify:
  channels: {oncall: {console: }, phone: {console: }}
  people: {ada: [phone]}
  times: {office: {days: mon-fri, from: "09:00", to: "17:00", timezone: Europe/Berlin}}
  routes:
    - {match: {severity: page, segment: EU}, to: [ada], times: office, escalate: [{after: 15m, to: [oncall]}]}
  maintenance: [{match: {model: fraud}, from: "2026-11-02T02:00:00+01:00", to: "2026-11-02T04:00:00+01:00"}]
  escalate: [{after: 30m, to: [oncall]}]
  fallback: ada
  hold: 2m
  heartbeat: {url_env: BEAT}
  alertmanager: {url: "http://127.0.0.1:9093", token_file: token}
"""


def test_the_file_says_all_of_it():
    notify = parse_settings(YAML, "/etc/mlobs").notify
    (one,) = notify.routes
    assert (one.to, one.times, one.escalate[0].after) == (("ada",), "office", 900.0)
    assert notify.times["office"].days == (0, 1, 2, 3, 4)
    assert notify.maintenance[0].end == datetime(2026, 11, 2, 3, tzinfo=UTC).timestamp()
    assert (notify.hold, notify.heartbeat.every) == (120.0, 60.0)  # type: ignore[union-attr]
    assert notify.alertmanager.token.file == "/etc/mlobs/token"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("ada: [phone]", "ada: [phon]", "did you mean 'phone'"),
        ("times: office, esc", "times: offize, esc", "did you mean 'office'"),
        ("to: [oncall]}]}", "to: [onkall]}]}", "did you mean 'oncall'"),
        ("mon-fri", "mon-fry", "mon-fri"),
        ('"17:00"', '"25:00"', "time of day"),
        ("+01:00", "", "zone"),
        ("segment: EU", "segmant: EU", "did you mean 'segment'"),
    ],
)
def test_a_wrong_word_is_refused_with_its_place_and_remedy(right: str, wrong: str, told: str):
    with pytest.raises(ConfigError) as caught:
        parse_settings(YAML.replace(right, wrong, 1))
    assert told in str(caught.value)
    assert "notify." in str(caught.value)


def test_the_examples_of_the_guide_are_accepted():
    guide = (Path(__file__).parents[2] / "docs" / "paging.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) == 2
    named = "ada-phone ada-mail oncall board boss phone".split()
    channels = ", ".join(f"{name}: {{console: }}" for name in named)
    parse_settings("service: s\n" + blocks[0])
    notify = parse_settings(
        "service: s\n" + blocks[1].replace("notify:", f"notify:\n  channels: {{{channels}}}", 1)
    ).notify
    assert (len(notify.routes), len(notify.maintenance), notify.fallback) == (3, 2, "phone")


def test_the_clock_of_an_incident_that_was_silenced_starts_when_people_are_told():
    first, second = Told("first"), Told("second")
    store = make_store()
    settings = make_settings("first", "second", routes=[RouteSettings({}, ("first",))])
    notify = replace(settings.notify, escalate=(EscalationSettings(900.0, ("second",)),))
    desk = make_desk(first, second, store=store, settings=replace(settings, notify=notify))
    keeping.silence(store, Silence(0, {}, T0 - 1, T0 + 3600, "ada"))
    for minute in range(80):
        desk.receive([an_alert()], T0 + 60 * minute)
        desk.pump(T0 + 60 * minute)
        if minute == 74:
            assert (first.kinds, second.kinds) == (["firing"], [])
    assert second.kinds == ["firing"]
