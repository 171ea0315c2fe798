"""Paging watches itself where no Prometheus does: messages that wait, pages that came late. Pure but for what
`Lateness` remembers, which a restart may forget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlobs.durations import speak_duration
from mlobs.names import TICKET
from mlobs.notify.page import FIRING
from mlobs.notify.sender import Sent
from mlobs.records import Alert
from mlobs.settings import Settings

WAITED_S = 300.0
"""A message that has waited for so long on a channel is trouble with the channel."""
LATE_S = 60.0
"""A page that took longer from its alert to its delivery came late."""
REMEMBERED_S = 3600.0


class Lateness:
    """The latest late delivery by channel: when, and after how many seconds."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, float]] = {}

    def note(self, sent: Iterable[Sent]) -> None:
        for one in sent:
            if one.ok and one.kind == FIRING and one.latency_s > LATE_S:
                self._last[one.channel] = (one.at, one.latency_s)

    def since(self, now: float) -> Mapping[str, float]:
        """Seconds of the latest late delivery of each channel, those of the last hour."""
        return {name: took for name, (at, took) in self._last.items() if now - at < REMEMBERED_S}


def own_alerts(
    waiting: Mapping[str, tuple[float, str]], late: Mapping[str, float], settings: Settings, now: float
) -> tuple[Alert, ...]:
    """Tickets: the pages themselves go to the fallback, or to whoever is left, on their own."""
    found = []
    for name, (oldest, why) in sorted(waiting.items()):
        if now - oldest > WAITED_S:
            said = f"a message has waited for {speak_duration(now - oldest)} on {name}: {why}"
            found.append(_ticket(f"mlobs-{name}-waiting", said, oldest, settings, now))
    for name, took in sorted(late.items()):
        said = f"a page took {speak_duration(took)} to {name}"
        found.append(_ticket(f"mlobs-{name}-late", said, now, settings, now))
    return tuple(found)


def _ticket(name: str, text: str, since: float, settings: Settings, now: float) -> Alert:
    return Alert(
        name=name,
        cause="paging",
        severity=TICKET,
        firing=True,
        since=since,
        at=now,
        service=settings.service,
        model="",
        environment=settings.environment,
        kind="meta",
        summary=f"mlobs itself: {text}",
    )
