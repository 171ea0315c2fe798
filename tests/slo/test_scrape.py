"""Targets come and go: static, from files, from DNS; replicas restart, vanish and return."""

from __future__ import annotations

import dataclasses
import json
import threading
from contextlib import closing
from pathlib import Path

import pytest

from mlobs.settings import Settings
from mlobs.slo import read
from mlobs.slo.engine import SloEngine
from mlobs.slo.schema import SCHEMA
from mlobs.slo.scrape import Scraper, file_sd
from mlobs.store import open_store
from tests.slo.world import START, Service, objective, settings


def nothing(url: str) -> str:
    return ""


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_file_of_targets_is_read_at_every_scrape(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"targets{suffix}"
    path.write_text(json.dumps([{"targets": ["a:1", "b:1"], "labels": {"__metrics_path__": "/m"}}]))
    scraper = Scraper([path.name, "http://c/metrics"], nothing, base=str(tmp_path))
    assert scraper.urls() == ["http://a:1/m", "http://b:1/m", "http://c/metrics"]
    path.write_text(json.dumps([{"targets": ["b:1"], "labels": {"__scheme__": "https"}}]))
    assert scraper.urls() == ["https://b:1/metrics", "http://c/metrics"]


@pytest.mark.parametrize("broken", ["[{", '{"targets": 1}', '[{"labels": {}}]', "[1]", ""])
def test_a_broken_file_leaves_the_last_known_targets_and_says_so(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "targets.json"
    path.write_text('[{"targets": ["a:1"]}]')
    scraper = Scraper([f"file://{path}"], nothing)
    assert scraper.urls() == ["http://a:1/metrics"]
    path.write_text(broken)
    assert scraper.urls() == ["http://a:1/metrics"]
    assert f"file://{path}" in scraper.problems
    path.unlink()
    assert scraper.urls() == ["http://a:1/metrics"]


def test_a_name_in_dns_becomes_a_target_for_each_address() -> None:
    answers = [["10.0.0.2", "10.0.0.1"], ["fd00::1"], OSError("no such host")]

    def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("pods.fraud", 8000)
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    scraper = Scraper(["dns+http://pods.fraud:8000/metrics"], nothing, resolve=resolve)
    assert scraper.urls() == ["http://10.0.0.1:8000/metrics", "http://10.0.0.2:8000/metrics"]
    assert scraper.urls() == ["http://[fd00::1]:8000/metrics"]
    assert scraper.urls() == ["http://[fd00::1]:8000/metrics"]
    assert "no such host" in next(iter(scraper.problems.values()))


def test_dead_targets_wait_side_by_side() -> None:
    meeting = threading.Barrier(4, timeout=10)

    def fetch(url: str) -> str:
        meeting.wait()  # passes only if all four are fetched at once
        raise TimeoutError(url)

    scraper = Scraper([f"http://t{n}" for n in range(4)], fetch)
    assert all(isinstance(found, TimeoutError) for _, found in scraper.fetch_all(scraper.urls()))
    scraper.close()


def test_what_is_no_target_list_is_refused() -> None:
    with pytest.raises(ValueError, match="no list"):
        file_sd("{}", "x.json")


class Replicas:
    """An engine over several replicas of one service, listed in a file."""

    def __init__(self, folder: Path, count: int) -> None:
        self.file = folder / "targets.json"
        self.services = {f"http://r{n}:1/metrics": Service() for n in range(count)}
        self.list(range(count))
        config = dataclasses.replace(settings(objective("up", "availability")), targets=(str(self.file),))
        self.engine = SloEngine(config, open_store("sqlite://", [SCHEMA]), None, self.fetch)

    def list(self, numbers: object) -> None:
        self.file.write_text(json.dumps([{"targets": [f"r{n}:1" for n in numbers]}]))  # type: ignore[attr-defined]

    def fetch(self, url: str) -> str:
        if self.services[url].down:
            raise ConnectionError("refused")
        return self.services[url].text()

    def run(self, ok: int) -> None:
        for service in self.services.values():
            service.run(ok=ok)

    @property
    def total(self) -> float:
        return self.engine.statuses[0].total


def test_a_vanished_replica_is_no_absence_while_others_answer(tmp_path: Path) -> None:
    world = Replicas(tmp_path, 3)
    world.engine.tick(START)
    world.services["http://r0:1/metrics"].down = True
    alerts = []
    for n in range(1, 61):
        world.run(10)
        alerts += world.engine.tick(START + 30 * n)
    assert not alerts
    assert world.total == 2 * 600
    assert [t.up for t in read.targets(world.engine._store)] == [False, True, True]


def test_a_rollout_that_replaces_every_replica_loses_and_invents_nothing(tmp_path: Path) -> None:
    world = Replicas(tmp_path, 2)
    world.engine.tick(START)
    world.run(100)
    world.engine.tick(START + 30)
    for n in (2, 3):
        world.services[f"http://r{n}:1/metrics"] = Service(started=START + 40)
    world.list([2, 3])
    world.run(50)  # the old ones' last 50 are seen by nobody
    world.engine.tick(START + 60)
    assert world.total == 200 + 100
    world.list([0, 1, 2, 3])  # the old ones are listed again: they never restarted
    world.engine.tick(START + 90)
    assert world.total == 200 + 100 + 100


def test_an_old_process_that_is_listed_late_brings_none_of_its_past(tmp_path: Path) -> None:
    world = Replicas(tmp_path, 1)
    world.engine.tick(START)
    world.services["http://r1:1/metrics"] = old = Service(started=START + 10)
    old.run(ok=1, error=1_000_000)
    world.list([0, 1])
    assert not world.engine.tick(START + 3600)
    assert world.total == 0


def test_the_engine_runs_on_postgres(postgres_url: str) -> None:
    service = Service()
    config: Settings = settings(objective("up", "availability"), objective("p", "p99", "0.99"))
    with closing(open_store(postgres_url, [SCHEMA])) as store:
        engine = SloEngine(config, store, None, lambda url: service.text())
        for n in range(20):
            service.run(ok=100, error=50)
            alerts = engine.tick(START + 60 * n)
        found = {status.name: status.total for status in read.statuses(store)}
    assert "page" in {alert.severity for alert in alerts}
    assert found == {"up": 20 * 150, "p": 19}
