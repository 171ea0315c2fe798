"""The alerts on mlobs itself in the real promtool, and what the desk tells of itself without Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from mlobs.config import parse_settings
from mlobs.notify import read
from mlobs.notify.amconfig import rules_document, rules_text
from mlobs.notify.desk import Desk
from mlobs.notify.retry import Outcome, Reason
from mlobs.service.doctor import examine
from mlobs.settings import RouteSettings, Settings
from tests.notify.desks import T0, Told, an_alert, make_settings, make_store

LAST = "mlobs_serve_last_tick_timestamp_seconds"
WAITING = 'mlobs_notify_oldest_waiting_seconds{channel="a"}'
UNREACHED = "mlobs_notify_unreached_pages"
FAILED = 'mlobs_notify_failed_total{channel="a",reason="timeout"}'
PASSED = 'mlobs_notify_passed_on_total{channel="a"}'
ALL = 'mlobs_notify_latency_seconds_count{channel="a"}'
QUICK = 'mlobs_notify_latency_seconds_bucket{channel="a",le="60.0"}'
QUICK_3 = 'mlobs_notify_latency_seconds_bucket{channel="a",le="60"}'
SILENCED = 'mlobs_notify_suppressed_total{reason="silenced"}'
INHIBITED = 'mlobs_notify_suppressed_total{reason="inhibited"}'
A = {"channel": "a"}

Case = tuple[str, dict[str, str], str, dict[str, str] | None]
CASES: list[Case] = [
    # alert, series minute by minute, when, labels; None: it is quiet then
    ("Watchdog", {}, "1m", {}),
    ("MlobsDown", {'up{job="mlobs"}': "1x10 0x10"}, "10m", None),
    ("MlobsDown", {'up{job="mlobs"}': "1x10 0x10"}, "12m", {"job": "mlobs"}),
    ("MlobsDown", {'up{job="mlobs"}': "1x10 stale"}, "13m", {"job": "mlobs"}),
    ("MlobsNotEvaluating", {LAST: "0+60x10 600x20"}, "15m", None),
    ("MlobsNotEvaluating", {LAST: "0+60x10 600x20"}, "18m", {}),
    ("MlobsPagesWaiting", {WAITING: "0x5 60+60x20"}, "10m", None),
    ("MlobsPagesWaiting", {WAITING: "0x5 60+60x20"}, "13m", A),
    ("MlobsPagesUnreached", {UNREACHED: "0x5 1x3 0x20"}, "9m", None),
    ("MlobsPagesUnreached", {UNREACHED: "0x5 1x20"}, "12m", {}),
    ("MlobsPagesFailing", {FAILED: "0+0.1x60"}, "30m", None),
    ("MlobsPagesFailing", {FAILED: "0+1x60"}, "30m", {**A, "reason": "timeout"}),
    ("MlobsPagesPassedOn", {PASSED: "0x100"}, "90m", None),
    ("MlobsPagesPassedOn", {PASSED: "0x80 1x20"}, "90m", A),
    ("MlobsPagesLate", {ALL: "0x70 3x40", QUICK: "0x70 3x40"}, "90m", None),
    ("MlobsPagesLate", {ALL: "0x70 3x40", QUICK: "0x70 2x40"}, "90m", A),
    ("MlobsPagesLate", {ALL: "0x70 3x40", QUICK_3: "0x70 2x40"}, "90m", A),
    ("MlobsPagesSuppressed", {INHIBITED: "0+1x100"}, "90m", None),
    ("MlobsPagesSuppressed", {SILENCED: "0+1x100"}, "90m", {"reason": "silenced"}),
]


def spelled(case: Case) -> dict[str, Any]:
    """The case in promtool's words."""
    name, series, at, labels = case
    (rule,) = [one for one in rules_document(Settings("s"))["groups"][0]["rules"] if one["alert"] == name]
    text = rule["annotations"]["summary"]
    for key, value in (labels or {}).items():
        text = text.replace(f"{{{{ $labels.{key} }}}}", value)
    summary = {"summary": text.replace("{{ $value }}", "1")}
    fired = {"exp_labels": {**(labels or {}), **rule["labels"]}, "exp_annotations": summary}
    expected = [] if labels is None else [fired]
    return {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": expected}],
    }


