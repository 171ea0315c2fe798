"""The kernel on a real Spark: two cores, four tries of a task. `nox -s spark`: 500 MB, and a Java."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlobs.drift.codec import canonical_bytes
from mlobs.drift.engines import ledger
from mlobs.drift.engines.base import Job, Keying
from mlobs.drift.engines.local import LocalEngine
from mlobs.drift.engines.spark import SparkEngine
from mlobs.drift.reference import Reference
from mlobs.store import Store, open_store
from tests.drift import test_engines as local
from tests.drift.test_engines import Trap, contents, needs_proc, run, write_days

pytest.importorskip("pyspark", reason="pip install '.[spark]', or nox -s spark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java 17: apt install openjdk-17-jre-headless", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("default")  # py4j leaves sockets to the garbage collector

reference, job, store = local.reference, local.job, local.store


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkEngine]:
    engine = SparkEngine("local[2,4]")
    yield engine
    engine.close()


def test_spark_gives_the_same_states_as_this_machine(tmp_path: Path, spark: SparkEngine, job: Job) -> None:
    sources = write_days(tmp_path / "data", 6)
    expected = contents(list(LocalEngine(0).profile(LocalEngine(0).slices(sources), job)))
    assert contents(list(spark.profile(spark.slices(sources), job))) == expected


@needs_proc
def test_an_executor_killed_in_mid_job_loses_nothing(tmp_path: Path, spark: SparkEngine, job: Job) -> None:
    sources = write_days(tmp_path / "data", 6)
    slices = spark.slices(sources)
    expected = contents(list(LocalEngine(0).profile(slices, job)))
    trap = Trap(tmp_path / "data" / "day03.parquet")
    found = list(spark.profile(slices, job))
    assert trap.over() >= 1
    assert contents(found) == expected


@needs_proc
def test_a_file_that_kills_every_executor_is_named_and_the_others_are_kept(
    tmp_path: Path, spark: SparkEngine, job: Job
) -> None:
    sources = write_days(tmp_path / "data", 4)
    slices = spark.slices(sources)
    trap = Trap(tmp_path / "data" / "day02.parquet", times=8)  # four tries of the whole job, four alone
    found = {Path(one.slice.path).name: one.problem for one in spark.profile(slices, job)}
    assert trap.over() >= 1
    assert {name for name, problem in found.items() if problem} == {"day02.parquet"}
    assert "ended the Spark job" in found["day02.parquet"]
    assert len(found) == 4


def test_a_corrupt_file_among_good_ones_is_an_outcome(tmp_path: Path, spark: SparkEngine, job: Job) -> None:
    sources = write_days(tmp_path / "data", 4)
    broken = tmp_path / "data" / "day01.parquet"
    broken.write_bytes(broken.read_bytes()[:-40])
    found = {Path(one.slice.path).name: one for one in spark.profile(spark.slices(sources), job)}
    assert [name for name, one in sorted(found.items()) if one.problem] == ["day01.parquet"]
    assert sum(one.rows for one in found.values()) == 3 * 400


class Interrupted:
    """Spark, until so many slices were handed over."""

    def __init__(self, spark: SparkEngine, after: int) -> None:
        self.spark, self.after = spark, after
        self.slices, self.close = spark.slices, spark.close

    def profile(self, slices, job):  # type: ignore[no-untyped-def]
        yield from self.spark.profile(slices[: self.after], job)
        raise KeyboardInterrupt


def test_90_days_of_backfill_on_spark_resume_and_equal_those_of_this_machine(
    tmp_path: Path, spark: SparkEngine, store: Store, job: Job, reference: Reference
) -> None:
    sources = write_days(tmp_path / "data", 90, rows=80)
    daily = replace(job, keying=Keying(time="event_time"))
    with pytest.raises(KeyboardInterrupt):
        run(store, daily, reference, sources, Interrupted(spark, 40))
    done = run(store, daily, reference, sources, spark)
    assert (done.skipped, done.progress.done, len(done.windows)) == (40, 90, 90)
    other = open_store(f"sqlite:///{tmp_path / 'local.db'}", [ledger.SCHEMA])
    alone = run(other, daily, reference, sources)
    other.close()
    assert [canonical_bytes(one.state) for one in done.windows] == [
        canonical_bytes(one.state) for one in alone.windows
    ]
