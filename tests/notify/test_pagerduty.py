"""PagerDuty against a stub that speaks the Events API v2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlobs.notify.channels.base import Message
from mlobs.notify.channels.pagerduty import PagerDutyChannel
from mlobs.notify.compose import trial_page
from mlobs.notify.http import Addresses
from mlobs.notify.retry import Reason
from mlobs.secret import Secret
from tests.notify.desks import T0, an_alert, ceased, make_desk, make_settings, make_store
from tests.notify.stubs import Fault, PagerDuty, serving, too_many
from tests.notify.test_slack import a_message


@pytest.fixture
def pager() -> Iterator[PagerDuty]:
    stub = PagerDuty()
    with serving(stub.stub):
        yield stub


@pytest.fixture
def channel(pager: PagerDuty, tmp_path: Path) -> PagerDutyChannel:
    (tmp_path / "key").write_text("r" * 32)
    key = Secret("notify.channels.phone.pagerduty.routing_key_file", file=str(tmp_path / "key"))
    here = Addresses(allow_http=True, allow_private=True)
    return PagerDutyChannel("phone", key, base_url=pager.stub.url, allowed=here, timeout=1.0)


def test_an_incident_is_triggered_acknowledged_and_resolved_under_one_key(pager, channel):
    desk = make_desk(channel, store=make_store())
    (incident,) = desk.receive([an_alert()], T0)
    desk.pump(T0)
    desk.acknowledge(incident.id, "ada", T0 + 10)
    desk.pump(T0 + 10)
    desk.receive([ceased(an_alert(), T0 + 60)], T0 + 60)
    desk.pump(T0 + 600)
    assert pager.incidents == {incident.dedup_key: ["trigger", "acknowledge", "resolve"]}
    first = pager.stub.requests[0].fields
    assert first["payload"]["severity"] == "critical"
    assert first["payload"]["class"] == "latency"
    assert first["client_url"] == f"https://mlobs.example/incidents/{incident.id}"
    assert "What burns" in first["payload"]["custom_details"]["page"]


def test_a_repetition_after_a_lost_answer_is_no_second_page(pager, channel):
    pager.stub.fail(Fault(accept=True, hang=3))
    first = channel.send(a_message())
    assert (first.reason, first.uncertain) == (Reason.TIMEOUT, True)
    assert channel.send(a_message(uncertain=True)).sent
    assert pager.triggered == 1


@pytest.mark.parametrize(
    ("fault", "reason", "retry"),
    [
        (too_many("3"), Reason.RATE_LIMITED, True),
        (Fault(500), Reason.SERVER_ERROR, True),
        (Fault(reset=True), Reason.CONNECTION, True),
        (
            Fault(400, answer={"status": "invalid event", "errors": ["Invalid routing key"]}),
            Reason.UNAUTHORIZED,
            True,
        ),
        (Fault(400, answer={"status": "invalid event"}), Reason.REJECTED, False),
    ],
)
def test_each_fault_has_its_reason_and_its_retry(pager, channel, fault, reason, retry):
    pager.stub.fail(fault)
    outcome = channel.send(a_message())
    assert (outcome.reason, outcome.retry) == (reason, retry)


def test_a_test_page_resolves_itself(pager, channel):
    message = Message("test", trial_page(make_settings(), T0), "mlobs-test-1", 0, T0)
    assert channel.send(message).sent
    assert pager.incidents == {"mlobs-test-1": ["trigger", "resolve"]}
    assert pager.stub.requests[0].fields["payload"]["severity"] == "info"
