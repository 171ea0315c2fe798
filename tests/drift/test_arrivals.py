"""How many rows come and how old the newest is: over all versions, with few rows or none, after restarts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from mlobs import names
from mlobs.drift import read
from mlobs.drift.arrivals import Traffic, bare, judge_freshness, judge_volume, traffic
from mlobs.drift.loop import DriftStage
from mlobs.drift.mlref import dump_reference, load_reference, save_reference
from mlobs.drift.reference import WHOLE, Reference, Slicing, build_reference
from mlobs.drift.silences import Silences
from mlobs.drift.state import State
from mlobs.drift.tables import SCHEMA
from mlobs.errors import UsageError
from mlobs.settings import DriftSettings, ModelSettings, RowsSettings, Settings
from mlobs.store import Store, open_store
from tests.drift.traffic import DAY, ScriptedLog, day_table, records, reference_table

HOUR = 3600.0
NONE = RowsSettings()


def timed(days: int = 20, rows: int = 400) -> pa.Table:
    table = reference_table(days, rows)
    times = np.concatenate([day * DAY + np.linspace(0, DAY - 1, rows) for day in range(days)])
    return table.append_column("time", pa.array(times)).drop_columns("day")


@pytest.fixture(scope="module")
def reference() -> Reference:
    made = build_reference(timed(), "r", slicing=Slicing(time="time"), volume=True, freshness=True)
    return load_reference(dump_reference(made), "here")


class Bench:
    """A stage over a scripted log, which can be restarted."""

    def __init__(self, folder: Path, reference: Reference | None, rows: RowsSettings = NONE) -> None:
        self.folder = folder
        if reference is not None:
            save_reference(reference, folder / "m.mlref")
        model = ModelSettings("m", None if reference is None else "m.mlref", rows=rows)
        self.settings = Settings(
            "svc", base=str(folder), models=(model,), drift=DriftSettings(window=DAY, min_rows=100),
            clock="driven",
        )  # fmt: skip
        self.log = ScriptedLog()
        self.store: Store | None = None
        self.restart()

    def restart(self) -> None:
        if self.store is not None:
            self.store.close()
        self.store = open_store(f"sqlite:///{self.folder}/state.db", [SCHEMA])
        self.registry = CollectorRegistry()
        self.stage = DriftStage(self.settings, self.store, self.registry, self.log)

    def day(self, day: int, rows: int, **given: object) -> list[tuple[str, str]]:
        if rows:
            self.log.add("m", records(day_table(day, rows), day * DAY, **given))
        return self.broken((day + 1) * DAY)

    def broken(self, now: float) -> list[tuple[str, str]]:
        return [(one.status, one.severity) for one in self.stage.tick(now).breaches]


@pytest.fixture
def bench(tmp_path: Path):
    made: list[Bench] = []

    def make(reference: Reference | None = None, rows: RowsSettings = NONE) -> Bench:
        made.append(Bench(tmp_path, reference, rows))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


# --- volume -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 20, 150, 900])
def test_too_few_rows_none_or_too_many_in_three_of_five_windows_are_a_ticket(
    bench, reference: Reference, rows: int
) -> None:
    stage = bench(replace(reference, spec=replace(reference.spec, freshness=False)))
    for day in range(3):
        assert stage.day(day, 400) == []
    assert [stage.day(day, rows) for day in range(3, 6)] == [[], [], [("volume", "ticket")]]
    stage.restart()
    assert stage.broken(6 * DAY) == [("volume", "ticket")]
    assert [(row.opened_at, row.windows) for row in read.breaches(stage.store)] == [(6 * DAY, 3)]
    assert [stage.day(day, 400) for day in (6, 7)] == [[("volume", "ticket")]] * 2
    assert [row.opened_at for row in read.breaches(stage.store)] == [6 * DAY]
    assert stage.day(8, 400) == []


def test_two_versions_are_one_traffic_also_where_one_has_no_reference(bench) -> None:
    stage = bench(None, RowsSettings(volume=(300, 500)))
    for day in range(5):
        stage.log.add("m", records(day_table(day, 360), day * DAY, version="v1"))
        assert stage.day(day, 40, version="v2") == []


def test_declared_volume_needs_no_reference_and_can_page(bench) -> None:
    stage = bench(None, RowsSettings(volume=(300, 500), critical=True))
    assert [stage.day(day, 200) for day in range(3)][-1] == [("volume", "page")]
    (cause,) = read.explain(stage.store, "m", 0.0, 3 * DAY)
    assert (cause.feature, cause.check) == ("(rows)", "volume")
    assert cause.detail == "200 rows, fewer than the declared 300 (volume)"


def test_what_sampling_explains_is_no_finding() -> None:
    """One row in a hundred is kept: 700 rows of traffic may come from 1,000, and no row from 50."""
    declared = RowsSettings(volume=(1000, 5000))
    for rows, failed in ((7, False), (0, True)):
        seen = traffic([State("", bare(np.full(rows, 100.0)))] if rows else [], 100.0)
        assert (judge_volume("m", 0, DAY, seen, declared, None) is not None) is failed
    small = RowsSettings(volume=(50, 5000))
    assert judge_volume("m", 0, DAY, traffic([], 100.0), small, None) is None
    assert judge_volume("m", 0, DAY, Traffic(6000, 6000.0, 1.0), declared, None) is not None


def test_declared_volume_alarms_in_one_of_500_windows_at_its_bound() -> None:
    """Traffic that is just enough, sampled at 1 %: Poisson noise of what is kept."""
    declared = RowsSettings(volume=(100_000, 10**9))
    kept = np.random.default_rng(5).poisson(1000, 20_000)
    alarms = sum(
        judge_volume("m", 0, DAY, Traffic(int(n), 100.0 * n, 100.0), declared, None) is not None for n in kept
    )
    assert alarms / len(kept) < 2 / 1000


def test_a_window_of_another_length_than_the_reference_days_is_not_judged(reference: Reference) -> None:
    many = Traffic(9000, 9000.0, 1.0)
    assert judge_volume("m", 0, DAY, many, NONE, reference) is not None
    assert judge_volume("m", 0, HOUR, many, NONE, reference) is None


# --- freshness --------------------------------------------------------------------------------------


def test_a_silence_is_a_breach_at_once_from_the_last_row_on_and_ends_with_the_next(bench) -> None:
    stage = bench(None, RowsSettings(freshness=2 * HOUR))
    stage.day(0, 400)
    last = DAY - 1
    assert stage.broken(last + 2 * HOUR) == []
    tick = stage.stage.tick(last + 3 * HOUR)
    (breach,) = tick.breaches
    assert (breach.feature, breach.status, breach.since, tick.opened) == ("(rows)", "freshness", last, 1)
    assert "the newest row is 3 h old, allowed are 2 h (declared) (freshness)" in breach.detail
    labels = {"model": "m", "feature": "(rows)", "segment": "", "severity": "ticket"}
    assert stage.registry.get_sample_value(names.DRIFT_BREACH, labels) == 1
    stage.restart()  # the time of the newest row is kept
    assert stage.broken(last + 4 * HOUR) == [("freshness", "ticket")]
    stage.log.add("m", records(day_table(1, 1), last + 5 * HOUR))
    assert stage.broken(last + 5 * HOUR) == []  # in the middle of a window


def test_a_model_that_never_had_a_row_is_not_stale(bench) -> None:
    assert bench(None, RowsSettings(freshness=HOUR)).broken(30 * DAY) == []


def test_rows_that_claim_a_later_time_than_the_clock_came_now(bench) -> None:
    stage = bench(None, RowsSettings(freshness=HOUR))
    stage.log.add("m", records(day_table(0), 900 * DAY))
    assert stage.broken(DAY) == []
    assert stage.broken(DAY + 2 * HOUR) == [("freshness", "ticket")]


def test_stale_rows_show_in_the_windows_of_the_silence(bench, reference: Reference) -> None:
    stage = bench(replace(reference, spec=replace(reference.spec, volume=False)))
    stage.day(0, 400)
    stage.day(1, 0)
    heat = read.heat_map(stage.store, "m")
    cells = dict(zip(heat.features, heat.cells, strict=True))["(rows)"]
    assert [cell.status if cell else None for cell in cells] == ["freshness", "freshness"]


def test_the_longest_silence_of_a_reference_is_exact_beyond_a_minute_in_any_order_of_rows() -> None:
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.exponential(300.0, 3000))
    shuffled = rng.permutation(times)
    found = Silences(DAY, "UTC")
    for part in np.array_split(shuffled, 7):
        found.add(part)
    gaps, ends = np.diff(times), times[1:]
    days = np.arange(np.floor(times[0] / DAY), np.floor(times[-1] / DAY) + 1)
    expected = [gaps[np.floor(ends / DAY) == day].max() for day in days]
    assert found.longest(days * DAY) == pytest.approx(expected, abs=1e-6)


def test_twice_the_longest_silence_of_a_reference_is_the_limit(reference: Reference) -> None:
    longest = max(reference.days[WHOLE].silences)
    assert longest == pytest.approx(DAY / 399, rel=0.01)
    assert judge_freshness("m", 2 * longest, 0.0, NONE, reference) is None
    failed = judge_freshness("m", 2 * longest + 1, 0.0, NONE, reference)
    assert failed is not None
    assert "twice the longest silence of the reference, 1970-01-" in failed.detail


def test_a_reference_without_times_knows_no_silence() -> None:
    with pytest.raises(UsageError, match="--time"):
        build_reference(reference_table(), "r", slicing=Slicing(day="day"), freshness=True)


def test_an_ordinary_day_is_stale_about_as_rarely_as_the_guide_says() -> None:
    """Rows at a steady rate: of days with n rows, after a reference of N, about 1/(n N^2) are ever silent for
    twice its longest silence. At n = 100 and N = 7 that is 2 in 10,000."""
    rng = np.random.default_rng(11)
    days = rng.exponential(1.0, (40_000, 100)).max(axis=1)
    limits = 2 * rng.exponential(1.0, (40_000, 7 * 100)).max(axis=1)
    assert 0.5e-4 < (days > limits).mean() < 5e-4
