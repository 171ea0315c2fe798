"""The Spark engine's own part without a Spark: paths out, states back, and who ended a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlobs.drift.engines import spark
from mlobs.drift.engines.base import Job
from mlobs.drift.engines.local import LocalEngine
from mlobs.drift.engines.spark import SparkEngine
from mlobs.errors import UnavailableError
from tests.drift import test_engines as local
from tests.drift.test_engines import contents, write_days

reference, job = local.reference, local.job


@dataclass
class Session:
    """What the engine asks of a SparkSession, in this process; a job with a path in `deadly` fails."""

    deadly: set[str] = field(default_factory=set)
    jobs: list[int] = field(default_factory=list)
    rows: list[tuple[str, str]] = field(default_factory=list)
    task: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]] | None = None
    defaultParallelism = 2
    master = "local[2]"
    stopped = False

    @property
    def sparkContext(self) -> Session:
        return self

    def parallelize(self, rows: list[tuple[str, str]], _slices: int) -> list[tuple[str, str]]:
        return rows

    def createDataFrame(self, rows: list[tuple[str, str]], _schema: str) -> Session:
        self.rows = rows
        return self

    def mapInArrow(self, task: Any, _schema: str) -> Session:
        self.task = task
        return self

    def toArrow(self) -> pa.Table:
        self.jobs.append(len(self.rows))
        if any(Path(path).name in self.deadly for path, _ in self.rows):
            raise RuntimeError("Job aborted due to stage failure\nValueError: a worker died")
        names = ["path", "identity"]
        batch = pa.RecordBatch.from_arrays(
            [pa.array(part) for part in zip(*self.rows, strict=True)], names=names
        )
        assert self.task is not None
        return pa.Table.from_batches(list(self.task(iter([batch]))))

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    made = Session()
    monkeypatch.setattr(spark, "_session", lambda _master, _settings: (made, True))
    return made


def test_states_come_back_as_this_machine_makes_them(tmp_path: Path, session: Session, job: Job) -> None:
    sources = write_days(tmp_path / "data", 3)
    (tmp_path / "data" / "day01.parquet").write_bytes(b"PAR1 and no more")
    engine = SparkEngine()
    expected = list(LocalEngine(0).profile(LocalEngine(0).slices(sources), job))
    found = list(engine.profile(engine.slices(sources), job))
    assert contents(found) == contents(expected)
    assert [one.problem for one in found] == [one.problem for one in expected]
    engine.close()
    assert session.stopped


def test_files_go_in_jobs_of_64_and_the_one_that_ends_its_job_is_named(
    tmp_path: Path, session: Session, job: Job
) -> None:
    sources = write_days(tmp_path / "data", 66, rows=8)
    session.deadly = {"day65.parquet"}
    engine = SparkEngine()
    found = list(engine.profile(engine.slices(sources), job))
    assert session.jobs == [64, 2, 1, 1]
    assert [Path(one.slice.path).name for one in found if one.problem] == ["day65.parquet"]
    assert "ValueError: a worker died" in found[-1].problem


def test_where_every_file_ends_its_job_it_is_the_cluster(tmp_path: Path, session: Session, job: Job) -> None:
    sources = write_days(tmp_path / "data", 5, rows=8)
    session.deadly = {f"day{day:02d}.parquet" for day in range(5)}
    engine = SparkEngine()
    with pytest.raises(UnavailableError, match="a job that ends"):
        list(engine.profile(engine.slices(sources), job))
    assert session.jobs == [5, 1, 1, 1]
