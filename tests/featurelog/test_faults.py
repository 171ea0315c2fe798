"""Kill -9, failing system calls, full and read-only disks, power cuts: nothing acknowledged is lost."""

import errno
import fcntl
import mmap
import os
import random
import select
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlobs.featurelog import keys, spool
from mlobs.featurelog.reader import Chunk
from mlobs.featurelog.spool import seal_stale
from mlobs.featurelog.writer import FeatureLog
from tests.featurelog.helpers import opened, read_all, record, rows
from tests.servers import eventually, lacking

# From Python 3.12 on a fork beside threads warns; these children are meant to be killed.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def numbers(chunk: Chunk) -> list[int]:
    return sorted(int(row["prediction_id"][1:]) for row in rows(chunk))


def write_until_killed(folder: Path, pipe: int, rng: random.Random, options: dict[str, Any]) -> None:
    """The child: offers, flushes, tells what was acknowledged, for ever."""
    log = opened(folder, **options)
    number = 0
    while True:
        batch = rng.randrange(1, 40)
        for each in range(number, number + batch):
            log.offer(record(each))
        number += batch
        if log.flush(5):
            os.write(pipe, b"%d\n" % number)


def killed_at_random(folder: Path, seed: int) -> int:
    """Kill a writer after a random number of acknowledgements and a moment more; what it acknowledged."""
    rng = random.Random(seed)
    options = {
        "durability": rng.choice(["memory", "os", "os", "disk"]),
        "segment_bytes": rng.choice([1, 3000, 1 << 20]),
        "commit_interval": 0.001,
    }
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            write_until_killed(folder, writing, rng, options)
        finally:
            os._exit(1)
    os.close(writing)
    told = b""
    acknowledgements = rng.randrange(0, 12)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while told.count(b"\n") < acknowledgements:
            told += pipe.read(4096)
        select.select([], [], [], rng.random() * 0.004)  # the random moment
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told += pipe.read()
    return int(told.split()[-1]) if told else 0


@pytest.mark.parametrize("rounds", [60, pytest.param(1000, marks=pytest.mark.nightly)])
def test_kill_9_at_a_random_point_loses_nothing_acknowledged(tmp_path: Path, rounds: int) -> None:
    for seed in range(rounds):
        folder = tmp_path / str(seed)
        acknowledged = killed_at_random(folder, seed)
        for attempt in ("before", "after"):
            chunk = read_all(folder)
            found = numbers(chunk)
            assert found[:acknowledged] == list(range(acknowledged)), f"seed {seed}, {attempt} the take-over"
            assert len(found) == len(set(found))
            assert (chunk.stats.unreadable, chunk.stats.duplicates) == (0, 0)
            assert chunk.stats.gaps < 40, "at most what was offered in one commit interval"
            seal_stale(folder)
        assert all(segment.sealed for segment in spool.list_segments(folder))


INTERVAL = 0.2


