"""The webhook that Alertmanager calls: its alerts become incidents of the same keys as those of our own
engine.

200 only after the commit; 503 when it could not be written, which Alertmanager retries; never 429, which it
does not.
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from mlobs.notify.alertmanager import MalformedError, parse_webhook
from mlobs.notify.desk import Desk
from mlobs.secret import Secret
from mlobs.settings import Settings

_log = logging.getLogger("mlobs.notify")

SOURCE = "alertmanager"
MOST_BYTES = 32 * 1024 * 1024
"""Of a body; 10,000 alerts are some 8 MB."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str


def receive(
    body: bytes, authorization: str, token: Secret, settings: Settings, desk: Desk, now: float
) -> Answer:
    """Answer one POST of Alertmanager. `authorization` is the header's value, empty where there is none."""
    expected = f"Bearer {token.reveal()}"
    if not hmac.compare_digest(expected.encode(), authorization.encode("utf-8", "surrogateescape")):
        return Answer(401, "a bearer token is expected: notify.alertmanager.token_file")
    if len(body) > MOST_BYTES:
        return Answer(413, f"more than {MOST_BYTES} bytes")
    try:
        received = parse_webhook(body, settings, now)
    except MalformedError as problem:
        return Answer(400, f"not an Alertmanager webhook of version 4: {problem}")
    try:
        if received.watchdog:
            desk.hear(now)
        if received.alerts:
            desk.receive(received.alerts, now, source=SOURCE, complete=False)
    except SQLAlchemyError as problem:
        _log.error("alerts could not be written: %s", type(problem).__name__)
        return Answer(503, "not written: try again")
    return Answer(200, f"{len(received.alerts)} alerts taken")
