"""What Alertmanager and Prometheus need to hand their alerts to us. Pure: settings -> documents.

One receiver gets everything: mlobs groups, routes, silences and escalates. One more, past mlobs, gets only
what says that mlobs itself is dead or cannot page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from mlobs.errors import ConfigError, Problem
from mlobs.names import (
    NOTIFY_FAILED,
    NOTIFY_LATENCY,
    NOTIFY_OLDEST,
    NOTIFY_PASSED_ON,
    NOTIFY_SUPPRESSED,
    NOTIFY_UNREACHED,
    SERVE_LAST_TICK,
)
from mlobs.notify.alertmanager import WATCHDOG
from mlobs.secret import Secret
from mlobs.settings import AlertmanagerSettings, ChannelSettings, NotifySettings, Settings, TimesSettings

FALLBACK = "mlobs-fallback"
DEAD = 'mlobs="dead"'
"""Matcher of the alerts that go past mlobs."""
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_BEAT = "1m"


def config_text(settings: Settings, url: str) -> str:
    """`alertmanager.yml`; `url` is where Alertmanager reaches our receiver. Raises ConfigError."""
    return _written("mlobs notify alertmanager", config_document(settings, url))


def rules_text(settings: Settings) -> str:
    """Prometheus rules: the watchdog, and what says that mlobs is dead or cannot page."""
    return _written("mlobs notify alertmanager", rules_document(settings))


def config_document(settings: Settings, url: str) -> dict[str, Any]:
    notify = settings.notify
    options = notify.alertmanager or AlertmanagerSettings()
    document: dict[str, Any] = {
        "route": {
            "receiver": options.receiver,
            "group_by": ["environment", "service", "model"],
            "group_wait": _seconds(options.group_wait),
            "group_interval": _seconds(options.group_interval),
            "repeat_interval": "4h",
            "routes": [
                {
                    "matchers": [f'alertname="{WATCHDOG}"'],
                    "group_wait": "0s",
                    "group_interval": _BEAT,
                    "repeat_interval": "50s",
                },
                {"matchers": [DEAD], "receiver": FALLBACK, "group_wait": "0s", "repeat_interval": "30m"},
                *_muted(notify),
            ],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['severity="page"'],
                "target_matchers": ['severity="ticket"'],
                "equal": ["environment", "service", "model"],
            }
        ],
        "receivers": [_ours(options, url), _past_us(notify)],
    }
    if notify.times:
        document["time_intervals"] = [
            {"name": name, "time_intervals": intervals(times)} for name, times in sorted(notify.times.items())
        ]
    return document


def rules_document(settings: Settings) -> dict[str, Any]:
    """The watchdog, and what Prometheus alerts on among paging's own metrics; `selfwatch` does the like where
    there is no Prometheus."""
    del settings  # the same for every service: one mlobs watches itself
    slow = f'increase({NOTIFY_LATENCY}_bucket{{le=~"60|60[.]0"}}[1h])'
    rules = [
        _rule(WATCHDOG, "vector(1)", {"severity": "none"}, "Always fires: the way to mlobs is open."),
        _rule(
            "MlobsDown",
            'up{job="mlobs"} == 0 or absent(up{job="mlobs"})',
            _DEAD_LABELS,
            "mlobs does not answer: nobody is paged by it.",
            "1m",
        ),
        _rule(
            "MlobsNotEvaluating",
            f"time() - {SERVE_LAST_TICK} > 300",
            _DEAD_LABELS,
            "mlobs answers and has not evaluated for five minutes.",
            "1m",
        ),
        _rule(
            "MlobsPagesWaiting",
            f"{NOTIFY_OLDEST} > 300",
            _DEAD_LABELS,
            "A page has waited for five minutes on {{ $labels.channel }}.",
            "1m",
        ),
        _rule(
            "MlobsPagesUnreached",
            f"{NOTIFY_UNREACHED} > 0",
            _DEAD_LABELS,
            "{{ $value }} open pages have reached nobody.",
            "5m",
        ),
        _rule(
            "MlobsPagesFailing",
            f"increase({NOTIFY_FAILED}[15m]) > 3",
            _OWN_LABELS,
            "Pages to {{ $labels.channel }} fail: {{ $labels.reason }}.",
        ),
        _rule(
            "MlobsPagesPassedOn",
            f"increase({NOTIFY_PASSED_ON}[1h]) > 0",
            _OWN_LABELS,
            "{{ $labels.channel }} did not take a page, or not in time.",
        ),
        _rule(
            "MlobsPagesLate",
            f"increase({NOTIFY_LATENCY}_count[1h]) - ignoring(le) {slow} > 0.5",
            _OWN_LABELS,
            "A page took more than a minute from its alert to {{ $labels.channel }}.",
        ),
        _rule(
            "MlobsPagesSuppressed",
            f'increase({NOTIFY_SUPPRESSED}{{reason=~"silenced|maintenance"}}[1d]) > 20',
            _OWN_LABELS,
            "More than 20 pages a day are kept quiet ({{ $labels.reason }}): is a silence forgotten?",
        ),
    ]
    return {"groups": [{"name": "mlobs-paging", "rules": rules}]}


_DEAD_LABELS: Mapping[str, str] = {"severity": "page", "mlobs": "dead"}
"""Past mlobs, to the fallback's own receiver."""
_OWN_LABELS: Mapping[str, str] = {"severity": "ticket", "cause": "paging"}


