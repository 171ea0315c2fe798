"""Canaries in `mlobs serve` with the feature log: what the rows of two versions say beside their counters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from mlobs.config import parse_settings
from mlobs.drift.loop import DriftStage
from mlobs.drift.mlref import save_reference
from mlobs.drift.reference import build_reference
from mlobs.featurelog.reader import reader_of
from mlobs.records import FeatureRecord
from mlobs.service import canaries
from mlobs.service.canaries import Canaries
from mlobs.service.canary_log import LogSource
from mlobs.service.serve import SCHEMAS
from mlobs.slo.canary import METRICS
from mlobs.store import open_store
from tests.featurelog.helpers import opened
from tests.slo.test_canary_feed import exposed

START = 1_700_000_000.0
SETTINGS = """
service: fraud-api
clock: driven
sample: 0.1
feature_log: ./featurelog
targets: ["http://a/metrics"]
models: [{name: fraud, reference: fraud.mlref, features: {amount: {type: number}}}]
slo: {canaries: [{name: trial, model: fraud, baseline: v1, candidate: v2}]}
"""
PER_BLOCK = 100
"""Drawn rows of an arm in ten seconds: a tenth of its 1,000 requests."""


@dataclass(frozen=True)
class Arm:
    """What is wrong with a version."""

    shift: float = 0.0
    """Of the scores."""
    bad: float = 0.0
    """Share of rows without an amount."""
    flips: float = 0.0
    rows: int = PER_BLOCK
    shadow: bool = False
    """It answers the requests of the other version too, under their ids."""


def record(version: str, ident: str, at: float, score: float, **fields: Any) -> FeatureRecord:
    amount = fields.pop("amount", 10.0)
    decision = fields.pop("decision", "deny" if score > 0.9 else "pass")
    return FeatureRecord(
        "", ident, at, "fraud-api", "fraud", version, {"amount": amount, "country": "DE"}, score, decision,
        "ok", 0.01, {}, **{"sampling_reason": "rate", "weight": 10.0, **fields},
    )  # fmt: skip


class World:
    """Two versions behind /metrics that never fail, and a feature log of what they answered."""

    def __init__(self, folder: Path, settings: str = SETTINGS) -> None:
        self.now = START
        self.folder = folder
        self.rng = np.random.default_rng(1)
        self.log = opened(folder / "featurelog", clock=lambda: self.now)
        rng = np.random.default_rng(2)
        reference = pa.table({"amount": rng.uniform(0, 100, 5000), "country": ["DE", "FR"] * 2500})
        save_reference(build_reference(reference, "fraud"), folder / "fraud.mlref")
        self.store = open_store(f"sqlite:///{folder}/mlobs.db", SCHEMAS)
        self.begin(settings)

    def begin(self, settings: str = SETTINGS, log: LogSource | None = None) -> None:
        """As a server that is started (anew) with these settings, wired as `serve` does it."""
        made = parse_settings(settings, self.folder)
        registry = CollectorRegistry()
        drift = DriftStage(made, self.store, registry)
        self.canaries = Canaries(
            made, self.store, self.fetch, registry, lambda _url, _body: None, log or reader_of(made),
            drift.spec_of,
        )  # fmt: skip
        self.canaries.tick(self.now)

    def fetch(self, _url: str) -> bytes:
        count = int(self.now - START) * 100
        text = exposed({"v1": (count, 0), "v2": (count, 0)})
        return text.replace(f'le="0.1"}} {count - 1}', f'le="0.1"}} {count * 9 // 10}').encode()

    def block(self, candidate: Arm, baseline: Arm, at: float) -> list[FeatureRecord]:
        found, place = [], int(at - START)
        for version, arm in (("v2", candidate), ("v1", baseline)):
            scores = np.clip(self.rng.beta(2, 5, arm.rows) + arm.shift, 0, 1)
            for number, score in enumerate(scores.tolist()):
                bad, flips = self.rng.random(2)
                ident = f"{'' if arm.shadow else version}-{place}-{number}"
                word = "deny" if flips < arm.flips else "pass"
                amount = None if bad < arm.bad else 10.0
                found.append(record(version, ident, at + number * 0.09, score, decision=word, amount=amount))
        return found

    def run(self, blocks: int, candidate: Arm = Arm(), baseline: Arm = Arm()) -> dict[str, Any]:
        for _ in range(blocks):
            self.write(self.block(candidate, baseline, self.now))
            self.now += 10
            self.canaries.tick(self.now)
        return self.found()

    def write(self, records: Sequence[FeatureRecord]) -> None:
        for one in records:
            self.log.offer(one)
        assert self.log.flush(60)

    def found(self) -> dict[str, Any]:
        shown = self.canaries.show("trial")
        assert shown is not None
        json.dumps(shown, allow_nan=False)
        return shown

    def close(self) -> None:
        self.canaries.stop()
        self.log.close(60)
        self.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_a_harmless_shadow_is_promoted_when_all_six_metrics_were_compared(world: World) -> None:
    found = world.run(35, Arm(shadow=True), Arm(shadow=True))
    assert found["verdict"] == "promote", found["reason"]
    assert [one["metric"] for one in found["evidence"]] == list(METRICS)
    assert found["not_compared"] == {}
    rows = 35 * PER_BLOCK
    assert found["feature_log"] == {"rows": {"candidate": rows, "baseline": rows}, "late": 0, "pairs": rows}


@pytest.mark.parametrize(
    ("candidate", "verdict", "said"),
    [
        (Arm(bad=0.2), "rollback", "quality: "),
        (Arm(flips=0.15, shadow=True), "rollback", "flips: "),
        (Arm(shift=0.3), "hold", "for a person to look at: score: "),
    ],
    ids=["rows that fail the drift checks", "decisions that flip", "other scores"],
)
def test_what_only_the_rows_tell_is_found_in_the_log(
    world: World, candidate: Arm, verdict: str, said: str
) -> None:
    found = world.run(32, candidate, Arm(bad=0.01, shadow=candidate.shadow))
    assert (found["verdict"], found["reason"].startswith(said)) == (verdict, True), found["reason"]


def test_calls_that_are_always_kept_count_as_little_as_they_weigh(world: World) -> None:
    """Slow calls of the candidate fill the log with bad rows; of all its requests they are one in a hundred,
    as of the baseline's."""
    for _ in range(32):
        slow = [
            record(
                "v2", f"s{world.now}{number}", world.now, 0.3, amount=None, weight=1.0, sampling_reason="slow"
            )
            for number in range(10)
        ]
        world.write(slow)
        found = world.run(1, Arm(), Arm(bad=0.01))
    assert found["verdict"] != "rollback"
    quality = next(one for one in found["evidence"] if one["metric"] == "quality")
    assert 0 < quality["candidate"] < 0.03


