"""Sampling by entity: all of an entity or nothing of it, in every process, and statistics stay unbiased."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import mlobs
from mlobs.config import parse_settings
from mlobs.sdk import sampling
from mlobs.sdk.sampling import crc_limit, kept_by_id
from mlobs.settings import ModelSettings, Settings
from mlobs.testing import capture

RATE = 0.3
BY_ENTITY = Settings(service="test", sample=RATE, sample_by="entity")


@mlobs.observe(model="plain", entity="who", prediction_id="id")
def plain(request: dict[str, Any]) -> str:
    return "ok"


@mlobs.observe(model="asked", entity="who", prediction_id="id")
def asked(request: dict[str, Any]) -> str:
    assert mlobs.current().prediction_id == request["id"]
    return "ok"


@mlobs.observe(model="async", entity="who")
async def coroutine(request: dict[str, Any]) -> str:
    return "ok"


@mlobs.observe(model="generator", entity="who", prediction_id="id")
def generator(request: dict[str, Any]) -> Iterator[str]:
    yield "ok"


@mlobs.observe(model="batch", batch="rows", entity="who", prediction_id="id")
def batch(rows: list[dict[str, Any]]) -> list[str]:
    return ["ok"] * len(rows)


CALLERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": plain,
    "asked": asked,
    "async": lambda request: asyncio.run(coroutine(request)),
    "generator": lambda request: list(generator(request)),
    "batch": lambda request: batch([request, {**request, "id": request["id"] + "b"}]),
}


def requests(entities: int = 40, calls: int = 5) -> list[dict[str, Any]]:
    return [
        {"id": f"p{call}-{entity}", "who": f"customer {entity}"}
        for call in range(calls)
        for entity in range(entities)
    ]


@pytest.mark.parametrize("kind", CALLERS)
def test_all_of_an_entity_is_kept_or_nothing(kind: str) -> None:
    with capture(BY_ENTITY) as seen:
        for request in requests():
            CALLERS[kind](request)
    kept = {record.entity_key for record in seen.records}
    expected = {f"customer {n}" for n in range(40) if kept_by_id(f"customer {n}", crc_limit(RATE))}
    assert kept == expected
    assert len(seen.records) == len(kept) * (10 if kind == "batch" else 5)
    assert {record.sampling_reason for record in seen.records} == {"entity"}
    assert {record.weight for record in seen.records} == {1 / RATE}
    if kind != "async":
        assert all(record.prediction_id.startswith("p") for record in seen.records)


def test_an_entity_that_is_a_number_is_taken_as_its_text() -> None:
    with capture(BY_ENTITY) as seen:
        for number in range(100):
            plain({"id": f"p{number}", "who": number})
            plain({"id": f"q{number}", "who": str(number)})
    ids = {record.prediction_id for record in seen.records}
    assert {ident[1:] for ident in ids if ident[0] == "p"} == {ident[1:] for ident in ids if ident[0] == "q"}
    assert 10 < len(ids) / 2 < 60


@pytest.mark.parametrize("kind", ["plain", "generator", "batch"])
def test_a_call_without_an_entity_is_drawn_by_its_prediction(kind: str) -> None:
    with capture(BY_ENTITY) as seen:
        for number in range(200):
            CALLERS[kind]({"id": f"p{number}", "who": None})
    assert {record.sampling_reason for record in seen.records} == {"rate"}
    assert {record.prediction_id for record in seen.records if not record.prediction_id.endswith("b")} == {
        f"p{number}" for number in range(200) if kept_by_id(f"p{number}", crc_limit(RATE))
    }


def test_rows_of_a_batch_without_any_id_are_drawn_each() -> None:
    with capture(Settings(service="test", sample=0.5)) as seen:
        batch([{"id": None, "who": "x"} for _ in range(400)])
    assert 120 < len(seen.records) < 280


def test_an_error_has_weight_1_whoever_it_is_of() -> None:
    @mlobs.observe(model="fails", entity="who")
    def fails(request: dict[str, Any]) -> str:
        raise ValueError("no")

    with capture(BY_ENTITY) as seen:
        for request in requests(20, 1):
            with pytest.raises(ValueError, match="no"):
                fails(request)
    assert [(record.sampling_reason, record.weight) for record in seen.records] == [("error", 1.0)] * 20


def test_rate_and_unit_may_differ_by_model() -> None:
    settings = Settings(
        service="test",
        sample=1.0,
        models=(ModelSettings("plain", sample=RATE, sample_by="entity"), ModelSettings("batch", sample=0.0)),
    )
    with capture(settings) as seen:
        for request in requests(40, 1):
            for kind in ("plain", "generator", "batch"):
                CALLERS[kind](request)
    reasons = {(record.model, record.sampling_reason) for record in seen.records}
    assert reasons == {("plain", "entity"), ("generator", "rate")}
    assert sum(record.model == "generator" for record in seen.records) == 40


def test_a_function_that_names_no_entity_says_so_and_is_sampled_by_prediction(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @mlobs.observe(model="anonymous", prediction_id="id")
    def anonymous(request: dict[str, Any]) -> str:
        return "ok"

    sampling.say_that_no_entity_is_named.cache_clear()
    with caplog.at_level(logging.WARNING), capture(BY_ENTITY) as seen:
        for request in requests(40, 5):
            anonymous(request)
    assert "names no entity=" in caplog.text
    assert {record.sampling_reason for record in seen.records} == {"rate"}


_ELSEWHERE = """
import json, mlobs
from mlobs.settings import Settings
from mlobs.testing import capture
@mlobs.observe(model="there", entity="who")
def there(request): return 1
with capture(Settings(service="test", sample=0.3, sample_by="entity")) as seen:
    for number in range(200): there({"who": f"customer {number}"})
