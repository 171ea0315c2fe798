"""Spark as engine: the same kernel in `mapInArrow` over a DataFrame of file paths.

Paths travel, rows do not: rows handed through Spark cost twice the CPU. The executors open the files
themselves, so that object storage needs no jar, only rights and `pip install '.[drift]'` over there.
An edge: it talks to a cluster.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlobs.drift.engines.base import FileSlice, Job, Key, Outcome
from mlobs.drift.engines.kernel import profile_slice
from mlobs.drift.engines.listing import list_slices
from mlobs.errors import MissingExtraError, UnavailableError, shown

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RETRYING = "local[2,4]"
"""Two cores of this machine, and four tries of a task; plain `local[2]` gives a task one."""
_IN = "path string, identity string"
_OUT = (
    "path string, identity string, problem string, types string, rows long, unusable long, model string, "
    "version string, segment string, start double, end double, state binary"
)
_FIELDS = [pa.string()] * 4 + [pa.int64()] * 2 + [pa.string()] * 3 + [pa.float64()] * 2 + [pa.binary()]
_NAMES = [part.split()[0] for part in _OUT.split(", ")]
_LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
"""A session within this machine listens to nobody else."""
_OURS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}


class SparkEngine:
    """Profiles files on the cluster at `master`, one task a file; Spark retries a task whose worker died.

    A session that is running already is used and left running; else one is started here, with `settings` on
    top of what spark-defaults.conf says. Raises MissingExtraError without pyspark, UnavailableError for a
    master that does not answer.
    """

    def __init__(self, master: str = RETRYING, settings: Mapping[str, str] | None = None) -> None:
        self._session, self._ours = _session(master, settings or {})

    def slices(self, sources: Sequence[str]) -> list[FileSlice]:
        return list_slices(sources)

    def profile(self, slices: Sequence[FileSlice], job: Job) -> Iterator[Outcome]:
        """Jobs of some files each, so that what is done is handed over and a broken one loses little."""
        step = max(64, 4 * self._session.sparkContext.defaultParallelism)
        for start in range(0, len(slices), step):
            part = slices[start : start + step]
            try:
                yield from self._run(part, job)
            except _JobFailedError:
                yield from self._one_by_one(part, job)

    def _one_by_one(self, slices: Sequence[FileSlice], job: Job) -> Iterator[Outcome]:
        """Who ended the job? A file that fails its own job too. Where all do, it is the cluster."""
        good = 0
        bad: list[Outcome] = []
        why = ""
        for one in slices:
            try:
                yield from self._run([one], job)
                good += 1
            except _JobFailedError as problem:
                why = str(problem)
                bad.append(Outcome(one, problem=f"{one.path}: reading it ended the Spark job: {why}"))
                if not good and len(bad) == min(len(slices), 3):
                    master = self._session.sparkContext.master
                    raise UnavailableError.of(
                        f"spark {master}",
                        "a job that ends",
                        why,
                        "see the log of the executors; run it again",
                    ) from None
        yield from bad

    def _run(self, slices: Sequence[FileSlice], job: Job) -> Iterator[Outcome]:
        session = self._session
        try:
            paths = [(one.path, one.identity) for one in slices]
            spread = session.sparkContext.parallelize(paths, len(paths))
            table = session.createDataFrame(spread, _IN).mapInArrow(_task(job), _OUT).toArrow()
        except Exception as problem:  # noqa: BLE001 - py4j, Spark and the socket each have errors of their own
            raise _JobFailedError(_gist(problem)) from None
        for (path, identity), rows in groupby(table.to_pylist(), lambda row: (row["path"], row["identity"])):
            found = list(rows)
            states = tuple(
                (Key(*(row[part] for part in Key._fields)), row["state"])
                for row in found
                if row["state"] is not None
            )
            first = found[0]
            types = tuple((name, kind) for name, kind in json.loads(first["types"]))
            yield Outcome(
                FileSlice(path, identity), states, first["rows"], first["unusable"], first["problem"], types
            )

    def close(self) -> None:
        if self._ours:
            self._session.stop()
            self._ours = False


class _JobFailedError(Exception):
    """Spark gave a job up."""


def _session(master: str, settings: Mapping[str, str]) -> tuple[SparkSession, bool]:
    try:
        from pyspark.sql import SparkSession
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra("--engine spark", "spark") from None
    running = SparkSession.getActiveSession()
    if running is not None:
        return running, False
    builder = SparkSession.builder.master(master).appName("mlobs drift")
    own = _LOOPBACK if master.startswith("local") else {}
    for name, value in {**_OURS, **own, **settings}.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as problem:  # noqa: BLE001 - a missing Java, a bad master: each an error of its own
        got = _gist(problem)
        raise UnavailableError.of(
            f"spark {master}", "a Spark master, and Java 17 or newer here", got, "see docs/drift-engines.md"
        ) from None
    if own:
        session.sparkContext.pythonExec = sys.executable  # this environment, and not the `python3` in PATH
    return session, True


def _gist(problem: Exception) -> str:
    """The line that says it: of a Python worker's traceback the last error, else the first line."""
    lines = [line.strip() for line in str(problem).split("\n") if line.strip()] or [type(problem).__name__]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    return shown((errors or lines)[0])


def _task(job: Job) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for path, identity in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                yield _encoded(profile_slice(FileSlice(path, identity), job))

    return run


def _encoded(outcome: Outcome) -> pa.RecordBatch:
    """One row a state; a single one without a state where there is none."""
    one, types = outcome.slice, json.dumps(outcome.types)
    head = (one.path, one.identity, outcome.problem, types, outcome.rows, outcome.unusable)
    rows: list[tuple[Any, ...]] = [(*head, *key, state) for key, state in outcome.states]
    rows = rows or [(*head, None, None, None, None, None, None)]
    arrays = [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), _FIELDS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=_NAMES)
