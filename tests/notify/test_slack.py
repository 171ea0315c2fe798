"""The Slack channel against a stub that speaks Slack's Web API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlobs.errors import ConfigError
from mlobs.notify.channels.base import Message
from mlobs.notify.channels.slack import SlackChannel
from mlobs.notify.channels.slack_http import BoundedClient
from mlobs.notify.compose import compose
from mlobs.notify.grouping import Grouping, absorb
from mlobs.notify.page import Page
from mlobs.notify.retry import Reason
from mlobs.secret import Secret
from tests.notify.desks import T0, an_alert, ceased, make_desk, make_settings
from tests.notify.stubs import Fault, Slack, serving, too_many


@pytest.fixture
def slack() -> Iterator[Slack]:
    stub = Slack()
    with serving(stub.stub):
        yield stub


@pytest.fixture
def token(tmp_path: Path) -> Secret:
    (tmp_path / "token").write_text("xoxb-right\n")
    return Secret("notify.channels.oncall.slack.token_file", file=str(tmp_path / "token"))


def channel_of(slack: Slack, token: Secret, timeout: float = 5.0, where: str = "#oncall") -> SlackChannel:
    return SlackChannel("oncall", where, token, base_url=slack.stub.url, interactive=True, timeout=timeout)


def a_page(**alert: object) -> Page:
    (change,) = absorb([], [an_alert(**alert)], T0, Grouping())
    return compose(change.incident, make_settings(), T0)


def a_message(
    kind: str = "firing", *, ref: str | None = None, uncertain: bool = False, **alert: object
) -> Message:
    return Message(kind, a_page(**alert), "mlobs-abc", 1, T0, ref, uncertain)


def test_an_incident_is_one_message_that_is_kept_up_to_date_in_place(slack: Slack, token: Secret):
    channel = channel_of(slack, token)
    desk = make_desk(channel)  # type: ignore[arg-type]
    alert = an_alert()
    desk.receive([alert], T0)
    desk.pump(T0)
    desk.receive([alert, an_alert("drift")], T0 + 30)
    desk.pump(T0 + 30)
    desk.receive([ceased(alert, T0 + 60), ceased(an_alert("drift"), T0 + 60)], T0 + 60)
    desk.pump(T0 + 600)
    (shown,) = slack.shown
    assert "RESOLVED" in shown["text"]
    assert "burns" in json.dumps(shown["blocks"])


def test_after_a_lost_answer_the_message_is_found_by_its_key_and_not_repeated(slack: Slack, token: Secret):
    channel = channel_of(slack, token, timeout=1)
    slack.stub.fail(Fault(accept=True, hang=3))
    first = channel.send(a_message())
    assert (first.sent, first.reason, first.uncertain) == (False, Reason.TIMEOUT, True)
    again = channel.send(a_message(uncertain=True))
    assert again.sent
    assert len(slack.shown) == 1
    assert slack.calls("conversations.history")


def lost(slack: Slack, channel: SlackChannel) -> Message:
    """The message of an attempt that Slack accepted and whose answer did not come."""
    message = replace(a_message(), wanted_at=time.time())
    slack.stub.fail(Fault(accept=True, reset=True))
    assert channel.send(message).uncertain
    assert len(slack.ours) == 1
    return replace(message, uncertain=True)


def test_a_lost_message_is_found_under_hundreds_of_newer_ones(slack: Slack, token: Secret):
    channel = channel_of(slack, token)
    slack.others_say(300, at=time.time() - 86400)
    again = lost(slack, channel)
    slack.others_say(450)
    assert channel.send(again).sent
    assert len(slack.calls("chat.postMessage")) == 1
    looks = slack.calls("conversations.history")
    assert [float(one.fields["oldest"]) for one in looks] == [pytest.approx(again.wanted_at - 300, abs=1)] * 3
    assert [one.fields.get("cursor", "") == "" for one in looks] == [True, False, False]


def test_nothing_older_than_the_message_is_looked_through(slack: Slack, token: Secret):
    slack.others_say(1000, at=time.time() - 86400)
    assert channel_of(slack, token).send(replace(a_message(uncertain=True), wanted_at=time.time())).sent
    assert (len(slack.calls("conversations.history")), len(slack.calls("chat.postMessage"))) == (1, 1)


def test_a_look_that_slack_interrupts_waits_as_told_and_goes_on_where_it_was(slack: Slack, token: Secret):
    channel = channel_of(slack, token)
    again = lost(slack, channel)
    slack.others_say(450)
    slack.stub.fail(Fault(accept=True), Fault(accept=True), too_many("60"))  # its channels, a page, no more
    outcome = channel.send(again)
    assert (outcome.sent, outcome.reason, outcome.retry_after_s) == (False, Reason.RATE_LIMITED, 60.0)
    assert channel.send(replace(again, at=again.at + 60)).sent
    looks = [one.fields.get("cursor", "") for one in slack.calls("conversations.history")]
    assert len(looks) == 4
    assert looks[1] == looks[2] != "", "the page that was refused, again"
    assert len(slack.calls("chat.postMessage")) == 1


def test_a_look_that_has_no_end_gives_way_to_the_page(slack: Slack, token: Secret):
    channel = channel_of(slack, token)
    again = lost(slack, channel)
    slack.stub.fail(Fault(accept=True))  # its list of channels
    for second in (0, 60, 120):
        slack.stub.fail(too_many("60"))
        assert not channel.send(replace(again, at=again.at + second)).sent
    assert channel.send(replace(again, at=again.at + 180)).sent
    assert len(slack.ours) == 2, "better twice than late"


def test_a_look_longer_than_an_attempt_goes_on_at_the_next(
    slack: Slack, token: Secret, monkeypatch: pytest.MonkeyPatch
):
    channel = channel_of(slack, token)
    again = lost(slack, channel)
    slack.others_say(450)
    with monkeypatch.context() as patch:
        patch.setattr(BoundedClient, "may_go_on", lambda _: not slack.calls("conversations.history"))
        outcome = channel.send(again)
    assert (outcome.sent, outcome.retry, outcome.uncertain) == (False, True, True)
    assert channel.send(again).sent
    assert len({one.fields.get("cursor") for one in slack.calls("conversations.history")}) == 3
    assert len(slack.calls("chat.postMessage")) == 1


def test_a_cursor_that_is_not_good_any_more_begins_the_look_anew(slack: Slack, token: Secret):
    channel = channel_of(slack, token)
    again = lost(slack, channel)
    slack.others_say(250)
    stale = Fault(answer={"ok": False, "error": "invalid_cursor"})
    slack.stub.fail(Fault(accept=True), Fault(accept=True), stale)
    assert channel.send(again).sent
    assert len(slack.calls("conversations.history")) == 4
    assert len(slack.ours) == 1


@pytest.mark.parametrize("kind", ["firing", "resolved"])
def test_a_line_whose_answer_was_lost_stands_once_in_the_thread(slack: Slack, token: Secret, kind: str):
    channel = channel_of(slack, token, timeout=1)
    ref = channel.send(a_message()).ref
    for number in range(3):  # the thread is longer than one answer
        assert channel.send(replace(a_message(kind, ref=ref), number=10 + number)).sent
    slack.stub.fail(Fault(accept=True), Fault(accept=True, hang=3))  # the edit is answered, the line is not
    lost = replace(a_message(kind, ref=ref), number=20)
    assert channel.send(lost).uncertain
    assert channel.send(replace(lost, uncertain=True)).sent
    assert len(slack.messages) == 1 + 4
    louder = replace(
        lost, uncertain=True, page=replace(lost.page, changed=("an outage joined",)), kind="firing"
    )
    assert channel.send(louder).sent
    assert len(slack.messages) == 1 + 5, "news that was taken in meanwhile is told"


@pytest.mark.parametrize("before", [0, 1])  # it may not list the channels, or not read in this one
def test_a_reader_without_rights_repeats_rather_than_stays_silent(slack: Slack, token: Secret, before: int):
    slack.stub.fail(*[Fault(accept=True)] * before, Fault(answer={"ok": False, "error": "missing_scope"}))
    outcome = channel_of(slack, token).send(a_message(uncertain=True))
    assert outcome.sent
    assert len(slack.shown) == 1


@pytest.mark.parametrize(
    ("fault", "reason", "retry", "wait"),
    [
        (too_many("7"), Reason.RATE_LIMITED, True, 7.0),
        (Fault(500), Reason.SERVER_ERROR, True, None),
        (Fault(reset=True), Reason.CONNECTION, True, None),
        (Fault(answer={"ok": False, "error": "fatal_error"}), Reason.SERVER_ERROR, True, None),
        (Fault(answer={"ok": False, "error": "invalid_auth"}), Reason.UNAUTHORIZED, True, 60.0),
        (Fault(answer={"ok": False, "error": "channel_not_found"}), Reason.NOT_FOUND, True, 60.0),
        (Fault(answer={"ok": False, "error": "no_text"}), Reason.REJECTED, False, None),
    ],
)
def test_each_fault_has_its_reason_and_its_retry(slack, token, fault, reason, retry, wait):
    slack.stub.fail(fault)
    outcome = channel_of(slack, token).send(a_message())
    assert (outcome.sent, outcome.reason, outcome.retry, outcome.retry_after_s) == (
        False,
        reason,
        retry,
        wait,
    )


def test_blocks_that_slack_refuses_are_sent_as_text(slack: Slack, token: Secret):
    slack.stub.fail(Fault(answer={"ok": False, "error": "invalid_blocks"}))
    assert channel_of(slack, token).send(a_message()).sent
    (shown,) = slack.shown
    assert "What burns" in shown["text"]


def test_a_message_that_was_deleted_is_posted_anew(slack: Slack, token: Secret):
    outcome = channel_of(slack, token).send(a_message("update", ref="C0123456789/1.0"))
    assert outcome.sent
    assert outcome.ref != "C0123456789/1.0"
    assert len(slack.shown) == 1


def test_names_cannot_mention_link_or_mark_up(slack: Slack, token: Secret):
    evil = "<!channel> *x* <https://evil.example|click> @here http://evil.example & \u202e\ud800\n"
    channel_of(slack, token).send(a_message(feature=evil, segment=evil, summary=evil, model=evil, cause=evil))
    (request,) = slack.calls("chat.postMessage")
    text = request.body.decode()
    assert "<!channel>" not in text
    assert "<https" not in text
    assert "@here" not in json.loads(text)["text"]
    assert "http://" not in json.loads(text)["text"]
    kinds = {element["type"] for one in json.loads(text)["blocks"] for element in _leaves(one)}
    assert kinds <= {"text", "link", "plain_text", "button"}


def _leaves(block):
    if block["type"] == "rich_text":
        return [leaf for part in block["elements"] for leaf in part["elements"]]
    return block["elements"] if block["type"] == "actions" else [block["text"]]


def test_the_acknowledge_button_carries_the_incident(slack: Slack, token: Secret):
    message = a_message()
    channel_of(slack, token).send(message)
    (shown,) = slack.shown
    buttons = shown["blocks"][-1]["elements"]
    assert (buttons[0]["action_id"], buttons[0]["value"]) == ("mlobs_acknowledge", message.page.incident)
    assert [one["url"] for one in buttons[1:]] == [
        "https://runbooks.example/fraud",
        f"https://mlobs.example/incidents/{message.page.incident}",
    ]


def test_a_base_url_in_clear_is_refused_beyond_this_machine(token: Secret):
    with pytest.raises(ConfigError, match="base_url"):
        SlackChannel("oncall", "#oncall", token, base_url="http://slack.example/api")


def test_an_answer_that_drips_holds_the_channel_no_longer_than_its_timeout(slack: Slack, token: Secret):
    slack.stub.fail(Fault(accept=True, drip=0.4))
    began = time.monotonic()
    outcome = channel_of(slack, token, timeout=1).send(a_message())
    assert time.monotonic() - began < 5  # the whole drip would take a minute
    assert (outcome.sent, outcome.reason, outcome.retry, outcome.uncertain) == (
        False,
        Reason.TIMEOUT,
        True,
        True,
    )
    assert channel_of(slack, token).send(a_message(uncertain=True)).sent
    assert len(slack.shown) == 1  # it had been accepted


def test_an_error_that_drips_is_bounded_too_and_keeps_its_status(slack: Slack, token: Secret):
    slack.stub.fail(Fault(503, drip=0.4, answer={"ok": False, "error": "x" * 100}))
    began = time.monotonic()
    outcome = channel_of(slack, token, timeout=1).send(a_message())
    assert time.monotonic() - began < 5
    assert (outcome.reason, outcome.retry) == (Reason.SERVER_ERROR, True)


def test_a_redirect_takes_the_token_nowhere(slack: Slack, token: Secret):
    other = Slack()
    with serving(other.stub):
        slack.stub.fail(Fault(302, (("Location", f"{other.stub.url}/chat.postMessage"),)))
        outcome = channel_of(slack, token).send(a_message())
    assert not outcome.sent
    assert not other.stub.requests


def test_an_update_says_in_the_thread_what_is_new_and_notifies_no_channel(slack: Slack, token: Secret):
    desk = make_desk(channel_of(slack, token))  # type: ignore[arg-type]
    alert = an_alert()
    (incident,) = desk.receive([alert], T0)
    desk.pump(T0)
    desk.receive([alert, an_alert("errors")], T0 + 30)
    desk.pump(T0 + 30)
    desk.acknowledge(incident.id, "ada", T0 + 60)
    desk.pump(T0 + 60)
    (shown,) = slack.shown
    assert shown["text"].startswith("ACKNOWLEDGED fraud: latency")
    thread = [one for one in slack.messages.values() if "thread_ts" in one]
    assert [one["text"] for one in thread] == [
        "UPDATE fraud: fraud-errors fires: errors",
        "UPDATE fraud: acknowledged by ada",
    ]
    assert not any(one["reply_broadcast"] for one in thread)