def _rule(name: str, expr: str, labels: Mapping[str, str], summary: str, hold: str = "") -> dict[str, Any]:
    wait = {"for": hold} if hold else {}
    return {"alert": name, "expr": expr, **wait, "labels": dict(labels), "annotations": {"summary": summary}}


def intervals(times: TimesSettings) -> list[dict[str, Any]]:
    """Alertmanager's form; what goes over midnight is two stretches there."""
    if times.start < times.end:
        return [_interval(times.days, times.start, times.end, times.zone)]
    following = tuple(sorted((day + 1) % 7 for day in times.days))
    found = [_interval(times.days, times.start, 86400.0, times.zone)]
    return [*found, _interval(following, 0.0, times.end, times.zone)] if times.end > 0 else found


def _interval(days: tuple[int, ...], start: float, end: float, zone: str) -> dict[str, Any]:
    return {
        "weekdays": [_DAYS[day] for day in days],
        "times": [{"start_time": _clock(start), "end_time": _clock(end)}],
        "location": zone,
    }


def _muted(notify: NotifySettings) -> list[dict[str, Any]]:
    """Maintenance by the hour is muted upstream too; by date it is ours alone, for a file ages."""
    return [
        {
            "matchers": [f'{name}="{_escaped(value)}"' for name, value in one.match.items()],
            "mute_time_intervals": [one.times],
        }
        for one in notify.maintenance
        if one.times is not None and one.match
    ]


def _ours(options: AlertmanagerSettings, url: str) -> dict[str, Any]:
    hook: dict[str, Any] = {"url": url, "send_resolved": True, "max_alerts": 0}
    token = options.token
    if token is None or token.file is None:
        raise ConfigError(
            Problem(
                "notify.alertmanager.token_file",
                "a file",
                "none",
                "name the file of the bearer token by which mlobs knows Alertmanager",
            )
        )
    hook["http_config"] = {
        "authorization": {"type": "Bearer", "credentials_file": token.file},
        "follow_redirects": False,
    }
    return {"name": options.receiver, "webhook_configs": [hook]}


def _past_us(notify: NotifySettings) -> dict[str, Any]:
    name = notify.fallback
    names = notify.people.get(name or "", (name,) if name else ())
    channels = [notify.channels[one] for one in names if one in notify.channels]
    if not channels:
        raise ConfigError(
            Problem("notify.fallback", "a channel", "none", "name one: who learns that mlobs itself is dead?")
        )
    receiver: dict[str, Any] = {"name": FALLBACK}
    for channel in channels:
        kind, config = _native(channel)
        receiver.setdefault(kind, []).append(config)
    return receiver


def _native(one: ChannelSettings) -> tuple[str, dict[str, Any]]:
    """Our channel in Alertmanager's own words: it must work while we do not."""
    if one.kind == "slack":
        token = _file(one, "token")
        base = str(one.options.get("base_url", "https://slack.com/api/")).rstrip("/")
        http = {"authorization": {"type": "Bearer", "credentials_file": token}}
        return "slack_configs", {
            "api_url": f"{base}/chat.postMessage",
            "channel": str(one.options["channel"]),
            "send_resolved": True,
            "http_config": http,
        }
    if one.kind == "pagerduty":
        return "pagerduty_configs", {"routing_key_file": _file(one, "routing_key"), "send_resolved": True}
    if one.kind == "email":
        return "email_configs", _email(one)
    if one.kind == "webhook" and "url" in one.options:
        return "webhook_configs", {"url": str(one.options["url"]), "send_resolved": True}
    raise ConfigError(
        Problem(
            "notify.fallback",
            "a slack, pagerduty or email channel, or a webhook whose url stands in the file",
            f"{one.name}, {one.kind}",
            "Alertmanager must reach it without mlobs",
        )
    )


def _email(one: ChannelSettings) -> dict[str, Any]:
    port = one.options.get("port", {"tls": 465, "none": 25}.get(str(one.options.get("tls", "")), 587))
    to = str(one.options["to"])
    config: dict[str, Any] = {
        "to": to,
        "from": str(one.options.get("sender") or to.partition(",")[0]),
        "smarthost": f"{one.options['host']}:{port}",
        "require_tls": one.options.get("tls", "starttls") == "starttls",
        "send_resolved": True,
    }
    if "user" in one.options:
        config["auth_username"] = str(one.options["user"])
        config["auth_password_file"] = _file(one, "password")
    return config


def _file(one: ChannelSettings, name: str) -> str:
    secret: Secret | None = one.secrets.get(name)
    if secret is None or secret.file is None:
        where = f"notify.channels.{one.name}.{one.kind}.{name}_file"
        raise ConfigError(Problem(where, "a file", "none", "Alertmanager reads secrets from files"))
    return secret.file


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600:02d}:{int(seconds) % 3600 // 60:02d}"


def _seconds(value: float) -> str:
    return f"{value:g}s"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _written(by: str, document: Mapping[str, Any]) -> str:
    head = f"# Written by `{by}`; edit mlobs.yaml, not this file.\n"
    return head + yaml.safe_dump(dict(document), sort_keys=False, width=110, allow_unicode=True)