def test_a_server_that_is_started_anew_counts_every_row_once(world: World, tmp_path: Path) -> None:
    """Beside one that never stopped, on the same log and counters."""
    other = open_store(f"sqlite:///{tmp_path}/other.db", SCHEMAS)
    made = parse_settings(SETTINGS, tmp_path)
    steady = Canaries(
        made, other, world.fetch, CollectorRegistry(), lambda _url, _body: None, reader_of(made),
        DriftStage(made, other, CollectorRegistry()).spec_of,
    )  # fmt: skip
    steady.tick(world.now)
    for place in range(24):
        world.run(1, Arm(bad=0.03), Arm(bad=0.01))
        steady.tick(world.now)
        if place % 5 == 2:
            world.write(world.block(Arm(rows=50), Arm(rows=50), world.now))  # of a block that is still open
            world.now += 5
            world.canaries._seen = None
            world.canaries.tick(world.now)
            steady._seen = None
            steady.tick(world.now)
            world.begin()
    mine, whole = world.found(), steady.show("trial")
    steady.stop()
    other.close()
    assert whole is not None
    of_rows = [
        [one for one in each["evidence"] if one["metric"] in ("score", "quality")] for each in (mine, whole)
    ]
    assert of_rows[0] == of_rows[1]
    assert len(of_rows[0]) == 2
    assert mine["feature_log"] == whole["feature_log"]
    assert mine["feature_log"]["late"] == 0


