"""The reference values that both engines must give: seconds from a step change to the first page, by tier.

Scrape 15 s, evaluation 30 s, 30 days. `None`: never, within six hours and a half.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    kind: str
    objective: str
    share: float
    """Of bad events after the step."""
    fast: float | None
    """Seconds until the tier 1h / 5m fires."""
    slow: float | None
    """Seconds until the tier 6h / 30m fires, or None for one that is not stated."""
    name: str = ""


CASES = [
    Case("availability", "0.999", 1.0, 60, 150),
    Case("availability", "0.999", 0.5, 120, 270),
    Case("availability", "0.999", 0.2, 270, 660),
    Case("availability", "0.999", 0.1, 540, 1320),
    Case("availability", "0.999", 0.05, 1050, 2610),
    Case("availability", "0.999", 0.02, 2610, None),
    Case("availability", "0.999", 0.01, None, 12990),
    Case("availability", "0.999", 0.007, None, 18540),
    Case("latency", "0.99", 1.0, 540, 1320),
    Case("latency", "0.99", 0.2, 2610, None),
    Case("latency", "0.99", 0.05, None, None),
    Case("drift", "0.95", 1.0, 2610, None),
]
STEP = 30
"""All within one evaluation step."""
