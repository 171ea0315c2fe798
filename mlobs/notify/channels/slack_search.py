"""Looking in Slack for a message whose answer was lost, before it is said again.

The channel is read from its newest message back to when the message was intended, page by page, however many
there are. A look that Slack interrupts (429), or that takes longer than an attempt has time for, goes on at
the next attempt where it ended; after `LONGEST_S` the message is sent all the same: better twice than late.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slack_sdk.errors import SlackApiError

from mlobs.notify.channels.base import Message
from mlobs.notify.channels.slack_http import BoundedClient
from mlobs.notify.drawing import announcement

A_PAGE = 200
"""Messages of one answer; Slack gives fewer where it likes to."""
SKEW_S = 300.0
"""Slack's clock may be so far behind ours."""
LONGEST_S = 120.0
"""From the first look on; no page waits longer for it."""
MOST_LOOKS = 1000
"""Interrupted ones that are remembered."""
_LATER = frozenset({"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable"})


class StillLookingError(Exception):
    """The time of this attempt is over and the end of the channel's messages is not reached."""


@dataclass(slots=True)
class _Look:
    cursor: str
    began: float


class Finder:
    """How far the looks of one Slack channel have come, by message. In memory: a new process begins anew."""

    def __init__(self) -> None:
        self._looks: dict[int, _Look] = {}

    def find(self, client: BoundedClient, channel: str, message: Message, kind: str) -> Mapping[str, Any]:
        """The incident's message in the channel as Slack gives it; empty when it is not there, or we may not
        look.

        Raises StillLookingError, and SlackApiError where a later attempt may look.
        """
        if len(self._looks) > MOST_LOOKS:
            self._looks.clear()
        look = self._looks.setdefault(message.number, _Look("", message.at))
        if message.at - look.began > LONGEST_S:
            self._looks.pop(message.number, None)
            return {}
        found: Mapping[str, Any] = {}
        for page in self._pages(client, channel, message, look):
            mine = (one for one in page if payload_of(one, kind).get("dedup_key") == message.dedup_key)
            found = next(mine, {})
            if found:
                break
        self._looks.pop(message.number, None)
        return found

    def _pages(
        self, client: BoundedClient, channel: str, message: Message, look: _Look
    ) -> Iterator[list[Mapping[str, Any]]]:
        while True:
            try:
                answer = client.conversations_history(
                    channel=channel,
                    include_all_metadata=True,
                    limit=A_PAGE,
                    oldest=since(message),
                    cursor=look.cursor or None,
                )
            except SlackApiError as problem:
                if may_look_later(problem):
                    raise
                if not look.cursor:
                    return  # no right to read: better twice than not at all
                look.cursor = ""  # it is not good any more: from the newest on
            else:
                yield messages_of(answer)
                look.cursor = next_cursor(answer)
                if not look.cursor:
                    return
            if not client.may_go_on():
                raise StillLookingError


def line_is_there(client: BoundedClient, message: Message, place: tuple[str, str], kind: str) -> bool:
    """Whether the line of an attempt without an end is in the thread `place`; False when we may not look."""
    cursor = ""
    while True:
        try:
            answer = client.conversations_replies(
                channel=place[0],
                ts=place[1],
                include_all_metadata=True,
                limit=A_PAGE,
                oldest=since(message),
                cursor=cursor or None,
            )
        except SlackApiError as problem:
            if may_look_later(problem):
                raise
            return False
        if any(payload_of(one, kind).get("said") == said(message) for one in messages_of(answer)):
            return True
        cursor = next_cursor(answer)
        if not cursor or not client.may_go_on():
            return False


def since(message: Message) -> str:
    """Nothing of the message can stand in Slack before."""
    return f"{max(0.0, message.wanted_at - SKEW_S):.6f}"


def messages_of(answer: Any) -> list[Mapping[str, Any]]:
    return answer.get("messages") or []


def next_cursor(answer: Any) -> str:
    return str((answer.get("response_metadata") or {}).get("next_cursor", ""))


def payload_of(one: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """What we wrote to a message of Slack's; empty when it is not ours, or of another kind."""
    metadata = one.get("metadata") or {}
    return (metadata.get("event_payload") or {}) if metadata.get("event_type") == kind else {}


def error_of(problem: Any) -> str:
    """Slack's word for what is wrong; empty when the answer was no JSON object."""
    data = getattr(problem.response, "data", None)
    return str(data.get("error", "")) if isinstance(data, dict) else ""


def may_look_later(problem: Any) -> bool:
    """Slack is pressed or ill, or its answer is none; anything else it will say again."""
    status = int(getattr(problem.response, "status_code", 0) or 0)
    if status != 200:
        return status == 429 or status >= 500
    return error_of(problem) in ("", *_LATER)


def said(message: Message) -> str:
    """Tells a repetition from a message that took in other news while it waited for its next attempt."""
    text = f"{message.number} {message.kind} {announcement(message.kind, message.page)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
