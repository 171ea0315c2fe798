"""Engines: the same states wherever they are taken, in whatever order, after whatever accident."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from mlobs.drift.codec import canonical_bytes, load_state
from mlobs.drift.engines import ledger
from mlobs.drift.engines.backfill import backfill, judged
from mlobs.drift.engines.base import Engine, FileSlice, Job, Keying, Outcome
from mlobs.drift.engines.kernel import profile_slice
from mlobs.drift.engines.local import LONE_DEATHS, LocalEngine
from mlobs.drift.mlref import dump_reference
from mlobs.drift.profile import profile
from mlobs.drift.reference import Reference, Slicing, build_reference
from mlobs.errors import UnreadableError, UsageError
from mlobs.store import Store, open_store
from tests import servers
from tests.drift.traffic import day_table, records, reference_table

DAY = 86400.0
START = 20_000 * DAY
KEYING = Keying(time="event_time", version="model_version", segment="segment")


@pytest.fixture(scope="module")
def reference() -> Reference:
    return build_reference(reference_table(), "twenty days", slicing=Slicing(day="day"))


@pytest.fixture(scope="module")
def job(reference: Reference) -> Job:
    return Job(dump_reference(reference), KEYING)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'backfill.db'}", [ledger.SCHEMA])
    yield opened
    opened.close()


def flat(day: int, rows: int = 400, **changed: object) -> pa.Table:
    """A day as a plain table: features beside the columns that say where a row belongs."""
    table = day_table(day, rows, **changed)
    for name, values in {
        "event_time": START + day * DAY + np.linspace(0, DAY - 1, rows),
        "model_version": ["v1", "v2"] * (rows // 2),
        "segment": ["a", "a", "b", "b"] * (rows // 4),
    }.items():
        table = table.append_column(name, pa.array(values))
    return table


def write_days(folder: Path, days: int, rows: int = 400) -> list[str]:
    folder.mkdir(exist_ok=True)
    for day in range(days):
        pq.write_table(flat(day, rows), folder / f"day{day:02d}.parquet", row_group_size=150)
    return [str(folder)]


def contents(outcomes: list[Outcome]) -> dict[str, list[tuple[tuple[object, ...], bytes]]]:
    return {
        Path(outcome.slice.path).name: [
            (tuple(key), canonical_bytes(load_state(state, "test"))) for key, state in outcome.states
        ]
        for outcome in outcomes
    }


def test_a_file_is_cut_by_version_segment_and_window_in_one_pass(
    tmp_path: Path, job: Job, reference: Reference
) -> None:
    table = pa.concat_tables([flat(1), flat(0)])
    pq.write_table(table, tmp_path / "two.parquet", row_group_size=300)
    outcome = profile_slice(FileSlice(str(tmp_path / "two.parquet"), ""), job)
    assert (outcome.rows, outcome.unusable, outcome.problem) == (800, 0, "")
    assert [(key.version, key.segment, key.start) for key, _ in outcome.states] == [
        (version, segment, START + day * DAY)
        for version in ("v1", "v2")
        for segment in "ab"
        for day in (0, 1)
    ]
    first = load_state(outcome.states[0][1], "test")
    own = flat(0)
    mask = pa.array([i % 4 == 0 for i in range(400)])
    expected = profile(own.filter(mask).select(["amount", "temp", "country", "gust"]), reference.spec)
    assert canonical_bytes(first) == canonical_bytes(expected)


def test_records_of_the_feature_log_are_read_with_their_weights(tmp_path: Path, job: Job) -> None:
    weights = np.where(np.arange(400) % 2, 1.0, 10.0)
    pq.write_table(records(day_table(0), START, segment="a", weights=weights), tmp_path / "log.parquet")
    keyed = replace(job, keying=replace(KEYING, weight="weight"))
    outcome = profile_slice(FileSlice(str(tmp_path / "log.parquet"), ""), keyed)
    state = load_state(outcome.states[0][1], "test")
    assert {weight: stratum.rows for weight, stratum in state.strata.items()} == {1.0: 200, 10.0: 200}
    assert set(state.strata[1.0].columns) == {"amount", "temp", "country", "gust"}
    assert not any(counts.missing for counts in state.strata[1.0].columns.values())


def test_rows_without_a_time_are_counted_and_in_no_window(tmp_path: Path, job: Job) -> None:
    table = flat(0)
    times = [None, float("nan"), float("inf"), *table["event_time"].to_pylist()[3:]]
    at = table.schema.names.index("event_time")
    pq.write_table(table.set_column(at, "event_time", pa.array(times)), tmp_path / "odd.parquet")
    outcome = profile_slice(FileSlice(str(tmp_path / "odd.parquet"), ""), job)
    assert (outcome.rows, outcome.unusable) == (400, 3)


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("ms", "Europe/Berlin"), pa.timestamp("s")])
def test_event_times_may_be_timestamps_of_any_unit_and_zone(
    tmp_path: Path, job: Job, kind: pa.DataType
) -> None:
    table = flat(0)
    at = table.schema.names.index("event_time")
    whole = table["event_time"].cast(pa.int64(), safe=False)
    scale = {"s": 1, "ms": 1000, "ns": 10**9}[kind.unit]
    exact = pa.array([second * scale for second in whole.to_pylist()]).cast(kind)
    pq.write_table(table.set_column(at, "event_time", exact), tmp_path / "stamps.parquet")
    outcome = profile_slice(FileSlice(str(tmp_path / "stamps.parquet"), ""), job)
    assert {key.start for key, _ in outcome.states} == {START}


def test_the_pool_gives_the_states_of_this_process(tmp_path: Path, job: Job) -> None:
    sources = write_days(tmp_path / "data", 5)
    alone, pool = LocalEngine(0), LocalEngine(2)
    try:
        expected = list(alone.profile(alone.slices(sources), job))
        found = list(pool.profile(pool.slices(sources), job))
    finally:
        pool.close()
    assert contents(found) == contents(expected)
    assert len(expected) == 5


def test_a_corrupt_file_is_an_outcome_and_spoils_no_other(tmp_path: Path, job: Job) -> None:
    sources = write_days(tmp_path / "data", 3)
    broken = tmp_path / "data" / "day01.parquet"
    broken.write_bytes(broken.read_bytes()[:-40])
    (tmp_path / "data" / "day02.parquet").write_bytes(b"")
    engine = LocalEngine(0)
    outcomes = list(engine.profile(engine.slices(sources), job))
    assert [bool(outcome.problem) for outcome in outcomes] == [False, True, True]
    assert "day01.parquet" in outcomes[1].problem
    assert not outcomes[1].states


def test_a_missing_key_column_is_said(tmp_path: Path, job: Job) -> None:
    pq.write_table(day_table(0), tmp_path / "plain.parquet")
    outcome = profile_slice(FileSlice(str(tmp_path / "plain.parquet"), ""), job)
    assert "the column 'event_time'" in outcome.problem


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="expected a file or folder"):
        LocalEngine(0).slices([str(tmp_path / "nowhere")])
    with pytest.raises(UnreadableError, match="a folder without any"):
        LocalEngine(0).slices([str(tmp_path)])


def test_objects_of_a_store_give_the_states_of_files(
    tmp_path: Path, job: Job, moto_s3: servers.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 through Arrow's own client; the address and the keys come as for the AWS tools."""
    sources = write_days(tmp_path / "data", 3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto_s3.secret_key)
    place = moto_s3.endpoint.partition("://")[2]
    query = f"?scheme=http&region={moto_s3.region}&endpoint_override={place}"
    system, root = fs.FileSystem.from_uri(f"s3://{moto_s3.bucket}/lake{query}")
    fs.copy_files(sources[0], root, destination_filesystem=system)
    with system.open_output_stream(f"{root}/day02.parquet") as out:
        out.write(b"PAR1 and no more")
    engine = LocalEngine(0)
    slices = engine.slices([f"s3://{moto_s3.bucket}/lake{query}"])
    expected = contents(list(engine.profile(engine.slices(sources), job)))
    found = list(engine.profile(slices, job))
    assert [bool(one.problem) for one in found] == [False, False, True]
    by_name = {Path(one.slice.path.partition("?")[0]).name: one for one in found}
    good = [replace(one, slice=FileSlice(name, "")) for name, one in by_name.items() if not one.problem]
    assert contents(good) == {name: expected[name] for name in ("day00.parquet", "day01.parquet")}


