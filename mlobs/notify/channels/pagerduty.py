"""PagerDuty through its Events API v2: trigger, acknowledge, resolve, under our own dedup key.

The key makes every repetition harmless: a second trigger of an open alert is one more log line and no page.
https://developer.pagerduty.com/docs/events-api-v2/trigger-events/
"""

from __future__ import annotations

import msgspec

from mlobs.names import PAGE
from mlobs.notify.channels.base import Message
from mlobs.notify.drawing import announcement, plain
from mlobs.notify.http import Addresses, NotSentError, parse_target, post
from mlobs.notify.page import RESOLVED, TEST, Page
from mlobs.notify.retry import Outcome, Reason, judge_status
from mlobs.secret import Secret

DEFAULT_BASE = "https://events.pagerduty.com"
MOST_SUMMARY = 1024


class PagerDutyChannel:
    """Sends to the service that the routing key names."""

    kind = "pagerduty"
    updates = True
    update_every = 0.0
    digests = False
    rate: float | None = 2.0
    """120 events a minute and routing key are taken."""

    def __init__(
        self,
        name: str,
        routing_key: Secret,
        *,
        base_url: str = DEFAULT_BASE,
        allowed: Addresses,
        timeout: float = 10.0,
    ) -> None:
        self.name = name
        self._key = routing_key
        self._allowed = allowed
        self._timeout = timeout
        address = f"{base_url.rstrip('/')}/v2/enqueue"
        self._target = parse_target(address, f"notify.channels.{name}.pagerduty.base_url", allowed)

    def send(self, message: Message) -> Outcome:
        outcome = self._enqueue(event(message), message.at)
        if message.kind == TEST and outcome.sent:
            return self._enqueue({"event_action": "resolve", "dedup_key": message.dedup_key}, message.at)
        return outcome

    def _enqueue(self, body: dict[str, object], now: float) -> Outcome:
        data = msgspec.json.encode({"routing_key": self._key.reveal(), **body})
        headers = {"Content-Type": "application/json", "User-Agent": "mlobs"}
        try:
            reply = post(self._target, data, headers, allowed=self._allowed, timeout=self._timeout)
        except NotSentError as problem:
            return problem.outcome
        if (
            reply.status == 400 and b"outing" in reply.body
        ):  # `Invalid routing key`: it may be mended, the page waits
            return Outcome(False, Reason.UNAUTHORIZED, True, 60.0, whole_channel=True, detail="HTTP 400")
        return judge_status(reply.status, reply.headers, now)


def event(message: Message) -> dict[str, object]:
    """The event of a message, without the routing key. An acknowledged incident acknowledges, it does not
    trigger.
    """
    page = message.page
    if message.kind == RESOLVED:
        return {"event_action": "resolve", "dedup_key": message.dedup_key}
    if page.acknowledged_by:
        return {"event_action": "acknowledge", "dedup_key": message.dedup_key}
    found: dict[str, object] = {
        "event_action": "trigger",
        "dedup_key": message.dedup_key,
        "client": "mlobs",
        "payload": {
            "summary": announcement(message.kind, page)[:MOST_SUMMARY],
            "source": page.service or "mlobs",
            "severity": _severity(page),
            "component": page.model or None,
            "group": page.environment or None,
            "class": page.cause or None,
            "custom_details": {"page": "\n".join(plain(page)), "key": page.key, "features": page.names},
        },
        "links": [
            {"href": link, "text": text}
            for text, link in (("runbook", page.runbook), ("dashboard", page.dashboard))
            if link.startswith(("https://", "http://"))
        ],
    }
    if page.link:
        found["client_url"] = page.link
    return found


def _severity(page: Page) -> str:
    if page.test:
        return "info"
    return "critical" if page.severity == PAGE else "warning"
