"""Alertmanager as the sender: its webhook, what is lost on the way, and the real servers."""

from __future__ import annotations

import json
import re
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from mlobs.notify import amconfig
from mlobs.notify.alertmanager import (
    Upstream,
    moment_of,
    parse_webhook,
    reconcile,
    severity_of,
    to_alert,
)
from mlobs.notify.desk import Desk
from mlobs.notify.drawing import burn_line
from mlobs.notify.incident import identity, incident_key
from mlobs.notify.receiver import receive
from mlobs.notify.upstream import Reconciler
from mlobs.secret import Secret
from mlobs.settings import AlertmanagerSettings, ChannelSettings, Settings
from tests.notify.desks import (
    T0,
    Told,
    an_alert,
    make_desk,
    make_settings,
    make_store,
    with_objective,
)
from tests.notify.stubs import Stub, serving
from tests.servers import eventually, http

LABELS = {
    "alertname": "MlobsSloBurn",
    "severity": "page",
    "service": "fraud-api",
    "model": "fraud",
    "cause": "latency",
    "environment": "prod",
    "slo": "fraud-p99",
    "kind": "burn",
    "sloth_id": "fraud-api-fraud-p99",
}


def posted(*alerts: dict, status: str = "firing") -> bytes:
    """A webhook's body as Alertmanager 0.25 writes it."""
    return json.dumps(
        {
            "receiver": "mlobs",
            "status": status,
            "alerts": alerts,
            "groupLabels": {},
            "commonLabels": {},
            "commonAnnotations": {},
            "externalURL": "http://am",
            "version": "4",
            "groupKey": "{}",
            "truncatedAlerts": 0,
        }
    ).encode()


def one(status: str = "firing", starts: str = "2013-03-20T04:58:00.123456789Z", **labels: str) -> dict:
    return {
        "status": status,
        "labels": LABELS | labels,
        "annotations": {"summary": "burns"},
        "startsAt": starts,
        "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else "2013-03-20T05:10:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "ab",
    }


@pytest.fixture
def token(tmp_path: Path) -> Secret:
    (tmp_path / "token").write_text("right\n")
    return Secret("notify.alertmanager.token_file", file=str(tmp_path / "token"))


def settings_of(token: Secret, url: str | None = None) -> Settings:
    options = AlertmanagerSettings(url, token, group_wait=1.0, group_interval=1.0)
    return make_settings(alertmanager=options)


def test_its_alerts_are_incidents_under_the_keys_of_our_own_engine(token: Secret):
    channel = Told()
    desk = make_desk(channel)
    settings = settings_of(token)
    answer = receive(posted(one()), "Bearer right", token, settings, desk, T0)
    assert answer.status == 200
    desk.pump(T0)
    (message,) = channel.got
    assert message.page.key == incident_key(an_alert()) == "prod/fraud-api/fraud/latency"
    assert message.page.since == pytest.approx(T0 - 120 + 0.123456)
    receive(posted(one("resolved")), "Bearer right", token, settings, desk, T0 + 600)
    desk.pump(T0 + 900)
    assert channel.kinds == ["firing", "resolved"]


def test_a_burn_by_the_rules_says_how_many_of_how_many_over_which_window(token: Secret):
    channel = Told()
    desk = make_desk(channel)
    counts = {"burn_rate": "83.33333333333333", "window": "1h", "bad": "3000", "total": "36000"}
    body = posted(one() | {"annotations": counts})
    receive(body, "Bearer right", token, settings_of(token), desk, T0)
    desk.pump(T0)
    (message,) = channel.got
    (burn,) = message.page.burns
    assert burn_line(burn, message.page).endswith("83.3 times too fast over 1 h, 3,000 bad of 36,000")


@pytest.mark.parametrize("window", ["", "soon", "NaN", "-1h"])
def test_a_window_that_is_no_duration_is_left_out(window: str):
    alert = to_alert(
        LABELS, {"window": window, "bad": "?", "total": "Inf"}, True, "", "", make_settings(), T0
    )
    assert (alert.long_window_s, alert.bad, alert.total) == (None, None, None)


def test_the_same_webhook_twice_is_one_page(token: Secret):
    channel = Told()
    desk = make_desk(channel)
    for _ in range(3):
        assert receive(posted(one()), "Bearer right", token, settings_of(token), desk, T0).status == 200
        desk.pump(T0)
    assert channel.kinds == ["firing"]


@pytest.mark.parametrize(
    ("body", "authorization", "status"),
    [
        (posted(one()), "", 401),
        (posted(one()), "Bearer wrong", 401),
        (posted(one()), "Bearer r\udce9ght", 401),
        (b"", "Bearer right", 400),
        (b"{", "Bearer right", 400),
        (b"[]", "Bearer right", 400),
        (b'{"alerts": [{"labels": {"a": 1}}]}', "Bearer right", 400),
        (b'{"alerts": "\xff"}', "Bearer right", 400),
        (posted(), "Bearer right", 200),
        (posted(one(starts="soon")), "Bearer right", 200),
    ],
)
def test_what_is_no_webhook_is_refused_and_nothing_raises(token, body, authorization, status):
    desk = make_desk(Told())
    assert receive(body, authorization, token, settings_of(token), desk, T0).status == status