def test_an_address_with_a_key_is_refused_without_showing_it() -> None:
    with pytest.raises(UsageError) as refused:
        LocalEngine(0).slices(["s3://AKIA:wJalr@bucket/lake"])
    assert "wJalr" not in str(refused.value)


# --- accidents -----------------------------------------------------------------------------------


class Trap:
    """A pipe in the place of a file: whoever reads it waits, is found by its open file, and killed. Then the
    real file stands in its place."""

    def __init__(self, path: Path, times: int = 1, real: bytes | None = None) -> None:
        self.path, self.times = path, times
        self.real = path.read_bytes() if real is None else real
        path.unlink()
        os.mkfifo(path)
        self.killed: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        end = -1
        while len(self.killed) < self.times and not self._over.wait(0.01):
            if end < 0:
                try:
                    # Succeeds once a reader waits in `open`. It stays open to the end: a reader that came
                    # while it is closed would take the pipe for an empty file.
                    end = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:
                    continue  # nobody reads yet
            victim = next(iter(self._readers()), None)
            if victim is None:
                continue  # its `open` is still on its way back
            if len(self.killed) + 1 == self.times:
                self._restore()
            self.killed.append(victim)
            os.kill(victim, signal.SIGKILL)
            while self._open_in(victim) and not self._over.wait(0.01):
                pass  # it is on its way out
        if end >= 0:
            os.close(end)

    def _restore(self) -> None:
        real = self.path.with_name("real.tmp")
        real.write_bytes(self.real)
        os.replace(real, self.path)

    def _open_in(self, pid: int) -> bool:
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{link}") for link in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            return False
        return str(self.path) in {link.removesuffix(" (deleted)") for link in links}

    def _readers(self) -> list[int]:
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return [pid for pid in pids if pid != os.getpid() and self._open_in(pid)]

    def over(self) -> int:
        """No more of it; how often it killed."""
        self._over.set()
        self._thread.join(60)
        return len(self.killed)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="finds readers through /proc: Linux"
)


