"""Alerts become incidents: the pure core of paging. No clock, no store, no text of pages.

One incident gathers what is wrong with one model at one time. An alert joins an open incident of its model
when it is of the same family of causes (latency, availability and errors are trouble in serving; drift,
data quality and freshness are trouble in the data), or when the incident began at about the same time; a
later trouble of another family is an incident, and a page, of its own.

An incident is resolved when nothing of it has fired for `hold_s`: a wave that comes back within the hold is
the same incident and no second page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlobs.names import PAGE
from mlobs.notify.incident import (
    ACKNOWLEDGED,
    OPEN,
    Change,
    Identity,
    Incident,
    Tracked,
    cleaned,
    identity,
    incident_id,
    incident_key,
)
from mlobs.notify.page import FIRING, RESOLVED, UPDATE
from mlobs.notify.text import clean
from mlobs.records import Alert

SERVING, DATA = "serving", "data"
FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(("latency", "p99", "availability", "errors", "good_prediction"), SERVING),
    **dict.fromkeys(
        (
            "drift",
            "data_quality",
            "freshness",
            "model_quality",
            "null",
            "range",
            "unseen",
            "constant",
            "schema",
        ),
        DATA,
    ),
}
"""Causes that tell of the same trouble; a cause that is not listed is a family of its own."""

NEWS = 1.5
"""A burn rate that changed by this factor is noted."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """How alerts are gathered, seconds."""

    together_s: float = 3600.0
    """An alert of another family joins an incident that is younger than this."""
    moment_s: float = 120.0
    """Pages of another family that come so soon after people were told are told by an update, not aloud."""
    hold_s: float = 300.0
    """An incident is resolved when nothing of it fired for so long; doubled each time that it came back."""
    longest_hold_s: float = 3600.0
    reopen_s: float = 1800.0
    """The same trouble so shortly after it was resolved is the same incident again."""
    by_hand_s: float = 3600.0
    """What was resolved by hand and goes on firing is left alone for so long."""
    refresh_s: float = 120.0
    """The numbers of an alert that goes on firing are written down so often; its ends at once."""
    most_alerts: int = 500
    """Of one incident; further tickets change nothing, a page takes the place of the least telling one."""
    missed: int = 2
    """An alert that so many complete lists did not hold has ceased, though nobody said so."""


def absorb(
    known: Sequence[Incident],
    alerts: Iterable[Alert],
    now: float,
    grouping: Grouping,
    *,
    source: str = "engine",
    complete: bool = True,
) -> list[Change]:
    """What an evaluation's alerts make of the incidents `known`, the open ones and those that were resolved
    within `reopen_s` or by hand within `by_hand_s`. Only what changed is returned.

    `complete` says that the list holds all that fires at `source`: what is missing from it twice has ceased.
    Time and order of the list do not matter to which incident an alert joins, except that pages go first.
    """
    desk = _Sorting(known, now, grouping, source)
    ranked = sorted((cleaned(one) for one in alerts), key=lambda one: (one.severity != PAGE, one.since))
    for alert in ranked:
        desk.take(alert)
    if complete:
        desk.miss({identity(alert) for alert in ranked})
    return desk.settled()


def settle(known: Sequence[Incident], now: float, grouping: Grouping) -> list[Change]:
    """The incidents that have been quiet for long enough, resolved."""
    return [change for one in known if (change := _resolve(one, now, grouping)) is not None]


def acknowledge(incident: Incident, by: str, now: float) -> Change | None:
    """None when it is resolved or acknowledged already."""
    if incident.state != OPEN:
        return None
    who = clean(by, 80) or "someone"
    changed = replace(incident, state=ACKNOWLEDGED, acknowledged_by=who, acknowledged_at=now, changed_at=now)
    return Change(changed, UPDATE, (("acknowledged", f"acknowledged by {who}"),))


def close(incident: Incident, by: str, now: float) -> Change | None:
    """Resolved by hand; what still fires is left alone for `Grouping.by_hand_s`."""
    if incident.state == RESOLVED:
        return None
    who = clean(by, 80) or "someone"
    closed = replace(_closed(incident, now), resolved_at=now, closed_by=who)
    return Change(closed, RESOLVED, (("resolved", f"resolved by {who}"),))


def hold_of(incident: Incident, grouping: Grouping) -> float:
    """Seconds of quiet that resolve it: a wave that comes and goes earns a longer one."""
    return min(grouping.longest_hold_s, grouping.hold_s * 2.0 ** min(incident.flaps, 30))


class _Sorting:
    """One pass of `absorb`: incidents by id, and what was touched."""

    def __init__(self, known: Sequence[Incident], now: float, grouping: Grouping, source: str) -> None:
        open_ = {one.id: one for one in known if one.state != RESOLVED}
        self.recent = [one for one in reversed(known) if one.state == RESOLVED]  # the newest first
        self.open = open_
        self.now = now
        self.grouping = grouping
        self.source = source
        self.home = {identity(one.alert): key for key, inc in open_.items() for one in inc.alerts}
        self.of_model: dict[tuple[str, str, str], list[str]] = {}
        for key, inc in open_.items():
            self.of_model.setdefault((inc.environment, inc.service, inc.model), []).append(key)
        self.notices: dict[str, str | None] = {}
        self.events: dict[str, list[tuple[str, str]]] = {}

    def take(self, alert: Alert) -> None:
        name = identity(alert)
        where = self.home.get(name)
        if where is not None:
            self._refresh(where, name, alert)
        elif alert.firing:
            where = self._place(alert)
            if where is not None:
                self._join(where, alert)
            elif not self._left_alone(alert) and not self._reopen(alert):
                self._begin(alert)

    def miss(self, seen: set[Identity]) -> None:
        """Count what a complete list did not hold."""
        for where in list(self.open):
            incident = self.open[where]
            tracked = tuple(
                one
                if not one.firing or one.source != self.source or identity(one.alert) in seen
                else replace(one, missed=one.missed + 1, firing=one.missed + 1 < self.grouping.missed)
                for one in incident.alerts
            )
            if tracked != incident.alerts:
                self._keep(replace(incident, alerts=tracked))

    def settled(self) -> list[Change]:
        changes = []
        for where in self.open:
            incident = self.open[where]
            if where in self.notices:
                incident = _quieted(incident, self.now)
                notice = self.notices[where]
                changes.append(Change(incident, notice, tuple(self.events.get(where, ()))))
            resolved = _resolve(incident, self.now, self.grouping)
            if resolved is not None:
                if where in self.notices:
                    earlier = changes.pop()
                    resolved = replace(resolved, events=earlier.events + resolved.events)
                changes.append(resolved)
        return changes

    def _place(self, alert: Alert) -> str | None:
        """The open incident that this new alert belongs to."""
        keys = self.of_model.get((alert.environment, alert.service, alert.model), [])
        family = _family(alert.cause)
        for where in keys:
            if family in {_family(cause) for cause in self.open[where].causes}:
                return where
        if not alert.model:
            return None  # without a model nothing says that two causes are one trouble
        young = [w for w in keys if self.now - self.open[w].opened_at <= self.grouping.together_s]
        return young[-1] if young else None

    def _left_alone(self, alert: Alert) -> bool:
        """Whether somebody resolved this very stretch of trouble by hand not long ago."""
        return any(
            one.closed_by
            and self.now - one.changed_at < self.grouping.by_hand_s
            and identity(alert) in {identity(tracked.alert) for tracked in one.alerts}
            and one.resolved_at is not None
            and alert.since <= one.resolved_at
            for one in self.recent
        )

    def _reopen(self, alert: Alert) -> bool:
        """Take up the incident of the same key that was resolved shortly before."""
        key = incident_key(alert)
        one = next((one for one in self.recent if one.key == key), None)
        if one is None or self.now - one.changed_at >= self.grouping.reopen_s:
            return False
        self.recent.remove(one)
        tracked = tuple(old for old in one.alerts if identity(old.alert) != identity(alert))
        incident = replace(
            one,
            state=OPEN,
            severity=PAGE if PAGE in (one.severity, alert.severity) else one.severity,
            alerts=(*tracked, self._tracked(alert)),
            quiet_since=None,
            resolved_at=None,
            acknowledged_by="",
            acknowledged_at=None,
            closed_by="",
            changed_at=self.now,
            flaps=one.flaps + 1,
            paged_at=None,
            escalated=0,
            enriched=False,
        )
        self._admit(incident)
        self._say(incident.id, FIRING, "fires again", f"{_called(alert)} fires again after it was resolved")
        return True

    def _admit(self, incident: Incident) -> None:
        self.open[incident.id] = incident
        self.home.update((identity(one.alert), incident.id) for one in incident.alerts)
        place = (incident.environment, incident.service, incident.model)
        self.of_model.setdefault(place, []).append(incident.id)

    def _begin(self, alert: Alert) -> None:
        key = incident_key(alert)
        incident = Incident(
            id=incident_id(key, self.now),
            key=key,
            environment=alert.environment,
            service=alert.service,
            model=alert.model,
            cause=alert.cause,
            severity=alert.severity,
            state=OPEN,
            opened_at=self.now,
            since=alert.since,
            changed_at=self.now,
            alerts=(self._tracked(alert),),
        )
        self._admit(incident)
        self._say(incident.id, FIRING, "opened", f"{_called(alert)} fires: {alert.cause}")

    def _join(self, where: str, alert: Alert) -> None:
        incident = self.open[where]
        if len(incident.alerts) >= self.grouping.most_alerts:
            if alert.severity != PAGE:
                return
            incident = self._without_least(incident)
        raised = alert.severity == PAGE and incident.severity != PAGE
        last = incident.told_at if incident.told_at is not None else incident.opened_at
        # An outage that joins a drift incident minutes later is another trouble to whoever was woken for the
        # drift: the same family is news after `together_s`, another one as soon as it is not the same moment.
        known = {_family(cause) for cause in incident.causes}
        quiet = self.grouping.together_s if _family(alert.cause) in known else self.grouping.moment_s
        news = alert.cause not in incident.causes and self.now - last > quiet
        loud = raised or (news and alert.severity == PAGE)
        changed = replace(
            incident,
            alerts=(*incident.alerts, self._tracked(alert)),
            severity=PAGE if raised else incident.severity,
            since=min(incident.since, alert.since),
            changed_at=self.now,
            enriched=False,
        )
        if loud:  # whoever has it has acknowledged less than this
            changed = replace(changed, state=OPEN, acknowledged_by="", acknowledged_at=None)
        self._keep(changed)
        self.home[identity(alert)] = where
        self._say(where, FIRING if loud else UPDATE, "joined", f"{_called(alert)} fires: {alert.cause}")

    def _without_least(self, incident: Incident) -> Incident:
        """Room for a page among too many alerts: the oldest that has ceased goes, else the oldest ticket,
        else the oldest."""
        least = min(incident.alerts, key=lambda one: (one.firing, one.alert.severity == PAGE, one.first_at))
        self.home.pop(identity(least.alert), None)
        return replace(incident, alerts=tuple(one for one in incident.alerts if one is not least))

    def _refresh(self, where: str, name: Identity, alert: Alert) -> None:
        incident = self.open[where]
        was = next(one for one in incident.alerts if identity(one.alert) == name)
        if not alert.firing and not was.firing:
            return
        steady = alert.firing and was.firing and not was.missed and was.source == self.source
        if steady and 0 <= self.now - was.last_at < self.grouping.refresh_s:
            return
        heard = (
            self._tracked(alert) if alert.firing else replace(self._tracked(alert), alert=_kept(was, alert))
        )
        heard = replace(heard, first_at=was.first_at)
        again = alert.firing and not was.firing
        tracked = tuple(heard if one is was else one for one in incident.alerts)
        flaps = incident.flaps + (1 if again and incident.quiet_since is not None else 0)
        self._keep(replace(incident, alerts=tracked, changed_at=self.now, flaps=flaps))
        for kind, text in _turns(was.alert, alert) if alert.firing else ():
            self._say(where, self.notices[where], kind, text)
        if again:
            self._say(where, self.notices[where], "fires again", f"{_called(alert)} fires again")
        elif not alert.firing:
            self._say(where, self.notices[where], "ceased", f"{_called(alert)} has ceased")

    def _tracked(self, alert: Alert) -> Tracked:
        return Tracked(alert, alert.firing, self.now, self.now, self.source)

    def _keep(self, incident: Incident) -> None:
        self.open[incident.id] = incident
        self.notices.setdefault(incident.id, None)

    def _say(self, where: str, notice: str | None, kind: str, text: str) -> None:
        before = self.notices.get(where)
        self.notices[where] = FIRING if FIRING in (before, notice) else notice or before
        self.events.setdefault(where, []).append((kind, text))


def _called(alert: Alert) -> str:
    """What a line of the timeline and an update call it: its objective, else its rule; the feature if it is
    about one."""
    name = alert.slo or alert.name
    return f"{name} ({alert.feature})" if alert.feature else name


def _turns(was: Alert, now: Alert) -> list[tuple[str, str]]:
    """What of a burn is worth a line: half as fast again or slower, and the end of the budget."""
    found = []
    if was.burn_rate and now.burn_rate and not 1 / NEWS < now.burn_rate / was.burn_rate < NEWS:
        text = f"{now.slo or now.name} burns {now.burn_rate:.3g} times too fast, {was.burn_rate:.3g} before"
        found.append(("burn", text))
    left, before = now.budget_remaining, was.budget_remaining
    if left is not None and before is not None and left <= 0 < before:
        found.append(("budget", f"the budget of {now.slo or now.name} is spent"))
    return found


def _kept(was: Tracked, now: Alert) -> Alert:
    """The ceased alert with the numbers of when it fired: a healed page still says how bad it was."""
    return replace(was.alert, firing=False, at=now.at, budget_remaining=now.budget_remaining)


def _family(cause: str) -> str:
    return FAMILIES.get(cause, cause)


def _quieted(incident: Incident, now: float) -> Incident:
    if any(one.firing for one in incident.alerts):
        return replace(incident, quiet_since=None)
    return incident if incident.quiet_since is not None else replace(incident, quiet_since=now)


def _resolve(incident: Incident, now: float, grouping: Grouping) -> Change | None:
    if incident.state == RESOLVED or incident.quiet_since is None:
        return None
    if now - incident.quiet_since < hold_of(incident, grouping):
        return None
    return Change(_closed(incident, now), RESOLVED, (("resolved", "all of it has healed"),))


def _closed(incident: Incident, now: float) -> Incident:
    healed = incident.quiet_since if incident.quiet_since is not None else now
    return replace(incident, state=RESOLVED, resolved_at=healed, changed_at=now)