def test_what_could_not_be_written_is_503_so_that_it_comes_again(token: Secret, monkeypatch):
    desk = make_desk(Told())

    def full(*arguments: object, **more: object) -> None:
        raise OperationalError("insert", {}, Exception("disk is full"))

    monkeypatch.setattr(Desk, "receive", full)
    assert receive(posted(one()), "Bearer right", token, settings_of(token), desk, T0).status == 503


def test_words_and_times_of_others_are_understood():
    assert [severity_of(word) for word in ("page", "critical", "", "warning", "Info", "ticket")] == [
        "page", "page", "page", "ticket", "ticket", "ticket",
    ]  # fmt: skip
    assert moment_of("0001-01-01T00:00:00Z") is None
    assert moment_of("2013-03-20T05:00:00") is None
    assert moment_of("2013-03-20T06:00:00.5+01:00") == T0 + 0.5
    (bare,) = parse_webhook(posted({"labels": {"alertname": "X"}}), make_settings(), T0).alerts
    assert (bare.cause, bare.service, bare.environment, bare.severity) == ("x", "fraud-api", "prod", "page")


def test_a_burn_of_alertmanager_says_when_the_budget_runs_out():
    settings = with_objective(make_settings(), "fraud-p99", "")
    labels = LABELS | {"slo": "fraud-p99"}
    told = {"burn_rate": "14.4", "budget_remaining": "0.5"}
    found = to_alert(labels, told, True, "", "", settings, T0)
    assert found.exhausted_at == pytest.approx(T0 + 0.5 * 30 * 86400 / 14.4)
    unknown = to_alert(LABELS, {"burn_rate": "14.4"}, True, "", "", settings, T0)
    assert unknown.exhausted_at is None


def test_the_watchdog_is_heard_and_pages_nobody(token: Secret):
    channel = Told()
    desk = make_desk(channel)
    desk.pump(T0)
    receive(posted(one(alertname="Watchdog")), "Bearer right", token, settings_of(token), desk, T0 + 50)
    desk.pump(T0 + 50)
    assert (desk.heard, channel.kinds) == (T0 + 50, [])


def active(state: str = "active", receivers: tuple[str, ...] = ("mlobs",), **labels: str) -> dict:
    return {
        "labels": LABELS | labels,
        "annotations": {},
        "startsAt": "2013-03-20T04:50:00Z",
        "status": {"state": state, "silencedBy": [], "inhibitedBy": []},
        "receivers": [{"name": name} for name in receivers],
    }


def fired(state: str = "firing", since: str = "2013-03-20T04:50:00Z", **labels: str) -> dict:
    return {"labels": LABELS | labels, "annotations": {}, "state": state, "activeAt": since, "value": "1"}


HELD = identity(to_alert(LABELS, {}, True, "", "", make_settings(), T0))


@pytest.mark.parametrize(
    ("prometheus", "alertmanager", "known", "taken", "lost"),
    [
        ([fired()], [active()], [HELD], 1, 0),
        ([fired()], [active()], [], 1, 1),
        ([fired()], [], [], 1, 1),
        ([fired()], None, [], 1, 1),
        ([fired()], [active("suppressed")], [], 0, 0),
        ([fired()], [active("suppressed")], [HELD], 1, 0),
        ([fired()], [active(receivers=("others",))], [], 0, 0),
        ([fired("pending")], [], [], 0, 0),
        ([fired(since="2013-03-20T04:59:59Z")], [], [], 0, 0),
        ([fired(alertname="Watchdog")], [active(alertname="Watchdog")], [], 0, 0),
        ([fired(service="")], [], [], 0, 0),
        ([], [], [HELD], 0, 0),
    ],
)
def test_what_was_lost_upstream_is_found_and_what_is_silenced_never_pages(
    token, prometheus, alertmanager, known, taken, lost
):
    upstream = Upstream(tuple(prometheus), tuple(alertmanager) if alertmanager is not None else None)
    found = reconcile(upstream, known, settings_of(token), T0)
    assert (len(found.alerts), len(found.lost)) == (taken, lost)
    assert found.complete == (alertmanager is not None)


def test_a_silenced_alert_does_not_page_when_alertmanager_fails_to_answer(token: Secret):
    channel = Told()
    settings = settings_of(token, "http://am")
    settings = replace(settings, slo=replace(settings.slo, prometheus="http://prometheus"))
    desk = make_desk(channel)
    answers = {"alerts": [fired()], "held": [active("suppressed")]}

    def fetch(url: str) -> bytes:
        if "/api/v2/alerts" in url:
            if answers["held"] is None:
                raise OSError("refused")
            return json.dumps(answers["held"]).encode()
        return json.dumps({"data": {"alerts": answers["alerts"]}}).encode()

    upstream = Reconciler(settings, desk, fetch)
    upstream.tick(T0)
    answers["held"] = None
    for round_ in range(1, 5):
        assert upstream.tick(T0 + 61 * round_) == ()
    answers["alerts"] = [fired(), fired(slo="another")]  # news while Alertmanager is away is told
    assert len(upstream.tick(T0 + 61 * 6)) == 1