def test_rows_that_come_after_their_block_was_closed_are_told_and_not_counted(world: World) -> None:
    before = world.run(12)
    world.write([record("v2", f"late{number}", START + 10, 0.3, amount=None) for number in range(50)])
    world.now += 10
    world.canaries.tick(world.now)
    after = world.found()
    assert (after["feature_log"]["late"], before["feature_log"]["late"]) == (50, 0)
    assert after["feature_log"]["rows"] == before["feature_log"]["rows"]


def test_a_log_that_falls_silent_while_requests_go_on_is_hold_and_said(world: World) -> None:
    assert world.run(35)["verdict"] == "promote"
    assert world.run(2, Arm(rows=0), Arm())["verdict"] == "promote"
    found = world.run(4, Arm(rows=0), Arm())
    assert found["verdict"] == "hold"
    assert "rows of the candidate were due in the feature log, and none came" in found["reason"]
    assert world.run(2)["verdict"] == "promote"


def test_a_log_that_cannot_be_read_is_named_and_held_for_and_nothing_of_it_is_lost(world: World) -> None:
    class Broken:
        def poll(self, cursor: bytes | None = None, limit: int = 0) -> Any:
            raise OSError("secret.example refused")

    world.run(35)
    world.begin(log=Broken())
    found = world.run(8)
    assert found["verdict"] == "hold"
    assert found["problems"] == {"feature log": "cannot be read: OSError"}
    world.begin()
    found = world.run(2)
    assert (found["verdict"], found["feature_log"]["rows"]["candidate"]) == ("promote", 45 * PER_BLOCK)


