"""Who gets an incident, and when nobody does: routes, hours, people, silences. Pure.

The first route that matches decides. Without routes everything goes everywhere. A page that no route wants
goes to the fallback, or everywhere: when unsure, page. A ticket that no route wants stays in the list of
incidents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from mlobs.names import PAGE, TICKET
from mlobs.notify.incident import Incident
from mlobs.notify.text import moment
from mlobs.settings import EscalationSettings, NotifySettings, RouteSettings, TimesSettings

LAST_RESORT = "last-resort"
"""A channel that is always there where the file names no fallback: it prints to standard error."""

MATCHED = ("severity", "service", "model", "environment", "segment", "cause")
"""What routes, silences and maintenance windows can match."""


@dataclass(frozen=True, slots=True)
class Routed:
    """The channels, one sentence on why, and what follows when nobody acknowledges."""

    to: tuple[str, ...]
    why: str
    escalate: tuple[EscalationSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class Silence:
    """What matches is not told of from `start` to `end`."""

    id: int
    match: Mapping[str, str]
    start: float
    end: float
    by: str
    comment: str = ""


def route(incident: Incident, settings: NotifySettings, now: float) -> Routed:
    """The channels of `incident` at `now`."""
    if not settings.routes:
        why = "no routes are configured: everything goes to every channel"
        return Routed(tuple(settings.channels), why, settings.escalate)
    for number, one in enumerate(settings.routes):
        if why_not(one, incident, settings, now) is None:
            text = spoken(one.match) + (f" at {one.times}" if one.times else "")
            to = channels_of(one.to, settings)
            return Routed(to, f"routes[{number}] matches {text}", one.escalate or settings.escalate)
    if incident.severity == PAGE:
        if settings.fallback:
            why = "no route matches a page: it goes to the fallback"
            return Routed(channels_of((settings.fallback,), settings), why, settings.escalate)
        why = "no route matches a page: it goes to every channel"
        return Routed(tuple(settings.channels), why, settings.escalate)
    return Routed((), "no route matches this ticket: it is listed and not sent")


def why_not(one: RouteSettings, incident: Incident, settings: NotifySettings, now: float) -> str | None:
    """Why this route does not take the incident; None when it does."""
    for name, value in one.match.items():
        if value not in values_of(incident, name):
            has = ", ".join(filter(None, values_of(incident, name))) or "nothing"
            return f"{name} is {has} and not {value}"
    if one.times and not within(settings.times[one.times], now):
        return f"{moment(now)} is outside of {one.times}"
    return None


def others_than(told: Collection[str], settings: NotifySettings) -> tuple[str, ...]:
    """Who hears of a page that no channel in `told` takes, where no fallback is named: every other channel,
    and when there is none, the log of `mlobs serve`."""
    others = tuple(name for name in settings.channels if name not in told)
    return others or ((LAST_RESORT,) if LAST_RESORT not in told else ())


def without_fallback(settings: NotifySettings) -> str:
    """What to say of a file that names channels and no fallback; empty where there is nothing to say."""
    if settings.fallback or not settings.channels:
        return ""
    alone = len(settings.channels) == 1
    then = "stands in the log of mlobs serve alone" if alone else "goes to the channels that are left"
    return f"no notify.fallback: a page that is not taken {then}; name a channel of another service"


def channels_of(names: Iterable[str], settings: NotifySettings) -> tuple[str, ...]:
    """Names of channels and people as channels, each once, in order."""
    found: dict[str, None] = {}
    for name in names:
        for channel in settings.people.get(name, (name,)):
            found[channel] = None
    return tuple(found)


def matches(match: Mapping[str, str], incident: Incident) -> bool:
    return all(value in values_of(incident, name) for name, value in match.items())


def values_of(incident: Incident, name: str) -> tuple[str, ...]:
    """What the incident has under a matched name; segments and causes may be several."""
    if name == "segment":
        return tuple(dict.fromkeys(one.alert.segment for one in incident.alerts))
    if name == "cause":
        return incident.causes
    value = getattr(incident, name, None)
    return (value,) if isinstance(value, str) else ()


def within(times: TimesSettings, now: float) -> bool:
    """Whether `now` lies in these hours of the week, by the clock of their zone."""
    local = datetime.fromtimestamp(now, ZoneInfo(times.zone))
    seconds = local.hour * 3600 + local.minute * 60 + local.second
    if times.start < times.end:
        return local.weekday() in times.days and times.start <= seconds < times.end
    if seconds >= times.start:
        return local.weekday() in times.days
    return seconds < times.end and (local - timedelta(days=1)).weekday() in times.days


def muted(
    incident: Incident,
    settings: NotifySettings,
    silences: Iterable[Silence],
    others: Iterable[Incident],
    now: float,
) -> str:
    """Why nobody is told of `incident` now; empty when they are. `others` are the open incidents.

    A ticket is inhibited by an open page of the same model: whoever is up looks at it anyway.
    """
    for silence in silences:
        if silence.start <= now < silence.end and matches(silence.match, incident):
            return f"silenced by {silence.by} until {moment(silence.end)}" + _comment(silence.comment)
    for window in settings.maintenance:
        open_ = (window.start is None or window.start <= now) and (window.end is None or now < window.end)
        if window.times is not None:
            open_ = open_ and within(settings.times[window.times], now)
        bounded = window.times is not None or window.end is not None
        if open_ and bounded and matches(window.match, incident):
            return "maintenance" + _comment(window.comment)
    if incident.severity == TICKET and incident.model:
        for other in others:
            same = (other.environment, other.service, other.model) == (
                incident.environment,
                incident.service,
                incident.model,
            )
            if same and other.id != incident.id and other.severity == PAGE and other.quiet_since is None:
                return f"inhibited by the page {other.id}"
    return ""


def muted_kind(why: str) -> str:
    """`silenced`, `maintenance` or `inhibited`: the first word of what `muted` says."""
    return why.partition(" ")[0].rstrip(":")


def spoken(match: Mapping[str, str]) -> str:
    """`severity=page, model=fraud`; `everything` for an empty match."""
    return ", ".join(f"{name}={value}" for name, value in match.items()) or "everything"


def _comment(text: str) -> str:
    return f": {text}" if text else ""
