"""The schedule of causes: what breaks in the serving process, and when. The monitor never reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from mlobs.demo.flights import midnight
from mlobs.errors import UsageError

FIRST_DAY = date(2013, 3, 1)
DAYS = 31
LEAST_DAYS = 14
"""Three quiet days, two faults of four days, a day and two between and after them: shorter proves nothing."""

WEATHER_FAULT = "celsius"
SLOW_FAULT = "slow"
SLOW_SHARE = 0.03
SLOW_SECONDS = 0.7
"""How long a slow inference sleeps: well above the 500 ms that a loaded laptop keeps by itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A cause in the serving process, from the beginning of day `first` to the end of day `last`."""

    name: str
    first: date
    last: date
    what: str
    names: str
    """What a page about it has to name."""

    @property
    def start(self) -> float:
        return midnight(self.first)

    @property
    def end(self) -> float:
        return midnight(self.last + timedelta(days=1))

    def holds(self, t: float) -> bool:
        return self.start <= t < self.end


@dataclass(frozen=True, slots=True)
class Plan:
    days: int
    faults: tuple[Fault, ...]

    @property
    def first(self) -> date:
        return FIRST_DAY

    @property
    def last(self) -> date:
        return FIRST_DAY + timedelta(days=self.days - 1)

    @property
    def start(self) -> float:
        return midnight(self.first)

    @property
    def end(self) -> float:
        return midnight(self.last + timedelta(days=1))

    def holds(self, name: str, t: float) -> bool:
        return any(fault.name == name and fault.holds(t) for fault in self.faults)


def make_plan(days: int = DAYS, faults: bool = True) -> Plan:
    """The plan of a replay of `days` days: quiet, weather fault, healed, slow fault, healed.

    31 days: two quiet weeks, the faults on 15 to 19 and 23 to 27 March. Shorter ones keep the order; a fault
    lasts at least four days, as a page takes three bad ones.
    """
    if not LEAST_DAYS <= days <= DAYS:
        raise UsageError.of(
            "--days", f"{LEAST_DAYS} to {DAYS}", str(days), "leave it out for the whole month"
        )
    if not faults:
        return Plan(days, ())
    length = 5 if days >= 22 else 4
    gap = 3 if days >= 22 else 2
    tail = max(1, (days - LEAST_DAYS) // 4)
    quiet = days - 2 * length - gap - tail
    weather, slow = FIRST_DAY + timedelta(days=quiet), FIRST_DAY + timedelta(days=quiet + length + gap)
    return Plan(
        days,
        (
            Fault(
                WEATHER_FAULT,
                weather,
                weather + timedelta(days=length - 1),
                "the weather feed delivers Celsius for Fahrenheit",
                "temp",
            ),
            Fault(
                SLOW_FAULT,
                slow,
                slow + timedelta(days=length - 1),
                f"{SLOW_SHARE:.0%} of the requests become slow in inference",
                "inference",
            ),
        ),
    )
