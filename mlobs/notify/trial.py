"""Trials: a marked test page through one channel, and who would get an incident that is not there."""

from __future__ import annotations

from dataclasses import dataclass

from mlobs.durations import speak_duration
from mlobs.notify.channels.base import Channel, Message
from mlobs.notify.compose import trial_page
from mlobs.notify.grouping import Grouping, absorb
from mlobs.notify.page import TEST
from mlobs.notify.retry import Outcome
from mlobs.notify.routing import channels_of, muted, route, why_not
from mlobs.notify.sender import attempt
from mlobs.records import Alert
from mlobs.settings import Settings


@dataclass(frozen=True, slots=True)
class Told:
    """Who would get it and why; `passed` are the routes before, `then` what follows without an
    acknowledgement.
    """

    to: tuple[str, ...]
    why: str
    passed: tuple[str, ...]
    then: tuple[str, ...]


def try_channel(channel: Channel, settings: Settings, now: float, by: str = "") -> Outcome:
    """One attempt, no retry; the page says of itself that it is a test. Each try has a key of its own."""
    page = trial_page(settings, now, by)
    return attempt(channel, Message(TEST, page, f"mlobs-test-{now:.3f}", 0, now))


def explain_route(
    settings: Settings,
    now: float,
    *,
    severity: str,
    model: str,
    service: str,
    environment: str,
    cause: str,
    segment: str,
) -> Told:
    """The way of an incident like that at `now`, by the file alone: silences are not looked at."""
    alert = Alert(
        "trial", cause, severity, True, now, now, service, model, environment=environment, segment=segment
    )
    (change,) = absorb([], [alert], now, Grouping())
    notify = settings.notify
    why = muted(change.incident, notify, (), (), now)
    if why:
        return Told((), why, (), ())
    passed = []
    for number, one in enumerate(notify.routes):
        reason = why_not(one, change.incident, notify, now)
        if reason is None:
            break
        passed.append(f"routes[{number}]: {reason}")
    routed = route(change.incident, notify, now)
    then = [
        f"not acknowledged after {speak_duration(step.after)}: {', '.join(channels_of(step.to, notify))}"
        for step in (routed.escalate if severity == "page" else ())
    ]
    if notify.fallback and routed.to:
        then.append(
            f"not delivered after {speak_duration(notify.fallback_after)}: "
            f"{', '.join(channels_of((notify.fallback,), notify))}"
        )
    return Told(routed.to, routed.why, tuple(passed), tuple(then))
