"""What may be POSTed to paging, without any web framework: `OnCall.answer` takes a request apart and answers.

    /api/incidents/<id>/ack       {"by": "ada"}
    /api/incidents/<id>/resolve   {"by": "ada"}
    /api/events                   {"kind": "deploy", "text": "v2", "model": "fraud", "at": 1700000000,
    "source": "ci"} /api/silences                 {"match": {"model": "fraud"}, "seconds": 7200, "by":
    "ada", "comment": "known"} /api/alertmanager             Alertmanager's webhook, with its own bearer token
    /api/slack                    Slack's buttons, signed by Slack

The first four take `Authorization: Bearer` with `notify.token_file`, or come from this machine. They want
`Content-Type: application/json`, which no foreign page can send without asking first.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from mlobs.errors import nearest
from mlobs.notify import keeping
from mlobs.notify.book import CHANGES
from mlobs.notify.desk import Desk
from mlobs.notify.receiver import Answer, receive
from mlobs.notify.routing import MATCHED, Silence
from mlobs.notify.slack_action import act
from mlobs.notify.text import clean
from mlobs.records import TimelineEvent
from mlobs.secret import Secret
from mlobs.settings import Settings
from mlobs.store import Store

EVENTS = (*CHANGES, "note")
MOST_BYTES = 64 * 1024
LONGEST_SILENCE_S = 30 * 86400.0


class _Hand(msgspec.Struct, forbid_unknown_fields=True):
    by: str = ""


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    text: str
    model: str = ""
    at: float | None = None
    source: str = "api"


class _SilenceBody(msgspec.Struct, forbid_unknown_fields=True):
    match: dict[str, str]
    seconds: float
    by: str
    comment: str = ""


class OnCall:
    """The POST side of paging over one desk."""

    def __init__(self, settings: Settings, store: Store, desk: Desk) -> None:
        self._settings = settings
        self._store = store
        self._desk = desk

    def answer(
        self, path: str, headers: Mapping[str, str], body: bytes, now: float, *, local: bool, wall: float
    ) -> Answer:
        """Answer a POST. `headers` by lower-case name; `local`: it came straight from this machine, through
        no proxy; `now` is event time, `wall` what Slack's clock is compared with.
        """
        parts = path.strip("/").split("/")
        try:
            if parts == ["api", "alertmanager"]:
                return self._alertmanager(headers, body, now)
            if parts == ["api", "slack"]:
                return self._slack(headers, body, now, wall)
            refusal = self._refused(headers, body, local)
            if refusal is not None:
                return refusal
            if parts == ["api", "events"]:
                return self._event(body, now)
            if parts == ["api", "silences"]:
                return self._silence(body, now)
            if len(parts) == 4 and parts[:2] == ["api", "incidents"] and parts[3] in ("ack", "resolve"):
                return self._by_hand(parts[2], parts[3], body, now)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            return Answer(400, f"the body: {clean(problem)}")
        except SQLAlchemyError as problem:
            return Answer(503, f"not written ({type(problem).__name__}): try again")
        return Answer(404, "nothing takes a POST here")

    def _refused(self, headers: Mapping[str, str], body: bytes, local: bool) -> Answer | None:
        if len(body) > MOST_BYTES:
            return Answer(413, f"more than {MOST_BYTES} bytes")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return Answer(415, "Content-Type: application/json is expected")
        token = self._settings.notify.token
        if token is not None and _bears(headers, token):
            return None
        if local and token is None:
            return None
        return Answer(401, "a bearer token is expected: notify.token_file")

    def _alertmanager(self, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        options = self._settings.notify.alertmanager
        if options is None or options.token is None or self._settings.slo.evaluator != "prometheus":
            return Answer(
                404, "slo.evaluator is not prometheus, or notify.alertmanager.token_file is missing"
            )
        given = headers.get("authorization", "")
        return receive(body, given, options.token, self._settings, self._desk, now)

    def _slack(self, headers: Mapping[str, str], body: bytes, now: float, wall: float) -> Answer:
        secrets = [
            one.secrets["signing_secret"]
            for one in self._settings.notify.channels.values()
            if one.kind == "slack" and "signing_secret" in one.secrets
        ]
        answer = Answer(404, "no slack channel has a signing_secret_file")
        for secret in secrets:
            answer = act(body, headers, secret, self._desk, now, wall)
            if answer.status != 401:
                break
        return answer

    def _by_hand(self, incident: str, what: str, body: bytes, now: float) -> Answer:
        by = msgspec.json.decode(body or b"{}", type=_Hand).by or "api"
        change = self._desk.acknowledge if what == "ack" else self._desk.resolve
        found = change(incident, by, now)
        if found is None:
            return Answer(409, "there is no such incident, or it is not in a state for that")
        return Answer(200, f"{found.id} is {found.state}")

    def _event(self, body: bytes, now: float) -> Answer:
        event = msgspec.json.decode(body, type=_Event)
        if event.kind not in EVENTS:
            return Answer(400, f"kind: {nearest(event.kind, EVENTS)}")
        at = event.at if event.at is not None else now
        service = self._settings.service
        self._desk.event(TimelineEvent(at, event.kind, service, event.model, event.text, event.source))
        return Answer(200, f"{event.kind} noted")

    def _silence(self, body: bytes, now: float) -> Answer:
        given = msgspec.json.decode(body, type=_SilenceBody)
        wrong = [name for name in given.match if name not in MATCHED]
        if wrong:
            return Answer(400, f"match: {nearest(wrong[0], MATCHED)}")
        if not 0 < given.seconds <= LONGEST_SILENCE_S or not given.match or not given.by:
            return Answer(400, "match and by are not empty, seconds is up to 30 days")
        one = Silence(0, given.match, now, now + given.seconds, given.by, given.comment)
        return Answer(200, f"silence {keeping.silence(self._store, one)}")


def _bears(headers: Mapping[str, str], token: Secret) -> bool:
    given: Any = headers.get("authorization", "").encode("utf-8", "surrogateescape")
    return hmac.compare_digest(f"Bearer {token.reveal()}".encode(), given)
