"""Slack through slack-sdk: one message an incident, kept up to date in place, evidence in its thread.

Texts go into `rich_text` elements, which Slack shows literally: no markup, mention or link can come out of
a name. After an attempt whose end nobody knows, the channel's messages are searched for the incident's
key in their metadata before anything is sent again (`slack_search`), and the thread for the line.

The bot needs the scopes chat:write, channels:history and channels:read (groups:history and groups:read for a
private channel); without the reading ones it works and may repeat a message after a crash.
"""

from __future__ import annotations

import http.client
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from slack_sdk.errors import SlackApiError, SlackClientError

from mlobs.errors import ConfigError, Problem
from mlobs.notify.channels.base import ACKNOWLEDGE, Message
from mlobs.notify.channels.slack_http import BoundedClient
from mlobs.notify.channels.slack_search import (
    Finder,
    StillLookingError,
    error_of,
    line_is_there,
    may_look_later,
    next_cursor,
    payload_of,
    said,
)
from mlobs.notify.drawing import announcement, headline, plain, sections, trace_line, where_and_when
from mlobs.notify.page import FIRING, RESOLVED, TEST, Page
from mlobs.notify.retry import Outcome, Reason, judge_status, retry_after, sent
from mlobs.secret import Secret

EVENT_TYPE, LINE_TYPE = "mlobs_incident", "mlobs_line"
"""What the metadata of an incident's message and of a line in its thread is called."""
DEFAULT_BASE = "https://slack.com/api/"

_SILENT = logging.Logger("silent", level=logging.CRITICAL + 1)  # noqa: LOG001 - outside of the tree: no handler
"""slack-sdk's DEBUG log prints what it sends and where to; it gets this, which says nothing."""

_REASONS: Mapping[str, Reason] = {
    **dict.fromkeys(("ratelimited", "rate_limited", "message_limit_exceeded"), Reason.RATE_LIMITED),
    **dict.fromkeys(
        ("fatal_error", "internal_error", "service_unavailable", "request_timeout", "team_added_to_org"),
        Reason.SERVER_ERROR,
    ),
    **dict.fromkeys(
        (
            "invalid_auth",
            "not_authed",
            "account_inactive",
            "token_revoked",
            "token_expired",
            "missing_scope",
            "no_permission",
            "not_allowed_token_type",
            "access_denied",
            "ekm_access_denied",
        ),
        Reason.UNAUTHORIZED,
    ),
    **dict.fromkeys(
        ("channel_not_found", "not_in_channel", "is_archived", "restricted_action"), Reason.NOT_FOUND
    ),
    "msg_too_long": Reason.TOO_LARGE,
}
_GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
_BAD_BLOCKS = frozenset(
    {"invalid_blocks", "invalid_blocks_format", "invalid_metadata_format", "msg_blocks_too_long"}
)
_MEND_S = 60.0
"""A wrong token or channel is tried again so often: somebody is mending it, and the page still waits."""