@needs_proc
def test_a_worker_killed_in_mid_file_loses_nothing(tmp_path: Path, job: Job) -> None:
    sources = write_days(tmp_path / "data", 6)
    expected = contents(list(LocalEngine(0).profile(LocalEngine(0).slices(sources), job)))
    engine = LocalEngine(2)
    slices = engine.slices(sources)
    trap = Trap(tmp_path / "data" / "day02.parquet")
    try:
        found = list(engine.profile(slices, job))
    finally:
        engine.close()
    assert trap.over() == 1
    assert engine.rebuilt == 1
    assert contents(found) == expected


@needs_proc
def test_a_file_that_kills_every_reader_is_given_up_and_no_other_is(tmp_path: Path, job: Job) -> None:
    sources = write_days(tmp_path / "data", 5)
    engine = LocalEngine(2)
    slices = engine.slices(sources)
    trap = Trap(tmp_path / "data" / "day01.parquet", times=3)
    try:
        outcomes = {Path(one.slice.path).name: one for one in engine.profile(slices, job)}
    finally:
        engine.close()
    # Killed beside another file it is a suspect; killed alone it counts, and twice is enough.
    assert trap.over() in (LONE_DEATHS, LONE_DEATHS + 1)
    assert {name for name, outcome in outcomes.items() if outcome.problem} == {"day01.parquet"}
    assert "killed the worker" in outcomes["day01.parquet"].problem
    assert len(outcomes) == 5


# --- backfill -------------------------------------------------------------------------------


class Stopping:
    """An engine that is interrupted after some slices."""

    def __init__(self, after: int) -> None:
        self.inner, self.after, self.read = LocalEngine(0), after, 0

    def slices(self, sources: list[str]) -> list[FileSlice]:
        return self.inner.slices(sources)

    def profile(self, slices: list[FileSlice], job: Job) -> Iterator[Outcome]:
        for one in slices:
            if self.read == self.after:
                raise KeyboardInterrupt
            self.read += 1
            yield from self.inner.profile([one], job)

    def close(self) -> None:
        self.inner.close()


