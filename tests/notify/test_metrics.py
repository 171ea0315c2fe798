"""Paging's own metrics, its account, and what it forgets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from mlobs.notify import keeping, read
from mlobs.notify.desk import Desk
from mlobs.notify.retry import Outcome, Reason, sent
from mlobs.notify.routing import Silence
from mlobs.records import TimelineEvent
from tests.notify.desks import T0, Told, an_alert, ceased, make_desk, make_settings, make_store


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_attempts_latency_waiting_and_suppressed_are_shown():
    answers = iter([Outcome(False, Reason.SERVER_ERROR, True)])
    channel = Told(answer=lambda message: next(answers, sent()))
    registry, store = CollectorRegistry(), make_store()
    desk = Desk(make_settings(), store, {"oncall": channel}, inline=True, registry=registry)
    assert value(registry, "mlobs_notify_sent_total", channel="oncall") == 0
    keeping.silence(store, Silence(0, {"model": "quiet"}, T0 - 1, T0 + 60, "ada"))
    desk.receive([an_alert(), an_alert(model="quiet")], T0)
    desk.pump(T0)
    assert value(registry, "mlobs_notify_failed_total", channel="oncall", reason="server_error") == 1
    desk.pump(T0 + 1e-9)
    assert value(registry, "mlobs_notify_suppressed_total", reason="silenced") == 1
    desk.pump(T0 + 20)
    assert value(registry, "mlobs_notify_sent_total", channel="oncall") == 1
    assert value(registry, "mlobs_notify_latency_seconds_sum", channel="oncall") == 20
    assert value(registry, "mlobs_notify_oldest_waiting_seconds", channel="oncall") == 0


def test_the_age_of_what_waits_grows_until_it_leaves():
    channel = Told(answer=lambda message: Outcome(False, Reason.TIMEOUT, True, 3600.0, whole_channel=True))
    registry = CollectorRegistry()
    desk = Desk(make_settings(), make_store(), {"oncall": channel}, inline=True, registry=registry)
    desk.receive([an_alert()], T0)
    desk.pump(T0)
    desk.pump(T0 + 400)
    assert value(registry, "mlobs_notify_oldest_waiting_seconds", channel="oncall") == 400


def test_a_store_that_does_not_answer_leaves_the_rest_of_the_scrape():
    registry, store = CollectorRegistry(), make_store()
    Desk(make_settings(), store, {"oncall": Told()}, inline=True, registry=registry)
    with store.write() as connection:
        connection.exec_driver_sql("DROP TABLE notify_outbox")
    text = generate_latest(registry).decode()
    assert 'mlobs_notify_sent_total{channel="oncall"} 0.0' in text
    assert "oldest" not in text


def test_the_outbox_s_account_is_balanced_whatever_became_of_a_message():
    refused = Told("bad", updates=False, answer=lambda message: Outcome(False, Reason.REJECTED))
    well, store = Told("well", updates=False), make_store()
    desk = make_desk(refused, well, store=store)
    (incident,) = desk.receive([an_alert()], T0)
    desk.pump(T0)
    desk.acknowledge(incident.id, "ada", T0 + 1)
    assert read.ledger(store, T0 + 1).queued == 2
    desk.pump(T0 + 1)
    account = read.ledger(store, T0 + 1)
    assert (account.offered, account.delivered, account.dropped, account.queued) == (
        4, 1, {"rejected": 1, "skipped": 2}, 0,
    )  # fmt: skip
    assert account.balanced


def test_what_was_over_more_than_a_year_ago_is_forgotten_and_what_is_open_stays():
    channel, store = Told(), make_store()
    desk = make_desk(channel, store=store)
    desk.event(TimelineEvent(T0, "deploy", "fraud-api", "fraud", "v1"))
    old, still = an_alert(), an_alert(model="other")
    desk.receive([old, still], T0)
    desk.receive([ceased(old, T0 + 60), still], T0 + 60)
    desk.pump(T0 + 600)
    assert len(read.incidents(store, make_settings())) == 2
    later = T0 + 401 * 86400
    desk.receive([still], later)
    desk.pump(later)
    (kept,) = read.incidents(store, make_settings())
    assert kept.model == "other"
    story = read.incident(store, make_settings(), kept.id)
    assert story is not None
    assert len(read.pages(store)) == 0
