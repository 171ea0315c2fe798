"""What the demo proves: pages and what they name from the store, the causes beside them, and the verdict.

Everything here but `plan` is read from what `mlobs serve` wrote: incidents, outbox, verdicts, budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from mlobs.demo.flights import ZONE
from mlobs.demo.plan import Fault, Plan
from mlobs.notify.read import IncidentRow, SentPage

DAY = 86400.0
SETTLING_DAYS = 2
"""A fault's page may leave so long after it healed: a day's window is judged at its end."""


@dataclass(frozen=True, slots=True)
class PagedIncident:
    """One incident that was paged."""

    incident: IncidentRow
    paged_at: float
    """When its first page had left, by the event clock."""
    names: tuple[str, ...]
    """What its pages named as broken."""
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault and what became of it."""

    fault: Fault
    page: PagedIncident | None
    named: bool
    """Whether the page names what broke."""

    @property
    def delay(self) -> float | None:
        """From cause to page, seconds."""
        return None if self.page is None else self.page.paged_at - self.fault.start


@dataclass(frozen=True, slots=True)
class Judgement:
    outcomes: tuple[Outcome, ...]
    false: tuple[PagedIncident, ...]
    """Pages that no cause stands behind."""

    @property
    def passed(self) -> bool:
        """Every fault was paged and named, and nothing else was."""
        return not self.false and all(outcome.page is not None and outcome.named for outcome in self.outcomes)


def paged_incidents(incidents: Sequence[IncidentRow], pages: Sequence[SentPage]) -> list[PagedIncident]:
    """The incidents of which a page left, in the order of their first page."""
    found: list[PagedIncident] = []
    for incident in incidents:
        own = [page for page in pages if page.incident == incident.id and page.kind in ("firing", "update")]
        left = [page.sent_at for page in own if page.kind == "firing" and page.sent_at is not None]
        if left:
            names = dict.fromkeys(name for page in own for name in page.names)
            channels = dict.fromkeys(page.channel for page in own)
            found.append(PagedIncident(incident, min(left), tuple(names), tuple(channels)))
    return sorted(found, key=lambda one: one.paged_at)


def judge(plan: Plan, paged: Sequence[PagedIncident]) -> Judgement:
    """Set the causes beside the pages: each fault owns one page of its stretch; the others are false."""
    left = list(paged)
    outcomes = []
    for fault in plan.faults:
        mine = [page for page in left if fault.start < page.paged_at <= fault.end + SETTLING_DAYS * DAY]
        page = next((one for one in mine if fault.names in one.names), mine[0] if mine else None)
        if page is not None:
            left.remove(page)
        outcomes.append(Outcome(fault, page, page is not None and fault.names in page.names))
    return Judgement(tuple(outcomes), tuple(left))


def local(t: float) -> str:
    """`17 March 00:00` of New York."""
    moment = datetime.fromtimestamp(t, ZoneInfo(ZONE))
    return f"{moment.day} {moment:%B %H:%M}"
