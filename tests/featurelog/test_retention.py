"""Retention removes what is old, and never because a clock jumped."""

import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from mlobs.cli import app
from mlobs.errors import UnavailableError
from mlobs.featurelog.compact import compact
from mlobs.featurelog.lake import MANIFEST, Entry, Lake, LakeFile
from mlobs.featurelog.retention import Uptime, expire, plan_expiry, quiet
from mlobs.featurelog.storage import DiskStorage, Storage
from tests.featurelog.helpers import opened, read_all, record

DAY = 86400.0


def lake_of_days(folder: Path, days: range) -> Lake:
    for day in days:
        log = opened(folder)
        log.offer(record(day, event_time=day * DAY))
        assert log.close(5)
        compact(folder, DiskStorage(folder), day * DAY)
    return Lake(DiskStorage(folder))


def run(lake: Lake, now: float, keep: float = 3 * DAY, accept_clock: bool = False) -> int:
    plan = plan_expiry(lake, keep, now, accept_clock)
    expire(lake, plan, keep)
    return plan.rows


def days_left(folder: Path) -> list[float]:
    chunk = read_all(folder)
    assert chunk.stats.gaps == 0, "what expired is not missed"
    return sorted(
        table["event_time"][row].as_py() / DAY
        for table in chunk.records.values()
        for row in range(len(table))
    )


def test_what_is_older_than_asked_goes(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path, range(10, 20))
    assert run(lake, 19 * DAY) == 6
    assert days_left(tmp_path) == [16, 17, 18, 19]
    assert len(list((tmp_path / "lake").rglob("*.parquet"))) == 4


def test_without_new_data_nothing_expires(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path, range(10, 13))
    assert run(lake, 900 * DAY) == 0
    assert days_left(tmp_path) == [10, 11, 12]


def test_a_jump_of_the_clock_and_of_the_data_removes_nothing_until_a_person_says_so(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path, range(10, 13))
    assert run(lake, 12 * DAY) == 0
    lake_of_days(tmp_path, range(400, 401))
    with pytest.raises(UnavailableError, match="accept-clock"):
        run(lake, 400 * DAY)
    assert days_left(tmp_path) == [10, 11, 12, 400]
    assert run(lake, 400 * DAY, accept_clock=True) == 3


def test_a_jump_of_two_days_shows_on_a_machine_that_was_not_restarted(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path, range(10, 13))
    plan = plan_expiry(lake, 3 * DAY, 12 * DAY, uptime=Uptime("boot", 500.0))
    expire(lake, plan, 3 * DAY)
    lake_of_days(tmp_path, range(18, 19))
    with pytest.raises(UnavailableError, match=r"at most 1 h more .* got 144\.0"):
        plan_expiry(lake, 3 * DAY, 18 * DAY + 300, uptime=Uptime("boot", 800.0))
    assert days_left(tmp_path) == [10, 11, 12, 18]
    set_right = plan_expiry(lake, 3 * DAY, 12 * DAY + 300, uptime=Uptime("boot", 800.0))
    assert set_right.rows == 0, "a clock that is set right again needs nobody"
    elapsed = Uptime("boot", 500.0 + 6 * DAY)
    assert plan_expiry(lake, 3 * DAY, 18 * DAY, uptime=elapsed).rows == 3, "six days have gone by"
    assert plan_expiry(lake, 3 * DAY, 18 * DAY + 300, True, Uptime("boot", 800.0)).rows == 3


RESTARTED = (Uptime("another", 300.0), Uptime("another", 40 * DAY), None)
"""Restarted; another machine that was up; not Linux."""
HOUR = 3600.0