class SlackChannel:
    """Posts to one channel with a bot token. `interactive` adds the acknowledge button."""

    kind = "slack"
    updates = True
    update_every = 0.0
    digests = True
    rate: float | None = 1.0

    def __init__(
        self,
        name: str,
        channel: str,
        token: Secret,
        *,
        base_url: str = DEFAULT_BASE,
        interactive: bool = False,
        timeout: float = 10.0,
    ) -> None:
        self.name = name
        self._channel = channel
        self._channel_id: str | None = channel if not channel.startswith("#") else None
        self._token = token
        self._base = _checked_base(name, base_url)
        self._interactive = interactive
        self._finder = Finder()
        self._timeout = int(timeout)

    def send(self, message: Message) -> Outcome:
        # a client for each message: the token is read when it is used, and a rotated one is picked up
        client = BoundedClient(
            token=self._token.reveal(),
            base_url=self._base,
            timeout=self._timeout,
            logger=_SILENT,
            retry_handlers=[],  # the outbox retries; the library's own would hide attempts from it
        )
        try:
            return self._say(client, message)
        except SlackApiError as problem:
            return _judge(problem, message.at)
        except StillLookingError:
            return Outcome(False, Reason.TIMEOUT, True, uncertain=True, detail="looking for the lost attempt")
        except (TimeoutError, URLError, OSError, http.client.HTTPException) as problem:
            return _transport(problem)
        except SlackClientError as problem:
            return Outcome(False, Reason.MALFORMED_ANSWER, True, detail=type(problem).__name__)

    def _say(self, client: Any, message: Message) -> Outcome:
        ref, there = message.ref, ""
        if ref is None and message.uncertain and message.kind != TEST:
            ref, there = self._look(client, message)
        if ref is None:
            ref = self._post(client, message)
            return sent(ref)
        channel, _, ts = ref.partition("/")
        try:
            self._call(client.chat_update, message, channel=channel, ts=ts)
        except SlackApiError as problem:
            if error_of(problem) not in _GONE:
                raise
            return sent(self._post(client, message))
        worth = message.kind in (FIRING, RESOLVED) or message.page.changed
        told = there == said(message)
        if worth and not told and message.uncertain:
            told = line_is_there(client, message, (channel, ts), LINE_TYPE)
        if worth and not told:
            self._thread(client, message, channel, ts)
        return sent(ref)

    def _post(self, client: Any, message: Message) -> str:
        answer = self._call(
            client.chat_postMessage, message, channel=self._channel, unfurl_links=False, unfurl_media=False
        )
        self._channel_id = str(answer["channel"])
        return f"{answer['channel']}/{answer['ts']}"

    def _call(self, method: Any, message: Message, **target: Any) -> Any:
        """The call with blocks; and once without, should Slack refuse our blocks: the text says it all."""
        text = "\n".join(literal(line) for line in plain(message.page))
        full = {
            "text": headline_text(message.page),
            "blocks": blocks(message.page, interactive=self._interactive),
            "metadata": {"event_type": EVENT_TYPE, "event_payload": _payload(message)},
        }
        try:
            return method(**target, **full)
        except SlackApiError as problem:
            if error_of(problem) not in _BAD_BLOCKS:
                raise
            return method(**target, text=text, blocks=[])

    def _thread(self, client: Any, message: Message, channel: str, ts: str) -> None:
        """A line in the thread, for an edit alone notifies nobody."""
        client.chat_postMessage(
            channel=channel,
            thread_ts=ts,
            text=literal(announcement(message.kind, message.page)),
            reply_broadcast=message.kind == FIRING,
            metadata={"event_type": LINE_TYPE, "event_payload": _payload(message)},
            unfurl_links=False,
            unfurl_media=False,
        )

    def _look(self, client: BoundedClient, message: Message) -> tuple[str | None, str]:
        """`channel/ts` of the incident's message if it is there already, and what it says; None when it is
        not, or we may not look.
        """
        channel = self._channel_id or self._resolve(client)
        if channel is None:
            return None, ""
        one = self._finder.find(client, channel, message, EVENT_TYPE)
        if not one:
            return None, ""
        return f"{channel}/{one['ts']}", str(payload_of(one, EVENT_TYPE).get("said", ""))

    def _resolve(self, client: BoundedClient) -> str | None:
        """Id of `#name`; None when there is none that we may see."""
        cursor = ""
        while client.may_go_on():
            try:
                answer = client.conversations_list(
                    limit=1000,
                    cursor=cursor or None,
                    exclude_archived=True,
                    types="public_channel,private_channel",
                )
            except SlackApiError as problem:
                if may_look_later(problem):
                    raise
                return None
            found: list[Mapping[str, Any]] = answer.get("channels") or []
            for one in found:
                if one.get("name") == self._channel.removeprefix("#"):
                    self._channel_id = str(one["id"])
                    return self._channel_id
            cursor = next_cursor(answer)
            if not cursor:
                return None
        return None


