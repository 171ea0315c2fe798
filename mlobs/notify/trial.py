"""A marked test page through one channel, past the outbox: what `mlobs notify test` does."""

from __future__ import annotations

from mlobs.notify.channels.base import Channel, Message
from mlobs.notify.compose import trial_page
from mlobs.notify.page import TEST
from mlobs.notify.retry import Outcome
from mlobs.notify.sender import attempt
from mlobs.settings import Settings


def try_channel(channel: Channel, settings: Settings, now: float, by: str = "") -> Outcome:
    """One attempt, no retry; the page says of itself that it is a test. Each try has a key of its own."""
    page = trial_page(settings, now, by)
    return attempt(channel, Message(TEST, page, f"mlobs-test-{now:.3f}", 0, now))