class Memory(Storage):
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.where = "memory"

    def names(self, folder: str) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self.files if name.rpartition("/")[0] == folder)

    def read(self, name: str) -> bytes:
        try:
            return self.files[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def delete(self, name: str) -> None:
        self.files.pop(name, None)


def logged(storage: Storage, hours: Iterable[int]) -> Lake:
    """Ten records in the middle of each hour, each hour a commit."""
    for hour in hours:
        at = hour * HOUR + 1800
        file = LakeFile(f"lake/{hour}.parquet", "fraud", 10, at - 1700, at + 1700, {})
        entry = Entry(1, f"{hour}", at + 1800, [], [file], {})
        storage.write(f"{MANIFEST}/{entry.name}", msgspec.json.encode(entry))
    return Lake(storage)


def run_before(storage: Storage, keep: float) -> None:
    """Ten days are logged, and retention ran at their end."""
    lake = logged(storage, range(240))
    expire(lake, plan_expiry(lake, keep, 240 * HOUR, uptime=Uptime("boot", 500.0)), keep)


@pytest.mark.parametrize("uptime", RESTARTED)
def test_a_jump_across_a_restart_shows_by_the_hours_in_which_nobody_logged(uptime: Uptime | None) -> None:
    storage, keep, jump = Memory(), 10 * DAY, 26
    run_before(storage, keep)
    lake, now = logged(storage, range(240 + jump, 242 + jump)), (242 + jump) * HOUR
    for later in (0.0, 3 * DAY):
        with pytest.raises(UnavailableError, match=r"every 24 h since .* none for 26\.0 h.*accept-clock"):
            plan_expiry(lake, keep, now + later, uptime=uptime)
    assert plan_expiry(lake, keep, 240.5 * HOUR, uptime=uptime).rows == 0, "a clock that is set right again"
    assert plan_expiry(lake, keep, now, True, uptime).rows == 10 * (1 + jump)


@pytest.mark.parametrize("uptime", RESTARTED)
def test_days_in_which_others_logged_have_gone_by_across_a_restart(uptime: Uptime | None) -> None:
    """The machine was down, or cron ran the command once in a while: nobody has to be asked."""
    storage, keep = Memory(), 10 * DAY
    run_before(storage, keep)
    lake = logged(storage, [*range(240, 260), *range(275, 380)])  # and a night without a call
    assert plan_expiry(lake, keep, 380 * HOUR, uptime=uptime).rows == 10 * (380 - 240 - 1)
    assert plan_expiry(lake, keep, 401 * HOUR, uptime=uptime).rows == 10 * (380 - 240 - 1), (
        "the newest counts"
    )


def test_what_is_kept_shortly_is_removed_by_smaller_jumps_and_less_is_allowed() -> None:
    assert [quiet(days * DAY) / 3600 for days in (365, 10, 5, 1, 0.1)] == [24, 24, 12, 2.4, 1]


def test_the_state_of_an_older_version_is_read(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path, range(10, 13))
    lake.storage.write("lake/retention.json", b'{"reference": 0.0}')
    with pytest.raises(UnavailableError, match="7 days since the last run, got 12"):
        plan_expiry(lake, DAY, 12 * DAY, uptime=Uptime("boot", 1.0))


def test_the_command_does_not_remove_after_a_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for age in (5, 0):
        log = opened(tmp_path)
        log.offer(record(age, event_time=now - age * DAY))
        assert log.close(5)
        compact(tmp_path, DiskStorage(tmp_path), now)

    def compacted(*options: str) -> object:
        done = CliRunner().invoke(app, ["log", "compact", str(tmp_path), "--keep", "6d", *options])
        return done.exception or done.exit_code

    assert compacted() == 0
    log = opened(tmp_path)
    log.offer(record(9, event_time=now + 3 * DAY))
    assert log.close(5)
    monkeypatch.setattr("time.time", lambda: now + 3 * DAY)
    assert isinstance(compacted(), UnavailableError)
    assert sum(file.rows for entry in Lake(DiskStorage(tmp_path)).entries() for file in entry.files) == 3
    assert compacted("--accept-clock") == 0
    assert sum(file.rows for entry in Lake(DiskStorage(tmp_path)).entries() for file in entry.files) == 2


def test_a_clock_that_goes_back_removes_nothing(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path, range(10, 13))
    assert run(lake, 2 * DAY) == 0
    assert days_left(tmp_path) == [10, 11, 12]


def test_an_expiry_that_died_is_finished_by_the_next(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path, range(10, 20))
    next((tmp_path / "lake").rglob("date=1970-01-11/**/*.parquet")).unlink()
    assert run(lake, 19 * DAY) == 6
    assert days_left(tmp_path) == [16, 17, 18, 19]