def test_an_upstream_that_does_not_answer_is_paged_and_heals_nothing(token: Secret):
    channel = Told()
    settings = settings_of(token, "http://am")
    settings = replace(settings, slo=replace(settings.slo, prometheus="http://prometheus"))
    desk = make_desk(channel)
    desk.receive(
        [to_alert(LABELS, {}, True, "", "", settings, T0)], T0, source="alertmanager", complete=False
    )
    desk.pump(T0)

    def fetch(url: str) -> bytes:
        raise urllib.error.URLError("refused")

    reconciler = Reconciler(settings, desk, fetch)
    for minute in range(1, 8):
        desk.hear(T0 + 60 * minute)
        reconciler.tick(T0 + 60 * minute)
        desk.pump(T0 + 60 * minute)
    firing = sorted(one.page.cause for one in channel.got if one.kind == "firing")
    assert firing == ["alertmanager-down", "latency", "prometheus-down"]
    assert "resolved" not in channel.kinds


def test_a_silent_watchdog_is_paged(token: Secret):
    channel = Told()
    desk = make_desk(channel)
    reconciler = Reconciler(settings_of(token), desk, lambda url: b"[]")
    for minute in range(8):
        desk.pump(T0 + 60 * minute)
        reconciler.tick(T0 + 60 * minute)
    desk.pump(T0 + 480)
    assert [one.page.cause for one in channel.got] == ["watchdog"]


RESEND = ["--rules.alert.resend-delay=1s"]
"""Prometheus finds its Alertmanager after five seconds; what fired before goes out again after this."""

RULES = """
groups:
- name: trouble
  interval: 1s
  rules:
  - alert: MlobsSloBurn
    expr: vector(1)
    labels: {severity: page, service: fraud-api, model: fraud, cause: latency, environment: prod, slo: p99}
    annotations: {summary: its budget burns}
"""


def sending_to(url: str) -> str:
    """prometheus.yml that knows one Alertmanager."""
    target = url.removeprefix("http://")
    return (
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{target}']}}]}}]}}\n"
    )


def quick(text: str) -> str:
    """The written configuration with its waits cut down to seconds."""
    return re.sub(r"(group_interval|repeat_interval): .*", r"\1: 1s", text)


def test_from_a_real_prometheus_through_a_real_alertmanager_to_a_page(
    token: Secret, tmp_path: Path, prometheus: Callable, alertmanager: Callable
):
    (tmp_path / "key").write_text("k")
    channel, store = Told(), make_store(tmp_path / "state.db")
    settings = settings_of(token)
    fallback = {"phone": ChannelSettings("phone", "webhook", {"url": "https://phone.example/x"})}
    written = replace(settings, notify=replace(settings.notify, channels=fallback, fallback="phone"))
    desk = make_desk(channel, store=store)

    def handle(request):
        answer = receive(request.body, request.headers.get("authorization", ""), token, settings, desk, T0)
        return answer.status, {"text": answer.text}

    with serving(Stub(handle)) as hook:
        am = alertmanager(quick(amconfig.config_text(written, hook.url + "/api/alertmanager")))
        config = sending_to(am.url)
        watchdog = amconfig.rules_text(settings).split("  - alert: MlobsDown")[0].split("groups:\n")[1]
        prometheus(config, RULES + watchdog, RESEND)
        eventually(lambda: desk.firing("alertmanager") and desk.heard == T0, "both alerts arrive")
        desk.pump(T0)
    assert [one.page.key for one in channel.got] == ["prod/fraud-api/fraud/latency"]
    assert channel.got[0].page.burns[0].summary == "its budget burns"
    store.close()


def test_an_alert_that_alertmanager_lost_is_taken_up_from_the_real_servers(
    token: Secret, tmp_path: Path, prometheus: Callable, alertmanager: Callable
):
    """Alertmanager routes it to us and cannot deliver: nobody listens there."""
    settings = settings_of(token)
    fallback = {"phone": ChannelSettings("phone", "webhook", {"url": "https://phone.example/x"})}
    written = replace(settings, notify=replace(settings.notify, channels=fallback, fallback="phone"))
    am = alertmanager(amconfig.config_text(written, "http://127.0.0.1:9/api/alertmanager"))
    config = sending_to(am.url)
    server = prometheus(config, RULES, RESEND)
    eventually(am.alerts, "Alertmanager has the alert")
    options = replace(settings.notify.alertmanager, url=am.url)  # type: ignore[type-var]
    settings = replace(
        settings,
        slo=replace(settings.slo, prometheus=server.url),
        notify=replace(settings.notify, alertmanager=options),
    )
    channel = Told()
    desk = make_desk(channel)
    now = moment_of(am.alerts()[0]["startsAt"]) or 0.0
    desk.pump(now)
    assert Reconciler(settings, desk, http).tick(now + 1) == ()
    assert len(Reconciler(settings, desk, http).tick(now + 120)) == 1
    desk.pump(now + 120)
    assert channel.kinds == ["firing"]
    assert Reconciler(settings, desk, http).tick(now + 240) == (), "once taken up it is known"
