"""Slack's acknowledge button: a signed request becomes an acknowledgement.

Slack signs with the app's signing secret: `v0=` HMAC-SHA-256 over `v0:<timestamp>:<body>`.
https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from mlobs.notify.channels.base import ACKNOWLEDGE
from mlobs.notify.desk import Desk
from mlobs.notify.receiver import Answer
from mlobs.notify.text import clean
from mlobs.secret import Secret

FRESH_S = 300.0
"""An older request may be a replay."""
MOST_BYTES = 1024 * 1024


def act(
    body: bytes, headers: Mapping[str, str], secret: Secret, desk: Desk, now: float, wall: float
) -> Answer:
    """Answer one interaction of Slack; `headers` by lower-case name, `now` in event time, `wall` by the
    wall clock.

    200 for what is not ours too: Slack shows its user an error otherwise.
    """
    if len(body) > MOST_BYTES:
        return Answer(413, f"more than {MOST_BYTES} bytes")
    stamp = headers.get("x-slack-request-timestamp", "")
    if not stamp.isascii() or not stamp.isdigit() or abs(wall - int(stamp)) > FRESH_S:
        return Answer(401, "the request has no fresh timestamp")
    signed = hmac.new(secret.reveal().encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256)
    given = headers.get("x-slack-signature", "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(b"v0=" + signed.hexdigest().encode(), given):
        return Answer(401, "the signature is not Slack's")
    done = []
    for incident, who in pressed(body):
        found = desk.acknowledge(incident, who, now)
        done.append(f"{incident} is {'acknowledged' if found is not None else 'not open'}")
    return Answer(200, "; ".join(done))


def pressed(body: bytes) -> list[tuple[str, str]]:
    """(incident, who) of each acknowledge button that was pressed; empty for anything else."""
    try:
        form = parse_qs(body.decode(), max_num_fields=20)
        payload: Any = msgspec.json.decode(form.get("payload", ["{}"])[0])
        actions = payload.get("actions", [])
        user = payload.get("user", {})
        who = clean(user.get("name") or user.get("username") or user.get("id") or "someone", 80)
        return [
            (clean(one["value"], 80), f"{who} (Slack)")
            for one in actions
            if one.get("action_id") == ACKNOWLEDGE
        ]
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        return []
