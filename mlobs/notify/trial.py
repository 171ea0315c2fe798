"""Trials: a marked test page through one channel, and who would get an incident that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlobs.durations import speak_duration
from mlobs.names import PAGE
from mlobs.notify.channels.base import Channel, Message
from mlobs.notify.compose import trial_page
from mlobs.notify.grouping import Grouping, absorb
from mlobs.notify.page import TEST
from mlobs.notify.retry import Outcome
from mlobs.notify.routing import channels_of, muted, others_than, route, why_not
from mlobs.notify.sender import attempt
from mlobs.records import Alert
from mlobs.settings import NotifySettings, Settings


@dataclass(frozen=True, slots=True)
class Recipient:
    """A channel, where it leads (`#oncall`, `ada@ops.example`; empty where that is a secret), and whose it is
    by `notify.people`."""

    channel: str
    kind: str
    where: str
    people: tuple[str, ...]

    def __str__(self) -> str:
        """`ada by ada-phone (pagerduty)`, `oncall (slack #oncall)`."""
        led = f"{self.channel} ({' '.join(filter(None, (self.kind, self.where)))})"
        return f"{' and '.join(self.people)} by {led}" if self.people else led


@dataclass(frozen=True, slots=True)
class Told:
    """Who would get it and why; `passed` are the routes before, `then` what follows without an
    acknowledgement.
    """

    to: tuple[Recipient, ...]
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
    then = []
    for step in routed.escalate if severity == PAGE else ():
        woken = spoken_list(channels_of(step.to, notify), notify)
        then.append(f"not acknowledged after {speak_duration(step.after)}: {woken}")
    fallback = channels_of(filter(None, (notify.fallback,)), notify)
    if set(fallback) - set(routed.to) and routed.to:
        then.append(
            f"not delivered after {speak_duration(notify.fallback_after)}: {spoken_list(fallback, notify)}"
        )
    elif severity == PAGE and routed.to:
        left = spoken_list(others_than(routed.to, notify), notify)
        then.append(f"not delivered to anybody after {speak_duration(notify.fallback_after)}: {left}")
    return Told(recipients(routed.to, notify), routed.why, tuple(passed), tuple(then))


def recipients(channels: Iterable[str], notify: NotifySettings) -> tuple[Recipient, ...]:
    """The channels with the people that they reach."""
    return tuple(_recipient(name, notify) for name in channels)


def spoken_list(channels: Iterable[str], notify: NotifySettings) -> str:
    return ", ".join(str(one) for one in recipients(channels, notify))


def _recipient(name: str, notify: NotifySettings) -> Recipient:
    one = notify.channels.get(name)
    if one is None:
        return Recipient(name, "standard error of mlobs serve", "", ())
    where = str(one.options.get("channel") or one.options.get("to") or "")
    people = tuple(person for person, theirs in notify.people.items() if name in theirs)
    return Recipient(name, one.kind, where, people)