def test_the_alerts_on_mlobs_itself_fire_when_they_should_and_not_before(tmp_path: Path, promtool) -> None:
    (tmp_path / "rules.yml").write_text(rules_text(Settings("s")))
    document = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [spelled(one) for one in CASES],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document))
    done = promtool("test", "rules", tmp_path / "test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    rules = {one["alert"] for one in rules_document(Settings("s"))["groups"][0]["rules"]}
    assert rules == {name for name, *_ in CASES}, "each rule has a case"


def test_every_metric_that_a_rule_names_is_exported() -> None:
    registry = CollectorRegistry()
    Desk(make_settings(), make_store(), {"oncall": Told()}, inline=True, registry=registry)
    text = generate_latest(registry).decode()
    for rule in rules_document(Settings("s"))["groups"][0]["rules"]:
        for word in rule["expr"].replace("(", " ").replace("{", " ").replace("[", " ").split():
            if word.startswith("mlobs_notify_") and "failed" not in word:  # born with the first failure
                assert f"\n{word}" in text, word


def failing(_: object) -> Outcome:
    return Outcome(False, Reason.SERVER_ERROR, True, 30.0, whole_channel=True)


def test_without_prometheus_the_desk_tells_what_waits_and_what_came_late() -> None:
    channel = Told(answer=failing)
    desk = Desk(make_settings(), make_store(), {"oncall": channel}, inline=True)
    desk.receive([an_alert()], T0)
    for second in range(0, 330, 10):
        desk.pump(T0 + second)
        if second <= 300:
            assert desk.own_alerts(T0 + second) == ()
    (told,) = desk.own_alerts(T0 + 330)
    assert (told.severity, told.cause, told.summary) == (
        "ticket", "paging", "mlobs itself: a message has waited for 5 min 30 s on oncall: server_error",
    )  # fmt: skip
    channel.answer = lambda message: Outcome(True, Reason.OK)
    for second in range(330, 900, 30):
        desk.pump(T0 + second)
    (late,) = desk.own_alerts(T0 + 900)
    assert late.name == "mlobs-oncall-late"
    assert desk.own_alerts(T0 + 4600) == ()


@pytest.mark.parametrize("others", [("board",), ()])
def test_a_page_that_is_refused_for_good_and_has_no_fallback_goes_to_who_is_left(others, capsys) -> None:
    """Nobody named a fallback: other channels hear of it, and when there is none, the log of serve."""
    refusing = Told(answer=lambda message: Outcome(False, Reason.REJECTED))
    left = [Told(name) for name in others]
    settings = make_settings("oncall", *others, routes=[RouteSettings({}, ("oncall",))])
    registry, store = CollectorRegistry(), make_store()
    channels = {one.name: one for one in (refusing, *left)}
    desk = Desk(settings, store, channels, inline=True, registry=registry)
    (incident,) = desk.receive([an_alert(), an_alert(model="calm", severity="ticket")], T0)[:1]
    for second in range(4):
        desk.pump(T0 + second)
    heard = [one.page.key for other in left for one in other.got]
    printed = capsys.readouterr().err
    if others:
        assert heard == ["prod/fraud-api/fraud/latency"]
        assert "PAGE" not in printed
    else:
        assert printed.count("PAGE fraud: latency") == 1
        assert "calm" not in printed  # a ticket stays in the list
    story = read.incident(store, settings, incident.id)
    assert story is not None
    assert f"oncall did not take it (rejected): {(*others, 'last-resort')[0]} told" in [
        one.text for one in story.timeline
    ]
    passed_on = registry.get_sample_value("mlobs_notify_passed_on_total", {"channel": "oncall"})
    assert passed_on == 1, "the page; the ticket was passed on to nobody"
    assert registry.get_sample_value("mlobs_notify_unreached_pages") == (0 if others else 1)


def test_two_channels_that_refuse_a_digest_do_not_pass_it_to_and_fro(capsys) -> None:
    refusing = [
        Told(name, rate=1.0, digests=True, answer=lambda message: Outcome(False, Reason.REJECTED))
        for name in ("a", "b")
    ]
    settings = make_settings("a", "b", routes=[RouteSettings({}, ("a",))], fallback="b")
    desk = Desk(settings, make_store(), {one.name: one for one in refusing}, inline=True)
    desk.receive([an_alert(model=f"m{number}") for number in range(30)], T0)
    for second in range(120):
        desk.pump(T0 + second)
    for one in refusing:
        assert sum(bool(message.page.others) for message in one.got) == 1
    assert "25 more incidents began" in capsys.readouterr().err


@pytest.mark.parametrize(("fallback", "said"), [("", ["fallback"]), ("  fallback: b\n", [])])
def test_doctor_warns_where_no_fallback_is_named(fallback: str, said: list[str], tmp_path: Path) -> None:
    channels = "{a: {console: }, b: {console: }}"
    text = f"service: s\nlisten: 127.0.0.1:0\nnotify:\n  channels: {channels}\n{fallback}"
    found = examine(parse_settings(text, tmp_path))
    assert [one.check for one in found if one.check == "fallback" and one.state == "warning"] == said


def test_a_page_that_somebody_has_is_not_spread_when_another_channel_refuses_it() -> None:
    refusing, well, other = Told(answer=lambda message: Outcome(False, Reason.REJECTED)), Told("b"), Told("c")
    settings = make_settings("oncall", "b", "c", routes=[RouteSettings({}, ("oncall", "b"))])
    desk = Desk(settings, make_store(), {"oncall": refusing, "b": well, "c": other}, inline=True)
    desk.receive([an_alert()], T0)
    for second in range(4):
        desk.pump(T0 + second)
    assert (len(well.got), len(other.got)) == (1, 0)