print(json.dumps(sorted({record.entity_key for record in seen.records})))
"""


def test_another_process_keeps_the_same_entities() -> None:
    ids = [f"customer {n}" for n in range(200)]
    here = sorted(each for each in ids if zlib.crc32(each.encode()) * 2654435761 % 2**32 < round(0.3 * 2**32))
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == here


def test_the_file_says_by_what() -> None:
    text = "service: s\nsample_by: entity\nmodels: [{name: m, sample_by: prediction}]\n"
    settings = parse_settings(text, ".")
    assert (settings.sample_by, settings.model("m").sample_by) == ("entity", "prediction")


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.05, 0.01])
def test_ids_in_a_row_are_drawn_as_if_by_chance(rate: float) -> None:
    """Counts of 4,000 ids in a row, and those of even and odd ones, spread as a binomial's do, 100 times.

    CRC-32 alone keeps exactly half of them at 50 %, and at 10 % prefers even or odd by 4 standard errors.
    """
    counts, sides = [], []
    for series in range(100):
        kept = np.array([kept_by_id(f"order-{series:03d}-{n:05d}", crc_limit(rate)) for n in range(4000)])
        spread = np.sqrt(rate * (1 - rate) * 4000)
        counts.append((kept.sum() - 4000 * rate) / spread)
        sides.append((kept[::2].sum() - kept[1::2].sum()) / spread)
    assert np.std(counts) == pytest.approx(1, abs=0.3)
    assert np.std(sides) == pytest.approx(1, abs=0.3)


DRAWS = 300


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 0.9, 1.0])
def test_weighted_statistics_are_unbiased_at_every_rate_and_spread_by_the_design_effect(rate: float) -> None:
    """Count and sum of 2,000 calls of 400 entities of very different size, estimated 300 times (other ids).

    The mean of the estimates meets the truth within 4.5 of its standard errors; their variance is that of the
    clustered design within 40 %, which is many times that of independent calls.
    """
    rng = np.random.default_rng(int(rate * 100))
    sizes = rng.geometric(1 / 5, 400)
    entity = np.repeat(np.arange(400), sizes)
    values = rng.normal(5, 1, 400)[entity] + rng.normal(0, 0.5, len(entity))
    limit = crc_limit(rate)
    for of in (np.ones(len(entity)), values):
        totals = np.bincount(entity, of)
        estimates = []
        for draw in range(DRAWS):
            kept = np.array([kept_by_id(f"{draw}/customer {number}", limit) for number in range(400)])
            estimates.append(float(totals[kept].sum() / rate))
        clustered = (1 - rate) / rate * float((totals**2).sum())
        independent = (1 - rate) / rate * float((of**2).sum())
        error = np.sqrt(clustered / DRAWS)
        assert abs(np.mean(estimates) - of.sum()) <= 4.5 * error + 1e-6 * of.sum()
        assert np.var(estimates) == pytest.approx(clustered, rel=0.4, abs=1e-6)
        assert rate == 1 or clustered > 5 * independent