def literal(text: str) -> str:
    """`text` for a field that Slack parses: its three control characters as entities, addresses broken."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("://", ":\u2060//").replace("@", "@\u2060")


def headline_text(page: Page) -> str:
    """What a notification shows."""
    return literal(headline(page))


def blocks(page: Page, *, interactive: bool) -> list[dict[str, Any]]:
    """Block Kit of the page: a header, literal rich text by section, buttons."""
    found: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": _safe(headline(page))[:150], "emoji": False},
        },
        _rich([_text(where_and_when(page))]),
    ]
    for title, lines in sections(page):
        if title == "Links":
            continue
        elements = [_text(title, bold=True)]
        if title == "Traces":
            for one in page.traces:
                elements += _trace(one.url, trace_line(replace(one, url="")))
        else:
            elements.append(_text("\n" + "\n".join(lines)))
        found.append(_rich(elements))
    buttons = _buttons(page, interactive)
    if buttons:
        found.append({"type": "actions", "elements": buttons})
    return found


def _trace(url: str, line: str) -> list[dict[str, Any]]:
    if not url:
        return [_text(f"\n{line}")]
    return [_text("\n"), {"type": "link", "url": url, "text": _safe(line)}]


def _rich(elements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": elements}]}


def _text(text: str, *, bold: bool = False) -> dict[str, Any]:
    element: dict[str, Any] = {"type": "text", "text": _safe(text)[:2900]}
    return {**element, "style": {"bold": True}} if bold else element


def _safe(text: str) -> str:
    """Rich text is literal; angle brackets go all the same, so that no reader of the payload can mistake
    them.
    """
    return text.replace("<", "‹").replace(">", "›")


def _buttons(page: Page, interactive: bool) -> list[dict[str, Any]]:
    buttons: list[dict[str, Any]] = []
    if interactive and page.state == FIRING and not page.test:
        buttons.append(
            {
                "type": "button",
                "action_id": ACKNOWLEDGE,
                "value": page.incident,
                "style": "primary",
                "text": {"type": "plain_text", "text": "Acknowledge"},
            }
        )
    for label, url in (("Runbook", page.runbook), ("Dashboard", page.dashboard), ("Incident", page.link)):
        if url.startswith(("https://", "http://")):
            buttons.append(
                {
                    "type": "button",
                    "action_id": f"mlobs_{label.lower()}",
                    "url": url,
                    "text": {"type": "plain_text", "text": label},
                }
            )
    return buttons


def _payload(message: Message) -> dict[str, str]:
    return {
        "dedup_key": message.dedup_key,
        "key": _safe(message.page.key),
        "kind": message.kind,
        "said": said(message),
    }


def _checked_base(name: str, base: str) -> str:
    """https, or http to this machine (a stub, a proxy)."""
    parts = urlsplit(base)
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise ConfigError(
            Problem(
                f"notify.channels.{name}.slack.base_url", "https", repr(parts.scheme), f"use {DEFAULT_BASE}"
            )
        )
    return base if base.endswith("/") else base + "/"


def _judge(problem: Any, now: float) -> Outcome:
    """`ok: false`, or a status other than 200."""
    response = problem.response
    status = int(getattr(response, "status_code", 0) or 0)
    headers = {str(k).lower(): str(v) for k, v in (getattr(response, "headers", None) or {}).items()}
    word = error_of(problem)
    reason = _REASONS.get(word)
    if status == 429 or reason is Reason.RATE_LIMITED:
        wait = retry_after(headers.get("retry-after"), now)
        return Outcome(False, Reason.RATE_LIMITED, True, wait, whole_channel=True, detail="429")
    if status != 200:
        return judge_status(status, headers, now)
    if reason is Reason.SERVER_ERROR:
        return Outcome(False, reason, True, uncertain=True, whole_channel=True, detail=word)
    if reason in (Reason.UNAUTHORIZED, Reason.NOT_FOUND):
        return Outcome(False, reason, True, _MEND_S, whole_channel=True, detail=word)
    known = word if word.replace("_", "").isalnum() and len(word) < 60 else ""
    if not known or word.startswith("Received"):
        return Outcome(False, Reason.MALFORMED_ANSWER, True, uncertain=True, whole_channel=True)
    return Outcome(False, reason or Reason.REJECTED, detail=known)


def _transport(problem: BaseException) -> Outcome:
    inner = problem.reason if isinstance(problem, URLError) else problem
    if isinstance(inner, TimeoutError):
        return Outcome(
            False, Reason.TIMEOUT, True, uncertain=True, whole_channel=True, detail="no answer in time"
        )
    refused = isinstance(inner, ConnectionRefusedError)
    name = type(inner).__name__
    return Outcome(False, Reason.CONNECTION, True, uncertain=not refused, whole_channel=True, detail=name)
