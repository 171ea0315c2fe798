"""What is known of an objective at one moment: the value that the web page, the CLI and the metrics are
drawn from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SloStatus:
    name: str
    model: str
    kind: str
    objective: str
    """As people write it: `99.9%`."""
    state: str
    """`ok`, `burning`, `exhausted`, `absent`, `low_traffic` or `young`."""
    reason: str
    """One sentence for people."""
    unit: str
    """What an event is: `requests`, `slices`, `rows`."""
    period_s: float
    at: float
    bad: float
    total: float
    allowed: float
    """Bad events that the whole period allows, at the pace seen so far."""
    consumed: float | None
    remaining: float | None
    """Share of the budget that is left, negative when overspent; None without events."""
    remaining_events: float | None
    budget_minutes: float
    remaining_minutes: float | None
    burn_rates: Mapping[str, float | None] = field(default_factory=dict)
    """By window, as `1h`; None without events."""
    exhausted_at: float | None = None
    exhausted_early: float | None = None
    exhausted_late: float | None = None
    """About 95 % band of `exhausted_at` by the longest window's pace; None: never."""
    spent_by: tuple[tuple[str, float], ...] = ()
    """What was spent by part: (`model_version=2`, bad events), the worst first."""
    firing: str | None = None
    """Severity of what fires: `page`, `ticket` or None."""
    since: float | None = None
    calendar: str | None = None
    description: str = ""
    threshold_s: float | None = None
    history: tuple[tuple[float, float], ...] = ()
    """(time, share of budget remaining), oldest first; filled when read."""

    def to_json(self) -> str:
        plain = dataclasses.asdict(self)
        plain.pop("history")
        return json.dumps(plain, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SloStatus:
        """Unknown fields of a newer version are left out."""
        plain: dict[str, Any] = json.loads(text)
        plain["spent_by"] = tuple((part, bad) for part, bad in plain.get("spent_by", ()))
        known = {field_.name for field_ in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in plain.items() if name in known})