def offer_until_killed(folder: Path, told: mmap.mmap) -> None:
    """The child: offers about every millisecond, never flushes, and notes when it offered which number."""
    log = opened(folder, commit_interval=INTERVAL)
    for number in range(len(told) // 8):
        log.offer(record(number))
        struct.pack_into("<d", told, 8 * number, time.monotonic())
        select.select([], [], [], 0.001)


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_loses_at_most_what_was_offered_in_one_commit_interval(tmp_path: Path, seed: int) -> None:
    """Without any flush. What is lost is the end of what was offered: no hole, and only what came after the
    last number in the log shows no gap. The thread may be late on a busy machine: a second interval and
    half a second are allowed.
    """
    told = mmap.mmap(-1, 8 * 20_000)
    child = os.fork()
    if child == 0:
        try:
            offer_until_killed(tmp_path, told)
        finally:
            os._exit(1)
    eventually(lambda: struct.unpack_from("<d", told, 8 * (1500 + 170 * seed))[0], "two seconds of offers")
    killed = time.monotonic()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    times = [at for (at,) in struct.iter_unpack("<d", told[:]) if at]
    chunk = read_all(tmp_path)
    found = numbers(chunk)
    assert found == list(range(len(found)))
    lost = len(times) - len(found)
    assert chunk.stats.gaps <= max(lost, 0) + 1  # the last offer may not be noted yet
    if lost > 0:
        assert killed - times[len(found)] <= 2 * INTERVAL + 0.5
    assert chunk.stats.unreadable == 0


CALLS = "open write close fsync fdatasync ftruncate rename link unlink listdir fstat stat fstatvfs flock"


class Failing:
    """A module whose Nth call of a system call fails, once. `calls` counts them."""

    def __init__(self, module: ModuleType, plan: "Plan") -> None:
        self._module, self._plan = module, plan

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name not in CALLS.split():
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._plan.calls += 1
            if self._plan.calls == self._plan.fail_at:
                self._plan.failed = name
                if name == "close":
                    found(*args, **kwargs)  # a close that reports an error has closed
                if name == "write":
                    found(args[0], bytes(args[1])[: len(args[1]) // 2])  # half of it went through
                raise OSError(self._plan.error, os.strerror(self._plan.error))
            return found(*args, **kwargs)

        return call


class Plan:
    def __init__(self, fail_at: int, error: int) -> None:
        self.fail_at, self.error, self.calls, self.failed = fail_at, error, 0, ""


def spool_cycle(folder: Path, durability: str) -> FeatureLog:
    """Open with a stale segment about, write twice, roll, close."""
    log = opened(folder, durability=durability, segment_bytes=500, environ={}, reserve_bytes=1)
    for start in (0, 5):
        for number in range(start, start + 5):
            log.offer(record(number))
        eventually(lambda: log.flush(0.5) or None, "a flush")
    assert eventually(lambda: log.close(1) or None, "a close")
    return log


@pytest.mark.parametrize(
    ("durability", "error"), [("os", errno.ENOSPC), ("disk", errno.EIO), ("disk", errno.EINTR)]
)
def test_whichever_system_call_fails_once_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str, error: int
) -> None:
    fail_at, failed = 0, set()
    while True:
        fail_at += 1
        plan = Plan(fail_at, error)
        with monkeypatch.context() as patch:
            patch.setattr(spool, "os", Failing(os, plan))
            patch.setattr(spool, "fcntl", Failing(fcntl, plan))
            patch.setattr(keys, "os", Failing(os, plan))
            folder = tmp_path / str(fail_at)
            log = spool_cycle(folder, durability)
        if not plan.failed:
            break
        failed.add(plan.failed)
        ledger = log.ledger()
        assert (ledger.balanced, ledger.offered, ledger.delivered) == (True, 10, 10), plan.failed
        chunk = read_all(folder)
        assert numbers(chunk) == list(range(10)), f"call {fail_at}: {plan.failed}"
        assert (chunk.stats.unreadable, chunk.stats.gaps) == (0, 0), f"call {fail_at}: {plan.failed}"
    assert {"open", "write", "rename", "flock", "listdir"} <= failed
    assert fail_at > 15


@contextmanager
def mounted(what: list[str], folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *what, str(folder)], capture_output=True, text=True)
    if done.returncode:
        lacking("mount", f"run as root on Linux ({done.stderr.strip()[:80]})")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts need root")


def test_a_full_disk_is_survived_in_cycles_and_writing_goes_on_by_itself(tmp_path: Path) -> None:
    as_root()
    mount = tmp_path / "small"
    with mounted(["-t", "tmpfs", "-o", "size=512k", "tmpfs"], mount):
        log = opened(mount / "log", max_records=2000, segment_bytes=20_000)
        offered = 0
        for _cycle in range(3):
            ballast = mount / "ballast"
            with ballast.open("wb") as handle:
                fill(handle.fileno())
            for number in range(offered, offered + 300):
                log.offer(record(number, {"text": "x" * 500}))
            offered += 300
            eventually(lambda: log.ledger().retried or None, "a failed write")
            assert not log.flush(0.05)
            assert log.ledger().balanced
            ballast.unlink()
            assert log.flush(5)
        assert log.ledger().delivered == offered
        assert log.close(5)
        chunk = read_all(mount / "log")
        assert numbers(chunk) == list(range(offered))
        assert (chunk.stats.unreadable, chunk.stats.gaps, chunk.stats.duplicates) == (0, 0, 0)


def fill(handle: int) -> None:
    while True:
        try:
            os.write(handle, b"\0" * 4096)
        except OSError:  # full
            return


def test_a_disk_that_turns_read_only_is_waited_for(tmp_path: Path) -> None:
    as_root()
    mount = tmp_path / "ro"
    with mounted(["-t", "tmpfs", "tmpfs"], mount):
        log = opened(mount / "log", segment_bytes=1)
        log.offer(record(0))
        assert log.flush(5)
        read_only = ["mount", "-o", "remount,ro", str(mount)]
        # Busy until the segment is sealed and closed.
        eventually(lambda: subprocess.run(read_only, capture_output=True).returncode == 0, "a remount")
        log.offer(record(1))
        eventually(lambda: log.ledger().retried or None, "a failed write")
        subprocess.run(["mount", "-o", "remount,rw", str(mount)], check=True)
        assert log.flush(5)
        assert log.close(5)
        assert numbers(read_all(mount / "log")) == [0, 1]


SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
NO_LOG_FLUSH = b"\x02\0\0\0"


@pytest.mark.parametrize("rounds", [3, pytest.param(40, marks=pytest.mark.nightly)])
def test_a_power_cut_loses_nothing_acknowledged_at_disk_level(tmp_path: Path, rounds: int) -> None:
    as_root()
    mount, image = tmp_path / "mount", tmp_path / "image"
    for seed in range(rounds):
        with image.open("wb") as handle:
            handle.truncate(32 << 20)
        if subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], capture_output=True).returncode:
            lacking("mkfs.ext4", "apt install e2fsprogs")
        with mounted(["-o", "loop", str(image)], mount):
            acknowledged = cut_power(mount, random.Random(seed))
        with mounted(["-o", "loop", str(image)], mount):
            chunk = read_all(mount / "log")
            assert numbers(chunk)[:acknowledged] == list(range(acknowledged)), f"seed {seed}"
            assert acknowledged > 0
            assert (chunk.stats.unreadable, chunk.stats.duplicates) == (0, 0)
            log = opened(mount / "log", durability="disk")
            log.offer(record(10**6))
            assert log.flush(5), "and the log goes on"
            log.close(5)


def cut_power(mount: Path, rng: random.Random) -> int:
    """Write at `disk`, then shut the file system down with nothing flushed; what was acknowledged."""
    log = opened(mount / "log", durability="disk", segment_bytes=rng.choice([1, 4000, 1 << 20]))
    acknowledged = 0
    for _ in range(rng.randrange(3, 12)):
        for number in range(acknowledged, acknowledged + 20):
            log.offer(record(number))
        assert log.flush(5)
        acknowledged += 20
    for number in range(acknowledged, acknowledged + 20):
        log.offer(record(number))
    handle = os.open(mount, os.O_RDONLY)
    fcntl.ioctl(handle, SHUTDOWN, NO_LOG_FLUSH)
    os.close(handle)
    assert not log.close(0.2)
    return acknowledged