def test_a_server_that_ends_amid_a_backlog_closes_no_block_of_it(world: World, tmp_path: Path) -> None:
    whole = reader_of(parse_settings(SETTINGS, tmp_path))
    assert whole is not None

    class Ended:
        def poll(self, cursor: bytes | None = None, limit: int = 0) -> Any:
            chunk = whole.poll(cursor, limit=PER_BLOCK // 2)
            if chunk.records:
                world.canaries._stop.set()
            return chunk

    world.begin(log=Ended())
    world.run(1)
    assert world.canaries._stop.is_set()
    world.canaries.stop()
    world.begin()
    found = world.run(2)["feature_log"]
    assert found == {"rows": dict.fromkeys(("candidate", "baseline"), 3 * PER_BLOCK), "late": 0, "pairs": 0}


def test_rows_that_cannot_be_counted_are_named_and_hide_no_counter(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.run(35)["verdict"] == "promote"

    def broken(*_: Any) -> Any:
        raise KeyError("secret.example")

    with monkeypatch.context() as patch:
        patch.setattr(canaries, "rows_of", broken)
        found = world.run(8)
    assert (found["at"], found["blocks"], found["verdict"]) == (world.now, 43, "hold")
    assert found["problems"] == {"feature log": "its rows cannot be counted: KeyError"}
    found = world.run(2)
    assert (found["verdict"], found["problems"]) == ("promote", {})


@pytest.mark.parametrize(
    ("settings", "lacking"),
    [
        (SETTINGS.replace("feature_log: ./featurelog\n", ""), {"score": "no `feature_log` in the settings"}),
        (SETTINGS.replace("sample: 0.1", "sample: 0"), {"flips": "no call is drawn for the feature log"}),
        (
            SETTINGS.replace("reference: fraud.mlref, ", ""),
            {"quality": "no reference of version v2 and v1 says which rows are bad"},
        ),
    ],
    ids=["no log", "nothing drawn", "no reference"],
)
def test_what_cannot_be_compared_is_said_and_does_not_hold_up_the_rest(
    world: World, settings: str, lacking: dict[str, str]
) -> None:
    world.begin(settings)
    rows = 0 if "sample: 0\n" in settings else PER_BLOCK
    found = world.run(35, Arm(rows=rows), Arm(rows=rows))
    assert found["verdict"] == "promote", found["reason"]
    for metric, why in lacking.items():
        assert found["not_compared"][metric].startswith(why)
        assert f"not compared: {', '.join(found['not_compared'])}" in found["reason"]


def test_without_rows_yet_nothing_is_promoted(world: World) -> None:
    found = world.run(35, Arm(rows=0), Arm(rows=0))
    assert (found["verdict"], "feature log" in found["reason"]) == ("hold", True)


# --- the whole way, by simulation -------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    records: dict[str, pa.Table]
    cursor: bytes
    more: bool = False


class Drawn:
    """A log that samples a tenth of what four pods an arm answer, and keeps all that is slow or near the
    threshold: there half of the shadow's decisions flip, and there rows are bad. Both arms are alike."""

    REQUESTS = 1000
    RATE = 0.1

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.pods = np.exp(0.05 * self.rng.standard_normal((2, 4)))
        self.now = START
        self.step = 0

    def poll(self, cursor: bytes | None = None, limit: int = 0) -> Chunk:
        self.step += 1
        heat = float(np.exp(0.1 * self.rng.standard_normal()))
        near, drawn = self.rng.random((2, self.REQUESTS)) < [[0.02], [self.RATE]]
        parts = [self._arm(arm, heat, near, drawn) for arm in (0, 1)]
        return Chunk({"fraud": pa.concat_tables(parts)}, b"")

    def _arm(
        self, arm: int, heat: float, near: npt.NDArray[np.bool_], drawn: npt.NDArray[np.bool_]
    ) -> pa.Table:
        rng, size = self.rng, self.REQUESTS
        pod = self.pods[arm][rng.integers(0, 4, size)]
        slow = rng.random(size) < 0.02 * heat * pod
        kept = np.flatnonzero(near | slow | drawn)
        always = (near | slow)[kept]
        bad = rng.random(size) < np.where(slow, 0.2, 0.003) * pod
        deny = near & (rng.random(size) < 0.5)
        return pa.table(
            {
                "prediction_id": [f"{self.step}-{number}" for number in kept],
                "event_time": self.now - 10 + 10 * kept / size,
                "model_version": pa.array(["v2" if arm == 0 else "v1"] * len(kept)),
                "prediction": np.clip(rng.beta(2, 5, size)[kept] * pod[kept] ** 0.2, 0, 1),
                "decision": np.where(deny, "deny", "pass")[kept],
                "outcome": pa.array(["ok"] * len(kept)),
                "sampling_reason": np.where(always, "slow", "rate"),
                "weight": np.where(always, 1.0, 1 / self.RATE),
                "features": pa.StructArray.from_arrays(
                    [
                        pa.array(np.where(bad[kept], 1e6, 10.0)),
                        pa.DictionaryArray.from_arrays(np.zeros(len(kept), np.int32), ["DE"]),
                    ],
                    ["amount", "country"],
                ),
            }
        )


def rolled_back(world: World, seed: int, blocks: int) -> tuple[bool, set[str]]:
    log = Drawn(seed)
    world.now = log.now
    world.begin("service: none\n")  # forgets the canary before
    world.begin(log=log)
    for _ in range(blocks):
        world.now = log.now = world.now + 10
        world.canaries.tick(world.now)
    found = world.found()
    return found["verdict"] == "rollback", {one["metric"] for one in found["evidence"]}


def test_a_log_of_what_is_slow_or_near_the_threshold_rolls_nothing_back_that_is_alike(world: World) -> None:
    found, compared = rolled_back(world, 1, 40)
    assert not found
    assert compared == set(METRICS)


@pytest.mark.nightly
def test_the_whole_simulation_of_harmless_candidates_with_a_log(world: World) -> None:
    """40 canaries of half an hour. At a rate of 1 % four or more have a probability of 0.07 %."""
    assert sum(rolled_back(world, seed, 180)[0] for seed in range(40)) <= 3
