"""Labels meet their predictions whenever they come; a day is measured once enough of it is known."""

import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from mlobs import names
from mlobs.drift import tables
from mlobs.drift.loop import DriftStage
from mlobs.settings import ModelSettings, ObjectiveSettings, Settings, SliSettings, SloSettings
from mlobs.store import Store, open_store
from tests.featurelog.helpers import label, opened, record

DAY = 86400.0


class Bench:
    def __init__(self, folder: Path, asked: bool = True) -> None:
        sli = SliSettings("model_quality", threshold=Decimal("0.8"), metric="auc")
        objective = ObjectiveSettings("fraud-auc", sli, Decimal("0.9"), "fraud")
        self.settings = Settings(
            "fraud-api",
            feature_log=str(folder / "log"),
            sample=1.0,
            models=(ModelSettings("fraud", decision_threshold=0.5),),
            slo=SloSettings(objectives=(objective,) if asked else ()),
            clock="driven",
        )
        self.folder = folder
        self.store: Store = open_store(f"sqlite:///{folder}/state.db", [tables.SCHEMA])
        self.restart()

    def restart(self) -> None:
        self.registry = CollectorRegistry()
        self.stage = DriftStage(self.settings, self.store, self.registry)

    def predictions(self, numbers: range, day: int = 0) -> None:
        """Even numbers score 0.9, odd ones 0.1."""
        log = opened(self.folder / "log")
        for number in numbers:
            score = 0.1 if number % 2 else 0.9
            log.offer(record(number, event_time=day * DAY + number, prediction=score))
        assert log.close(5)

    def labels(self, numbers: range, day: float, wrong: int = 0) -> None:
        log = opened(self.folder / "log")
        for number in numbers:
            truth = (number % 2 == 0) != (number < wrong)
            log.offer_label(label(number, truth, event_time=day * DAY + number))
        assert log.close(5)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"model": "fraud", **labels})

    def rows(self, table: object) -> int:
        with self.store.read() as connection:
            return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.store.close()


def test_a_day_is_measured_when_its_labels_have_come_and_dated_by_its_predictions(bench: Bench) -> None:
    bench.predictions(range(200))
    bench.stage.tick(DAY)
    assert bench.value(names.MODEL_QUALITY, metric="auc") is None
    assert bench.value(names.LABEL_MATURITY, window="7d") == 0.0
    bench.labels(range(100), 3)
    bench.stage.tick(3.5 * DAY)
    assert bench.value(names.LABEL_MATURITY, window="7d") == 0.5
    assert bench.value(names.MODEL_QUALITY, metric="auc") is None  # half a day is not the day
    bench.labels(range(100, 200), 3)
    bench.stage.tick(4 * DAY)
    assert bench.value(names.MODEL_QUALITY, metric="auc") == 1.0
    assert bench.value(names.MODEL_QUALITY, metric="precision") == 1.0
    assert bench.value(names.MODEL_QUALITY, metric="brier") == pytest.approx(0.01)
    assert bench.value(names.MODEL_QUALITY_DAY) == 0.0
    bench.restart()
    bench.stage.tick(4 * DAY + 1)
    assert bench.value(names.MODEL_QUALITY, metric="auc") == 1.0


def test_labels_before_their_record_and_corrections_count(bench: Bench) -> None:
    bench.labels(range(200), 1, wrong=40)
    bench.stage.tick(DAY)
    bench.labels(range(40), 2)  # the truth was corrected
    bench.labels(range(40, 50), 0.5, wrong=50)  # and this is older than what is known
    bench.stage.tick(2 * DAY)
    bench.predictions(range(200))
    bench.stage.tick(3 * DAY)
    assert bench.value(names.MODEL_QUALITY, metric="auc") == 1.0
    assert bench.rows(tables.early_labels) == 0
    assert bench.value(names.MODEL_QUALITY, metric="log_loss") == pytest.approx(-math.log(0.9))


def test_labels_of_predictions_that_were_never_kept_do_not_pile_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    object.__setattr__(bench.settings, "sample", 0.01)
    bench.restart()
    bench.labels(range(1000), 1)
    bench.stage.tick(2 * DAY)
    assert bench.rows(tables.early_labels) < 50
    bench.store.close()


def test_without_an_objective_on_quality_nothing_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, asked=False)
    bench.predictions(range(20))
    bench.stage.tick(DAY)
    assert bench.rows(tables.predictions) == 0
    bench.store.close()
