"""The drift service: windows, verdicts, persistence, restarts, metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from prometheus_client import CollectorRegistry

from mlobs import names
from mlobs.drift import read
from mlobs.drift.loop import DriftStage
from mlobs.drift.mlref import save_reference
from mlobs.drift.reference import Slicing, build_reference
from mlobs.drift.tables import SCHEMA
from mlobs.errors import ConfigError
from mlobs.settings import DriftSettings, FeatureSettings, ModelSettings, Settings
from mlobs.store import Store, open_store
from tests.drift.traffic import DAY, ScriptedLog, day_table, records, reference_table


class Bench:
    """A stage over a scripted log, which can be restarted."""

    def __init__(self, folder: Path, **model: object) -> None:
        reference = build_reference(reference_table(), "ref", slicing=Slicing(day="day"), **model)
        save_reference(reference, folder / "m.mlref")
        self.folder = folder
        self.log = ScriptedLog()
        self.features: dict[str, FeatureSettings] = {}
        self.store: Store | None = None
        self.restart()

    def restart(self) -> None:
        if self.store is not None:
            self.store.close()
        self.settings = Settings(
            "svc",
            base=str(self.folder),
            models=(ModelSettings("m", "m.mlref", self.features),),
            drift=DriftSettings(window=DAY, min_rows=100),
            clock="driven",
        )
        self.store = open_store(f"sqlite:///{self.folder}/state.db", [SCHEMA])
        self.registry = CollectorRegistry()
        self.stage = DriftStage(self.settings, self.store, self.registry, self.log)

    def day(self, day: int, table: pa.Table, **given: object):
        self.log.add("m", records(table, day * DAY, **given))
        return self.stage.tick((day + 1) * DAY)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path)
    yield made
    made.store.close()


def celsius(table: pa.Table) -> pa.Table:
    place = table.schema.names.index("temp")
    return table.set_column(place, "temp", pc.multiply(pc.subtract(table["temp"], 32.0), 5 / 9))


def test_quiet_days_are_ok_and_breach_nothing(bench: Bench) -> None:
    for day in range(10):
        tick = bench.day(day, day_table(day))
        assert [w.verdict for w in tick.windows] == ["ok"]
        assert tick.breaches == ()
    assert bench.value(names.DRIFT_SLICES, model="m", result="ok") == 10
    assert bench.value(names.DRIFT_SLICES, model="m", result="drifted") == 0


def test_celsius_for_fahrenheit_breaches_after_three_windows_and_heals(bench: Bench) -> None:
    labels = {"model": "m", "feature": "temp", "segment": "", "severity": "page"}
    broken, onsets = [], []
    for day in range(14):
        table = day_table(day)
        tick = bench.day(day, celsius(table) if 4 <= day < 9 else table)
        onsets.append(bench.value(names.DRIFT_BREACH_SINCE, **labels))
        broken.append([(b.feature, b.status, b.severity) for b in tick.breaches])
    assert broken[:6] == [[]] * 6
    assert broken[6] == [("temp", "range", "page")]
    assert broken[11:] == [[]] * 3
    assert bench.value(names.DRIFT_BREACH, **labels) == 0
    assert onsets == [None] * 6 + [4 * DAY] * 5 + [None] * 3


def test_the_cause_names_direction_training_minimum_and_a_unit_as_a_hypothesis(bench: Bench) -> None:
    for day in range(3):
        tick = bench.day(day, celsius(day_table(day)))
    (breach,) = tick.breaches
    assert "below the training minimum 15" in breach.detail
    assert "(range" in breach.detail
    assert "Fahrenheit to Celsius (a hypothesis)" in breach.detail
    assert breach.since == 0.0


def test_two_bad_windows_of_five_are_no_breach(bench: Bench) -> None:
    for day in range(10):
        table = day_table(day)
        tick = bench.day(day, celsius(table) if day % 5 in (0, 2) else table)
        assert tick.breaches == ()


def test_a_restart_in_mid_window_loses_and_doubles_nothing(bench: Bench) -> None:
    table = records(day_table(0), 0.0)
    bench.log.add("m", table.slice(0, 150))
    bench.stage.tick(DAY / 2)
    bench.restart()
    bench.log.add("m", table.slice(150))
    tick = bench.stage.tick(DAY)
    assert [w.rows for w in tick.windows] == [400]
    assert bench.stage.ledger().balanced
    assert bench.stage.ledger().delivered == 400


def test_late_rows_are_counted_and_change_nothing(bench: Bench) -> None:
    bench.day(0, day_table(0))
    bench.log.add("m", records(day_table(0, rows=5), 0.0))
    tick = bench.stage.tick(1.5 * DAY)
    assert tick.late == 5
    assert tick.windows == ()
    ledger = bench.stage.ledger()
    assert ledger.dropped["late"] == 5
    assert ledger.balanced


def test_a_breach_survives_a_restart(bench: Bench) -> None:
    for day in range(3):
        bench.day(day, celsius(day_table(day)))
    bench.restart()
    assert bench.value(names.DRIFT_BREACH, model="m", feature="temp", segment="", severity="page") == 1


def test_too_few_rows_are_insufficient_and_neither_break_nor_heal(bench: Bench) -> None:
    for day in range(3):
        bench.day(day, celsius(day_table(day)))
    tick = bench.day(3, day_table(3, rows=20))
    assert [(w.verdict, w.status) for w in tick.windows] == [("insufficient", "insufficient")]
    assert len(tick.breaches) == 1
    assert bench.value(names.DRIFT_SLICES, model="m", result="insufficient") == 1


def test_a_window_without_rows_is_absent_and_never_ok(bench: Bench) -> None:
    bench.day(0, day_table(0))
    tick = bench.stage.tick(3 * DAY)
    assert [(w.verdict, w.start) for w in tick.windows] == [("absent", DAY), ("absent", 2 * DAY)]


def test_another_version_has_no_reference_which_is_said_and_not_paged(tmp_path: Path) -> None:
    bench = Bench(tmp_path, model_version="v1")
    for day in range(4):
        tick = bench.day(day, celsius(day_table(day)), version="v2")
    assert tick.breaches == ()
    assert tick.windows[0].status == "no_reference"
    assert "v2" in tick.windows[0].detail
    assert bench.value(names.DRIFT_SLICES, model="m", result="no_reference") == 4
    bench.store.close()


def test_checks_that_reference_days_fail_wholly_are_off_and_said_to_be(bench: Bench) -> None:
    notes = read.heat_map(bench.store, "m").notes
    assert "off" in notes["gust", "constant"]
    assert ("temp", "null") not in notes


@pytest.mark.parametrize(
    ("column", "values", "check"),
    [
        ("temp", pa.nulls(400, pa.float64()), "null"),
        ("temp", np.full(400, np.nan), "null"),
        ("temp", np.full(400, np.inf), "range"),
        ("temp", np.full(400, 41.0), "constant"),
        ("temp", pa.array(["warm"] * 400), "type"),
        ("country", pa.array(["xx"] * 60 + ["de"] * 340), "unseen"),
        ("country", pa.array(["de"] * 400), "constant"),
        ("temp", None, "schema"),
    ],
)
def test_each_check_breaches_after_three_windows(
    bench: Bench, column: str, values: object, check: str
) -> None:
    for day in range(3):
        table = (
            day_table(day, **{column: values}) if values is not None else day_table(day).drop_columns(column)
        )
        tick = bench.day(day, table)
    assert (column, check) in {(b.feature, b.status) for b in tick.breaches}


def test_weights_decide_the_share(bench: Bench) -> None:
    """A tenth of the rows is out of range; those rows stand for a thousandth of the traffic."""
    for day in range(3):
        table = day_table(day)
        temp = table["temp"].to_numpy().copy()
        temp[::10] = 900.0
        weights = np.where(np.arange(400) % 10 == 0, 1.0, 100.0)
        place = table.schema.names.index("temp")
        tick = bench.day(day, table.set_column(place, "temp", pa.array(temp)), weights=weights)
    assert tick.breaches == ()


def test_only_critical_features_page_where_some_are_critical(bench: Bench) -> None:
    bench.features = {"amount": FeatureSettings("amount", critical=True)}
    bench.restart()
    for day in range(3):
        tick = bench.day(day, celsius(day_table(day)))
    assert [b.severity for b in tick.breaches] == ["ticket"]


def test_a_row_with_two_faults_is_one_bad_row(bench: Bench) -> None:
    table = day_table(0)
    temp, country = table["temp"].to_numpy().copy(), table["country"].to_pylist()
    temp[:7] = 900.0
    country[5:10] = ["xx"] * 5
    table = table.set_column(1, "temp", pa.array(temp)).set_column(2, "country", pa.array(country))
    bench.day(0, table)
    rows = {
        check: bench.value(names.DATA_QUALITY_ROWS, model="m", check=check, result="bad")
        for check in ("range", "unseen", "any")
    }
    assert rows == {"range": 7, "unseen": 5, "any": 10}
    assert bench.value(names.DATA_QUALITY_ROWS, model="m", check="any", result="ok") == 390


def test_a_missing_reference_file_is_a_configuration_error(tmp_path: Path) -> None:
    settings = Settings("svc", base=str(tmp_path), models=(ModelSettings("m", "none.mlref"),), clock="driven")
    store = open_store(f"sqlite:///{tmp_path}/state.db", [SCHEMA])
    with pytest.raises(ConfigError, match=r"models\.m\.reference"):
        DriftStage(settings, store, CollectorRegistry(), ScriptedLog())
    store.close()


def test_explain_ranks_what_broke_most_often_first(bench: Bench) -> None:
    for day in range(3):
        table = celsius(day_table(day))
        if day == 2:
            table = table.set_column(2, "country", pa.array(["xx"] * 400))
        bench.day(day, table)
    causes = read.explain(bench.store, "m", 0.0, 3 * DAY)
    assert [(c.feature, c.check, c.windows_broken) for c in causes][:2] == [
        ("temp", "range", 3),
        ("country", "unseen", 1),
    ]


def test_the_breach_of_a_version_that_was_rolled_back_closes(bench: Bench) -> None:
    for day in range(3):
        tick = bench.day(day, celsius(day_table(day)), version="v2")
    assert [b.feature for b in tick.breaches] == ["temp"]
    for day in range(3, 8):
        tick = bench.day(day, day_table(day), version="v1")
        assert bool(tick.breaches) is (day < 7)  # five judged windows of the model, none of them of v2
    assert bench.value(names.DRIFT_BREACH, model="m", feature="temp", segment="", severity="page") == 0


def test_two_versions_side_by_side_keep_their_own_breaches(bench: Bench) -> None:
    for day in range(8):
        bench.log.add("m", records(day_table(day), day * DAY, version="v1"))
        tick = bench.day(day, celsius(day_table(day)), version="v2")
    assert [b.feature for b in tick.breaches] == ["temp"]


def test_counters_go_on_after_a_restart_where_the_committed_windows_left_them(bench: Bench) -> None:
    for day in range(3):
        bench.day(day, day_table(day))
    rows = bench.value(names.DATA_QUALITY_ROWS, model="m", check="any", result="ok")
    bench.restart()
    assert bench.value(names.DRIFT_SLICES, model="m", result="ok") == 3
    assert bench.value(names.DATA_QUALITY_ROWS, model="m", check="any", result="ok") == rows
    bench.day(3, day_table(3))
    assert bench.value(names.DRIFT_SLICES, model="m", result="ok") == 4


def test_a_reference_of_before_a_rename_judges_the_feature_under_its_new_name(bench: Bench) -> None:
    bench.features = {"temp_f": FeatureSettings("temp_f", aliases=("temp",))}
    bench.restart()
    words = ["temp_f" if name == "temp" else name for name in day_table(0).schema.names]
    for day in range(6):
        table = day_table(day) if day < 3 else celsius(day_table(day))
        tick = bench.day(day, table.rename_columns(words))
        assert tick.windows[0].verdict == ("ok" if day < 3 else "drifted")
    assert {(breach.feature, breach.status) for breach in tick.breaches} == {("temp_f", "range")}


def test_without_an_alias_a_renamed_feature_is_missing(bench: Bench) -> None:
    words = ["temp_f" if name == "temp" else name for name in day_table(0).schema.names]
    for day in range(3):
        tick = bench.day(day, day_table(day).rename_columns(words))
    assert {(breach.feature, breach.status) for breach in tick.breaches} == {("temp", "schema")}
