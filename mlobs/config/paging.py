"""The `notify` part of `mlobs.yaml`: its shape, and how it becomes plain settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from mlobs.config.values import Part, Seconds, Zone, refuse
from mlobs.secret import Secret
from mlobs.settings import (
    AlertmanagerSettings,
    ChannelSettings,
    EscalationSettings,
    HeartbeatSettings,
    MaintenanceSettings,
    NotifySettings,
    RouteSettings,
    TimesSettings,
)

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]\d|2[0-4]):([0-5]\d)")


def _days(value: object) -> tuple[int, ...]:
    """`mon-fri, sun` -> (0, 1, 2, 3, 4, 6); ranges may go over the end of the week."""
    found: list[int] = []
    for part in str(value).lower().replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise refuse("days of the week", "write for example mon-fri or sat, sun")
        start, end = DAYS.index(first), DAYS.index(last or first)
        found += [day % 7 for day in range(start, end + 1 if end >= start else end + 8)]
    return tuple(sorted(set(found)))


def _clock(value: object) -> float:
    """`09:30` -> seconds since midnight; `24:00` is the end of the day."""
    match = _CLOCK.fullmatch(str(value))
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 if match else 86401
    if seconds > 86400:
        raise refuse("a time of day", 'write it in quotes, like "09:30"')
    return float(seconds)


def _moment(value: object) -> float:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise refuse("a time with a zone", 'write it in quotes, like "2026-11-02T09:30:00+01:00"')
    return moment.timestamp()


Moment = Annotated[float, BeforeValidator(_moment)]
Clock = Annotated[float, BeforeValidator(_clock)]


class Times(Part):
    days: Annotated[tuple[int, ...], BeforeValidator(_days)] = tuple(range(7))
    start: Clock = Field(default=0.0, alias="from")
    end: Clock = Field(default=86400.0, alias="to")
    timezone: Zone = "UTC"


class Escalation(Part):
    after: Seconds
    to: tuple[str, ...] = Field(min_length=1)


class Route(Part):
    match: dict[str, str] = Field(default_factory=dict)
    to: tuple[str, ...] = Field(min_length=1)
    times: str | None = None
    escalate: tuple[Escalation, ...] = ()


class Maintenance(Part):
    match: dict[str, str] = Field(default_factory=dict)
    start: Moment | None = Field(default=None, alias="from")
    end: Moment | None = Field(default=None, alias="to")
    times: str | None = None
    comment: str = ""


class Heartbeat(Part):
    url: str | None = None
    url_file: str | None = None
    url_env: str | None = None
    every: Seconds = 60.0
    allow_http: bool = False
    allow_private: bool = False


class Alertmanager(Part):
    url: str | None = None
    token_file: str | None = None
    token_env: str | None = None
    receiver: str = "mlobs"
    group_wait: Seconds = 10.0
    group_interval: Seconds = 60.0


class Notify(Part):
    channels: dict[str, dict[str, dict[str, Any] | None]] = Field(default_factory=dict)
    people: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    times: dict[str, Times] = Field(default_factory=dict)
    maintenance: tuple[Maintenance, ...] = ()
    escalate: tuple[Escalation, ...] = ()
    fallback: str | None = None
    fallback_after: Seconds = 300.0
    together: Seconds = 3600.0
    hold: Seconds = 300.0
    token_file: str | None = None
    token_env: str | None = None
    heartbeat: Heartbeat | None = None
    alertmanager: Alertmanager | None = None


def plain_notify(notify: Notify, channels: Mapping[str, ChannelSettings], base: Path) -> NotifySettings:
    return NotifySettings(
        channels=channels,
        people=notify.people,
        routes=tuple(
            RouteSettings(one.match, one.to, one.times, _escalations(one.escalate)) for one in notify.routes
        ),
        times={
            name: TimesSettings(one.days, one.start, one.end, one.timezone)
            for name, one in notify.times.items()
        },
        maintenance=tuple(
            MaintenanceSettings(one.match, one.start, one.end, one.times, one.comment)
            for one in notify.maintenance
        ),
        escalate=_escalations(notify.escalate),
        fallback=notify.fallback,
        fallback_after=notify.fallback_after,
        together=notify.together,
        hold=notify.hold,
        token=_secret("notify.token", notify.token_file, notify.token_env, base),
        heartbeat=_heartbeat(notify.heartbeat, base),
        alertmanager=_alertmanager(notify.alertmanager, base),
    )


def _escalations(given: tuple[Escalation, ...]) -> tuple[EscalationSettings, ...]:
    return tuple(EscalationSettings(one.after, one.to) for one in sorted(given, key=lambda one: one.after))


def _heartbeat(given: Heartbeat | None, base: Path) -> HeartbeatSettings | None:
    if given is None:
        return None
    secret = _secret("notify.heartbeat.url", given.url_file, given.url_env, base)
    return HeartbeatSettings(given.url, secret, given.every, given.allow_http, given.allow_private)


def _alertmanager(given: Alertmanager | None, base: Path) -> AlertmanagerSettings | None:
    if given is None:
        return None
    token = _secret("notify.alertmanager.token", given.token_file, given.token_env, base)
    return AlertmanagerSettings(given.url, token, given.receiver, given.group_wait, given.group_interval)


def _secret(field: str, file: str | None, env: str | None, base: Path) -> Secret | None:
    if file is not None:
        return Secret(f"{field}_file", file=str(base / file))
    return Secret(f"{field}_env", env=env) if env is not None else None
