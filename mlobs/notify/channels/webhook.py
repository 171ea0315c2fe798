"""Generic webhook: the page as JSON, signed, to one https address.

The receiver checks `X-Mlobs-Signature: t=<seconds>,v1=<hex>`, where v1 is HMAC-SHA-256 with the signing key
over `<t>.<body>`; `Idempotency-Key` is the same when a message is sent again.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from mlobs.notify.channels.base import Message
from mlobs.notify.drawing import links, plain
from mlobs.notify.http import Addresses, NotSentError, parse_target, post
from mlobs.notify.retry import Outcome, judge_status
from mlobs.secret import Secret

DOCUMENT_VERSION = 1


class WebhookChannel:
    """POSTs `document(message)`; any 2xx is delivered."""

    kind = "webhook"
    updates = True
    update_every = 0.0
    digests = False
    rate: float | None = 1.0

    def __init__(
        self,
        name: str,
        url: str | Secret,
        *,
        allowed: Addresses,
        signing_key: Secret | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.name = name
        self._url = url
        self._allowed = allowed
        self._key = signing_key
        self._timeout = timeout
        if isinstance(url, str):
            parse_target(url, f"notify.channels.{name}.webhook.url", allowed)

    def send(self, message: Message) -> Outcome:
        body = msgspec.json.encode(document(message))
        url = self._url.reveal() if isinstance(self._url, Secret) else self._url
        target = parse_target(url, f"notify.channels.{self.name}.webhook.url", self._allowed)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "mlobs",
            "Idempotency-Key": f"{message.dedup_key}-{message.number}",
        }
        if self._key is not None:
            headers["X-Mlobs-Signature"] = sign(self._key, body, message.at)
        try:
            reply = post(target, body, headers, allowed=self._allowed, timeout=self._timeout)
        except NotSentError as problem:
            return problem.outcome
        return judge_status(reply.status, reply.headers, message.at)


def document(message: Message) -> dict[str, object]:
    """The JSON that a webhook gets. Fields are added, never renamed; `version` rises when one must be.

    `page` is the whole value; what most receivers need stands beside it.
    """
    page = message.page
    worst = page.burns[0] if page.burns else None
    return {
        "version": DOCUMENT_VERSION,
        "kind": message.kind,
        "dedup_key": message.dedup_key,
        "number": message.number,
        "incident": page.incident,
        "key": page.key,
        "state": page.state,
        "severity": page.severity,
        "cause": page.cause,
        "environment": page.environment,
        "service": page.service,
        "model": page.model,
        "title": page.title,
        "changed": page.changed,
        "since": page.since,
        "at": page.at,
        "resolved_at": page.resolved_at,
        "burn_rate": worst.burn_rate if worst else None,
        "budget_remaining": worst.budget_remaining if worst else None,
        "features": page.features,
        "stage": page.stage,
        "links": dict(links(page)),
        "lines": plain(page),
        "page": page,
    }


def sign(key: Secret, body: bytes, at: float) -> str:
    """Value of the signature header for `body` sent at `at`."""
    stamp = str(int(at))
    mac = hmac.new(key.reveal().encode(), stamp.encode() + b"." + body, hashlib.sha256)
    return f"t={stamp},v1={mac.hexdigest()}"