def run(store: Store, job: Job, reference: Reference, sources: list[str], engine: Engine | None = None):  # type: ignore[no-untyped-def]
    return backfill(store, engine or LocalEngine(0), job, reference, sources)


def test_90_days_of_backfill_resume_where_they_stopped(
    tmp_path: Path, store: Store, job: Job, reference: Reference
) -> None:
    sources = write_days(tmp_path / "data", 90, rows=80)
    daily = replace(job, keying=Keying(time="event_time"))
    with pytest.raises(KeyboardInterrupt):
        run(store, daily, reference, sources, Stopping(37))
    resumed = Stopping(10**6)
    done = run(store, daily, reference, sources, resumed)
    assert (done.skipped, resumed.read, done.progress.done) == (37, 53, 90)
    assert [window.rows for window in done.windows] == [80] * 90
    whole = open_store(f"sqlite:///{tmp_path / 'whole.db'}", [ledger.SCHEMA])
    at_once = run(whole, daily, reference, sources)
    whole.close()
    assert [canonical_bytes(one.state) for one in done.windows] == [
        canonical_bytes(one.state) for one in at_once.windows
    ]


def test_running_again_counts_nothing_twice_and_makes_no_revision(
    tmp_path: Path, store: Store, job: Job, reference: Reference
) -> None:
    sources = write_days(tmp_path / "data", 3)
    first = run(store, job, reference, sources)
    os.utime(tmp_path / "data" / "day01.parquet", (1, 1))  # another identity, the same rows
    engine = Stopping(10**6)
    second = run(store, job, reference, sources, engine)
    assert (second.skipped, engine.read) == (2, 1)
    assert [(one.rows, one.revision) for one in second.windows] == [(100, 1)] * 12
    assert [one.rows for one in first.windows] == [one.rows for one in second.windows]
    assert not any(one.changed for one in second.windows)


def test_late_rows_give_their_window_alone_a_new_revision(
    tmp_path: Path, store: Store, job: Job, reference: Reference
) -> None:
    sources = write_days(tmp_path / "data", 3)
    run(store, job, reference, sources)
    pq.write_table(flat(1).slice(0, 40), tmp_path / "data" / "late.parquet")
    found = run(store, job, reference, sources).windows
    assert {(one.key.start - START) / DAY: one.revision for one in found} == {0: 1, 1: 2, 2: 1}
    assert sum(one.rows for one in found) == 3 * 400 + 40


def test_rows_that_moved_to_another_file_are_counted_once(
    tmp_path: Path, store: Store, job: Job, reference: Reference
) -> None:
    sources = write_days(tmp_path / "data", 2)
    before = run(store, job, reference, sources).windows
    for day in range(2):
        (tmp_path / "data" / f"day{day:02d}.parquet").unlink()
    pq.write_table(pa.concat_tables([flat(0), flat(1)]), tmp_path / "data" / "compacted.parquet")
    after = run(store, job, reference, sources).windows
    assert [(one.key, one.rows, one.revision) for one in after] == [(one.key, one.rows, 1) for one in before]


def test_a_file_that_failed_is_tried_again(
    tmp_path: Path, store: Store, job: Job, reference: Reference
) -> None:
    sources = write_days(tmp_path / "data", 2)
    path = tmp_path / "data" / "day01.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:500])
    first = run(store, job, reference, sources)
    assert [Path(name).name for name, _ in first.progress.failed] == ["day01.parquet"]
    path.write_bytes(good)
    second = run(store, job, reference, sources)
    assert second.progress.failed == ()
    assert sum(one.rows for one in second.windows) == 800


def test_a_window_is_judged_as_serve_would_judge_it(
    tmp_path: Path, store: Store, job: Job, reference: Reference
) -> None:
    folder = tmp_path / "data"
    sources = write_days(folder, 2)
    pq.write_table(flat(1, temp=np.full(400, -12.0)), folder / "day01.parquet")
    daily = replace(job, keying=Keying(time="event_time"))
    windows = run(store, daily, reference, sources).windows
    verdicts = [judged(window, reference, min_rows=100, margin=0.05) for window in windows]
    assert [verdict.verdict for verdict in verdicts] == ["ok", "drifted"]
    assert "temp" in {one.feature for one in verdicts[1].verdicts if one.verdict == "drifted"}
