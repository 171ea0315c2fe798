"""What goes wrong around the engine: no bucket, no disk, no time, no process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mlobs.slo import read
from mlobs.slo.history import unpack
from mlobs.store import open_store
from tests.servers import eventually
from tests.slo.test_engine import outage, steady
from tests.slo.test_sli import Extra
from tests.slo.world import START, World, file_store, objective, settings

HOUR = 3600.0


def test_a_threshold_without_a_bucket_edge_is_unknown_and_not_slow() -> None:
    world = World(settings(objective("fast", "latency", "0.99"), objective("p99", "p99", "0.99")))
    text = world.service.text
    world.service.text = lambda: text().replace('le="0.1"', 'le="0.25"')  # type: ignore[method-assign]
    world.run(START, START + HOUR, 30, steady)
    for name in ("fast", "p99"):
        assert world.status(name).bad == 0
        assert world.status(name).state == "absent"
    assert {alert.kind for _, alert in world.log} == {"absent"}
    assert "no bucket edge at the threshold of fast, p99" in world.log[-1][1].summary


def test_a_replica_without_the_edge_does_not_spoil_those_that_have_it() -> None:
    world = Extra(settings(objective("fast", "latency", "0.99")))
    world.tick(START)
    world.service.run(ok=100, slow=10)
    world.tick(START + 60)
    assert (world.status("fast").bad, world.status("fast").total) == (10, 100)


def test_a_disk_that_takes_no_more_pages_and_loses_no_count(tmp_path: Path) -> None:
    world = World(settings(objective("up", "availability")), file_store(tmp_path / "a.db"))
    world.run(START, START + HOUR, 30, steady)
    commit, world.engine._commit = world.engine._commit, full  # type: ignore[method-assign]
    world.service.run(ok=1000)
    alerts = world.tick(START + HOUR + 30)
    assert [(alert.kind, alert.cause, alert.severity) for alert in alerts] == [("meta", "store", "page")]
    assert "database or disk is full" in alerts[0].summary
    world.engine._commit = commit  # type: ignore[method-assign]
    [ended] = world.tick(START + HOUR + 60)
    assert not ended.firing
    assert world.status("up").total == 10 * HOUR + 1000
    again = World(settings(objective("up", "availability")), file_store(tmp_path / "a.db"))
    again.service = world.service
    again.tick(START + HOUR + 90)
    assert again.status("up").total == 10 * HOUR + 1000


def full(*_: object) -> None:
    from sqlalchemy.exc import OperationalError

    raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))


def test_accounts_that_were_born_while_the_disk_was_full_are_kept_later(tmp_path: Path) -> None:
    world = World(settings(objective("up", "availability")), file_store(tmp_path / "a.db"))
    commit, world.engine._commit = world.engine._commit, full  # type: ignore[method-assign]
    world.tick(START)
    world.engine._commit = commit  # type: ignore[method-assign]
    world.service.run(ok=50)
    world.tick(START + 30)
    again = World(settings(objective("up", "availability")), file_store(tmp_path / "a.db"))
    again.service = world.service
    again.service.run(ok=50)
    again.tick(START + 60)
    assert again.status("up").total == 100


def test_a_long_silence_is_crossed_at_once_and_its_requests_fall_into_one_slice() -> None:
    world = World(settings(objective("p99", "p99", "0.99")))
    world.run(START, START + HOUR, 60, steady)
    world.service.run(ok=1000, slow=1000)
    world.tick(START + 200 * 86400.0)
    assert world.status("p99").total <= 2
    world.run(START + 200 * 86400.0, START + 200 * 86400.0 + 600, 60, steady)
    assert world.status("p99").total <= 12


def test_what_fired_before_a_failure_of_the_store_fires_on() -> None:
    world = World(settings(objective("up", "availability")))
    world.run(START, START + HOUR, 60, steady)
    world.run(START + HOUR, START + HOUR + 600, 30, outage)
    world.engine._commit = full  # type: ignore[method-assign]
    kinds = {alert.kind for alert in world.tick(START + HOUR + 630) if alert.firing}
    assert kinds == {"burn", "meta"}


CHILD = """
    import sys
    from tests.slo.world import START, World, file_store, objective, settings
    world = World(settings(objective("up", "availability")), file_store(sys.argv[1]))
    n = 0
    while True:
        n += 1
        world.service.run(ok=7)
        world.tick(START + 30 * n)
        print(n, flush=True)
"""


@pytest.mark.parametrize("after", [3, 10, 25])
def test_a_kill_at_any_moment_leaves_the_last_whole_tick(tmp_path: Path, after: int) -> None:
    out = tmp_path / "out"
    with out.open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "a.db")],
            stdout=log,
            cwd=Path(__file__).parents[2],
        )
    try:
        eventually(lambda: len(out.read_text().split()) >= after, "ticks")
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    said = int(out.read_text().split()[-1])
    rows = (
        sqlite3.connect(tmp_path / "a.db").execute("select at, body from slo_sample order by at").fetchall()
    )
    ticks = len(rows)
    assert ticks >= said
    assert unpack(rows[-1][1])[0, 1] == 7 * ticks  # every count of every tick, and none twice
    from mlobs.slo.schema import SCHEMA

    store = open_store(f"sqlite:///{tmp_path / 'a.db'}", [SCHEMA])
    assert read.statuses(store)[0].total in (7 * ticks, 7 * (ticks - 1))
    store.close()
