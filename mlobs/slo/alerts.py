"""From conditions to alerts: since when each holds, and one last word when it ceases. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mlobs.records import Alert


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """What fires now, by key."""

    alert: Alert
    ceased: bool = False
    """It has ended; its last word goes out at the tick that finds this."""


def key(alert: Alert) -> str:
    """What makes an alert the same one from one evaluation to the next."""
    return "|".join(
        (alert.kind, alert.slo, alert.model, alert.cause, alert.severity, alert.feature, alert.segment)
    )


def advance(
    before: Mapping[str, Standing], holding: Mapping[str, Alert], now: float
) -> tuple[dict[str, Standing], list[Alert]]:
    """The next standing and the alerts to hand on: all that hold, with the time each began, and each end
    once.

    `holding` are the conditions that hold now; their `since` counts only where the condition is new.
    """
    standing: dict[str, Standing] = {}
    said: list[Alert] = []
    for name, alert in holding.items():
        old = before.get(name)
        if old is not None and not old.ceased:
            alert = dataclasses.replace(alert, since=old.alert.since)
        standing[name] = Standing(alert)
        said.append(alert)
    for name, old in before.items():
        if name not in holding and not old.ceased:
            ended = dataclasses.replace(old.alert, firing=False, since=now, at=now)
            standing[name] = Standing(ended, ceased=True)
            said.append(ended)
    return standing, said
