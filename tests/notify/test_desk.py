"""From alerts to sent messages, with a driven clock and channels that answer as told."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from mlobs.notify import read
from mlobs.notify.incident import Incident
from mlobs.notify.page import FeatureFinding, PageParts, StageFinding
from mlobs.notify.retry import Outcome, Reason, sent
from mlobs.records import TimelineEvent
from mlobs.settings import RouteSettings
from tests.notify.desks import T0, Told, an_alert, ceased, make_desk, make_settings, make_store


def test_an_alert_becomes_one_page_on_every_channel():
    one, two = Told("one"), Told("two")
    desk = make_desk(one, two)
    desk.receive([an_alert()], T0)
    sent_now = desk.pump(T0)
    assert one.kinds == two.kinds == ["firing"]
    assert {item.channel for item in sent_now} == {"one", "two"}
    assert all(item.ok and item.latency_s == 0 for item in sent_now)


def test_an_alert_that_keeps_firing_is_not_sent_again():
    channel = Told()
    desk = make_desk(channel)
    for minute in range(60):
        desk.receive([an_alert(at=T0)], T0 + 60 * minute)
        desk.pump(T0 + 60 * minute)
    assert channel.kinds == ["firing"]


def test_burn_p99_and_drift_of_one_model_at_one_time_are_one_page():
    channel = Told(updates=False)
    desk = make_desk(channel)
    desk.receive([an_alert("latency"), an_alert("availability"), an_alert("drift")], T0)
    desk.pump(T0)
    desk.receive([an_alert(one) for one in ("latency", "availability", "drift", "data_quality")], T0 + 600)
    desk.pump(T0 + 600)
    assert channel.kinds == ["firing"]


def test_an_incident_resolves_when_all_of_it_has_healed_and_stayed_so():
    channel = Told()
    desk = make_desk(channel)
    latency, drift = an_alert("latency"), an_alert("drift")
    desk.receive([latency, drift], T0)
    desk.pump(T0)
    desk.receive([ceased(latency, T0 + 60), drift], T0 + 60)
    desk.pump(T0 + 3600)
    assert channel.kinds == ["firing"]
    desk.receive([ceased(drift, T0 + 7200)], T0 + 7200)
    desk.pump(T0 + 7200 + 299)
    assert channel.kinds == ["firing"]
    desk.pump(T0 + 7200 + 300)
    assert channel.kinds == ["firing", "resolved"]
    assert channel.got[1].page.resolved_at == T0 + 7200


def test_later_trouble_of_another_kind_is_an_incident_of_its_own():
    channel = Told()
    desk = make_desk(channel)
    drift, latency = an_alert("drift"), an_alert("latency")
    desk.receive([drift], T0)
    desk.pump(T0)
    later = T0 + 5 * 86400
    desk.receive([drift, latency], later)
    desk.pump(later)
    assert channel.kinds == ["firing", "firing"]
    assert len({one.dedup_key for one in channel.got}) == 2


def test_a_cause_that_comes_back_after_resolution_is_a_new_incident_with_the_same_key():
    channel = Told()
    desk = make_desk(channel)
    for start in (T0, T0 + 86400):
        alert = an_alert(at=start)
        desk.receive([alert], start)
        desk.receive([ceased(alert, start + 600)], start + 600)
        desk.pump(start + 1200)
    assert channel.kinds == ["firing", "resolved", "firing", "resolved"]
    assert {one.page.key for one in channel.got} == {"prod/fraud-api/fraud/latency"}
    assert len({one.page.incident for one in channel.got}) == 2


def test_an_alert_that_vanishes_without_a_word_has_ceased_after_two_evaluations():
    channel = Told()
    desk = make_desk(channel)
    desk.receive([an_alert()], T0)
    desk.receive([], T0 + 30)
    desk.pump(T0 + 30 + 300)
    assert channel.kinds == ["firing"]
    desk.receive([], T0 + 400)
    desk.pump(T0 + 700)
    assert channel.kinds == ["firing", "resolved"]


def test_a_ticket_that_worsens_is_paged():
    channel, tickets = Told("oncall"), Told("board")
    routes = [RouteSettings({"severity": "page"}, ("oncall",)), RouteSettings({}, ("board",))]
    desk = make_desk(channel, tickets, settings=make_settings("oncall", "board", routes=routes))
    desk.receive([an_alert(severity="ticket")], T0)
    desk.pump(T0)
    assert (channel.kinds, tickets.kinds) == ([], ["firing"])
    desk.receive([an_alert(severity="ticket"), an_alert(severity="page")], T0 + 600)
    desk.pump(T0 + 600)
    assert channel.kinds == ["firing"]
    assert channel.got[0].page.severity == "page"


def test_an_acknowledged_ticket_that_becomes_a_page_is_open_again():
    channel = Told()
    desk = make_desk(channel)
    (incident,) = desk.receive([an_alert(severity="ticket")], T0)
    desk.pump(T0)
    desk.acknowledge(incident.id, "ada", T0 + 60)
    desk.receive([an_alert(severity="ticket"), an_alert(severity="page")], T0 + 120)
    desk.pump(T0 + 120)
    assert channel.kinds[-1] == "firing"
    assert (channel.got[-1].page.state, channel.got[-1].page.acknowledged_by) == ("firing", "")


def test_a_page_of_a_new_cause_that_joins_hours_later_is_told_aloud_and_another_tier_is_not():
    channel = Told()
    desk = make_desk(channel)
    drift, quality, tier = an_alert("drift"), an_alert("data_quality"), an_alert("drift", name="slow tier")
    desk.receive([drift], T0)
    desk.pump(T0)
    desk.receive([drift, tier], T0 + 7200)
    desk.pump(T0 + 7200)
    assert channel.kinds == ["firing", "update"]
    desk.receive([drift, tier, quality], T0 + 9000)
    desk.pump(T0 + 9000)
    assert channel.kinds == ["firing", "update", "firing"]
    assert len({one.dedup_key for one in channel.got}) == 1


def test_429_and_then_resolved_delivers_firing_and_resolved_in_this_order():
    answers = iter([Outcome(False, Reason.RATE_LIMITED, True, 900.0, whole_channel=True)])
    channel = Told(answer=lambda message: next(answers, sent()))
    desk = make_desk(channel)
    alert = an_alert()
    desk.receive([alert], T0)
    desk.pump(T0)
    desk.receive([ceased(alert, T0 + 60)], T0 + 60)
    for moment in (400, 899):
        desk.pump(T0 + moment)
    assert channel.kinds == ["firing"], "nothing leaves before Retry-After"
    desk.pump(T0 + 1200)
    assert channel.kinds == ["firing", "firing", "resolved"]


def test_a_crash_between_send_and_record_sends_again_with_the_same_key(tmp_path: Path):
    class CrashError(BaseException):
        pass

    def crash(message):
        raise CrashError

    store = make_store(tmp_path / "state.db")
    dying = Told(answer=crash)
    desk = make_desk(dying, store=store)
    desk.receive([an_alert()], T0)
    try:
        desk.pump(T0)
    except CrashError:
        store.close()
    channel = Told()
    store = make_store(tmp_path / "state.db")
    store.hold()
    make_desk(channel, store=store).pump(T0 + 1)
    store.close()
    assert channel.kinds == ["firing"]
    assert channel.got[0].dedup_key == dying.got[0].dedup_key
    assert channel.got[0].uncertain


def test_enrichers_add_what_they_found_before_the_page_leaves():
    def found(incident: Incident) -> PageParts:
        return PageParts(features=(FeatureFinding("temp", "check:range", 0.93, 0.05, "below the minimum"),))

    channel = Told()
    desk = make_desk(channel, enrichers=[found])
    desk.receive([an_alert("drift")], T0)
    desk.pump(T0)
    assert channel.kinds == ["firing"]
    assert channel.got[0].page.names == ("temp",)


def test_a_slow_enricher_holds_no_page_and_its_parts_follow():
    release = threading.Event()

    def slow(incident: Incident) -> PageParts:
        release.wait(5)
        return PageParts(stage=StageFinding("inference", 0.4, 0.008))

    def broken(incident: Incident) -> PageParts:
        raise RuntimeError("no log")

    channel = Told()
    store = make_store()
    desk = make_desk(channel, store=store, enrichers=[broken, slow])
    desk.receive([an_alert()], T0)
    desk.pump(T0)
    assert channel.kinds == ["firing"]
    assert channel.got[0].page.names == ()
    release.set()
    desk.pump(T0 + 1)
    assert channel.kinds == ["firing", "update"]
    assert channel.got[1].page.names == ("inference",)
    story = read.incident(store, make_settings(), channel.got[0].page.incident)
    assert story is not None
    assert "enricher failed" in [one.kind for one in story.timeline]


@pytest.mark.parametrize("bad", [np.float64(0.5), object(), "half"])
def test_a_part_that_cannot_be_written_costs_neither_its_page_nor_another(bad: object):
    def odd(incident: Incident) -> PageParts:
        return PageParts(stage=StageFinding("inference", bad))  # type: ignore[arg-type]

    def right(incident: Incident) -> PageParts:
        return PageParts(features=(FeatureFinding("temp"),))

    channel = Told()
    desk = make_desk(channel, enrichers=[odd, right])
    desk.receive([an_alert(), an_alert(model="other")], T0)
    desk.pump(T0)
    assert channel.kinds == ["firing", "firing"]
    assert all("temp" in one.page.names for one in channel.got)


def test_enrichers_that_hang_cost_a_few_threads_and_no_page_in_a_storm():
    release = threading.Event()

    def hang(incident: Incident) -> PageParts:
        release.wait(60)
        return PageParts()

    channel = Told(updates=False)
    desk = make_desk(channel, enrichers=[hang])
    before = threading.active_count()
    desk.receive([an_alert(model=f"m{number}") for number in range(100)], T0)
    for second in range(3):
        desk.pump(T0 + second)
        assert threading.active_count() - before <= 12
    assert channel.kinds == ["firing"] * 100
    release.set()


def test_an_alert_that_comes_and_goes_for_a_week_leaves_a_short_timeline():
    channel, store = Told(updates=False), make_store()
    desk = make_desk(channel, store=store)
    steady, restless = an_alert(), an_alert("availability")
    for minute in range(2000):
        alert = restless if minute % 2 else ceased(restless, T0)
        desk.receive([steady, alert], T0 + 60 * minute)
    story = read.incident(store, make_settings(), read.incidents(store, make_settings())[0].id)
    assert story is not None
    assert len(story.timeline) < 350


def test_an_alert_that_nothing_can_be_made_of_is_paged_about_all_the_same():
    channel = Told()
    desk = make_desk(channel)
    odd = an_alert(burn_rate="fast")
    for tick in range(2):
        with pytest.raises(TypeError):
            desk.receive([odd], T0 + tick)
    desk._emergency.wait(5)
    assert channel.kinds == ["firing"]
    assert "TypeError" in channel.got[0].page.title


def test_a_fault_in_composing_leaves_a_page_that_says_little(monkeypatch: pytest.MonkeyPatch):
    def broken(*arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("mlobs.notify.keeping.compose", broken)
    channel = Told()
    desk = make_desk(channel)
    desk.receive([an_alert()], T0)
    desk.pump(T0)
    assert channel.got[0].page.title == "fraud: latency"


def test_a_channel_whose_turn_fails_lets_the_others_send():
    def fault(message: object) -> Outcome:
        raise MemoryError

    bad, good = Told("a", answer=fault), Told("b")
    desk = make_desk(bad, good)
    desk.receive([an_alert()], T0)
    told = desk.pump(T0)
    assert {one.channel: one.reason for one in told} == {"a": "internal", "b": "ok"}


def test_a_full_disk_is_paged_straight_once_and_the_usual_way_when_there_is_room(tmp_path: Path):
    channel = Told()
    store = make_store(tmp_path / "state.db")
    desk = make_desk(channel, store=store)
    with store.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def limit(number: int) -> None:
        store.engine.dispose()
        event.listen(
            store.engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {number}").close()
        )

    limit(pages)  # SQLite says "database or disk is full" from here on
    alerts = [an_alert(model=f"m{number}", summary="x" * 300) for number in range(20)]
    for tick in range(4):
        with pytest.raises(OperationalError):
            desk.receive(alerts, T0 + 30 * tick)
        desk._emergency.wait(5)
        assert channel.kinds == ["firing"] * (tick > 0), (
            "once, and not for a store that was busy for a moment"
        )
    assert "mlobs cannot write its state" in channel.got[0].page.burns[0].summary + channel.got[0].page.title
    assert len(channel.got[0].page.burns) == 5
    limit(1_000_000)
    desk.receive(alerts, T0 + 120)
    desk.pump(T0 + 120)
    assert len(channel.got) == 21
    store.close()


def test_acknowledging_and_resolving_by_hand_is_told_and_written_down():
    channel, store = Told(), make_store()
    desk = make_desk(channel, store=store)
    (incident,) = desk.receive([an_alert()], T0)
    desk.pump(T0)
    assert desk.acknowledge(incident.id, "ada", T0 + 5) is not None
    assert desk.acknowledge(incident.id, "bob", T0 + 6) is None
    desk.pump(T0 + 6)
    assert desk.resolve(incident.id, "ada", T0 + 7) is not None
    assert desk.resolve("none such", "ada", T0 + 7) is None
    desk.pump(T0 + 8)
    assert channel.kinds == ["firing", "update", "resolved"]
    story = read.incident(store, make_settings(), incident.id)
    assert story is not None
    kinds = [one.kind for one in story.timeline]
    assert kinds == ["opened", "sent", "acknowledged", "sent", "resolved", "sent"]


def test_the_timeline_tells_of_the_burn_the_budget_and_what_was_found():
    def found(incident: Incident) -> PageParts:
        return PageParts(features=(FeatureFinding("temp", cause="looks like Celsius"),))

    channel, store = Told(), make_store()
    desk = make_desk(channel, store=store, enrichers=[found])
    alert = an_alert()
    (incident,) = desk.receive([alert], T0)
    desk.pump(T0)
    desk.receive([replace(alert, burn_rate=15.0, budget_remaining=0.2)], T0 + 200)
    desk.receive([replace(alert, burn_rate=30.0, budget_remaining=-0.1)], T0 + 400)
    story = read.incident(store, make_settings(), incident.id)
    assert story is not None
    assert [(one.kind, one.text) for one in story.timeline if one.kind in ("burn", "budget", "found")] == [
        ("found", "temp: looks like Celsius"),
        ("burn", "fraud-latency burns 30 times too fast, 15 before"),
        ("budget", "the budget of fraud-latency is spent"),
    ]


def test_the_read_model_tells_what_left_when_and_what_it_named():
    channel, store = Told(), make_store()
    desk = make_desk(channel, store=store)
    desk.event(TimelineEvent(T0 - 120, "deploy", "fraud-api", "fraud", "2026-11-02", "ci"))
    alert = an_alert("drift", feature="temp", summary="below the training minimum")
    desk.receive([alert], T0)
    desk.pump(T0 + 5)
    (row,) = read.incidents(store, make_settings(), state="open")
    (page,) = read.pages(store)
    assert (page.sent_at, page.channel, page.kind, page.names) == (T0 + 5, "oncall", "firing", ("temp",))
    story = read.incident(store, make_settings(), row.id)
    assert story is not None
    assert [one.kind for one in story.timeline] == ["deploy", "opened", "sent"]
    assert story.page.change is not None
    assert page.page.change is not None
    assert (page.page.change.at, page.page.change.text) == (T0 - 120, "2026-11-02")


def test_a_ticket_that_no_route_wants_is_listed_and_not_sent():
    channel, store = Told(), make_store()
    settings = make_settings(routes=[RouteSettings({"severity": "page"}, ("oncall",))])
    desk = make_desk(channel, store=store, settings=settings)
    desk.receive([an_alert(severity="ticket")], T0)
    assert desk.pump(T0) == ()
    assert len(read.incidents(store, settings)) == 1


def test_a_page_that_no_route_wants_goes_everywhere():
    channel = Told()
    settings = make_settings(routes=[RouteSettings({"model": "other"}, ("oncall",))])
    desk = make_desk(channel, settings=settings)
    desk.receive([an_alert()], T0)
    desk.pump(T0)
    assert channel.kinds == ["firing"]


def test_a_message_that_is_refused_for_good_is_failed_and_said_so():
    channel, store = Told(answer=lambda message: Outcome(False, Reason.REJECTED)), make_store()
    desk = make_desk(channel, store=store)
    desk.receive([an_alert()], T0)
    desk.pump(T0)
    desk.pump(T0 + 3600)
    assert channel.kinds == ["firing"]
    page, printed = read.pages(store, sent_only=False)
    assert (page.state, page.reason) == ("failed", "rejected")
    assert (printed.state, printed.channel) == ("sent", "last-resort")


def test_an_outage_that_joins_a_drift_incident_is_told_aloud_where_no_updates_go_and_names_the_page():
    console = Told("console", updates=False)
    desk = make_desk(console, settings=make_settings("console"))
    drift = an_alert("drift", burn_rate=None, feature="country", summary="country broke its check")
    desk.receive([drift], T0)
    desk.pump(T0)
    outage = an_alert("availability", at=T0 + 300, burn_rate=727.0)
    desk.receive([drift, outage], T0 + 300)
    desk.pump(T0 + 300)
    assert console.kinds == ["firing", "firing"]
    assert "availability burns its budget 727 times too fast" in console.got[-1].page.title
    assert len({message.dedup_key for message in console.got}) == 1


def test_two_families_at_the_same_moment_are_one_message():
    console = Told("console", updates=False)
    desk = make_desk(console, settings=make_settings("console"))
    desk.receive([an_alert("drift")], T0)
    desk.pump(T0)
    desk.receive([an_alert("drift"), an_alert("availability", at=T0 + 30)], T0 + 30)
    desk.pump(T0 + 30)
    assert console.kinds == ["firing"]


def test_a_page_gets_through_an_incident_that_is_full_of_tickets():
    console = Told("console")
    desk = make_desk(console, settings=make_settings("console"))
    tickets = [
        an_alert("drift", severity="ticket", feature=f"f{number}", name=f"drift-{number}")
        for number in range(600)
    ]
    desk.receive(tickets, T0)
    desk.pump(T0)
    desk.receive([*tickets, an_alert("data_quality", at=T0 + 60)], T0 + 60)
    desk.pump(T0 + 60)
    assert console.got[-1].kind == "firing"
    assert console.got[-1].page.severity == "page"
