"""Wrong arguments: told when they are handed over, whole; within the serving path never raised."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import mlobs
from mlobs.errors import ConfigError, UsageError
from mlobs.sdk.api import installed
from mlobs.sdk.runtime import Runtime
from mlobs.settings import Settings
from mlobs.testing import MemoryLog, capture


class Evil:
    """Refuses to be compared, hashed, shown or judged."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("evil")

    __eq__ = __hash__ = __repr__ = __str__ = __bool__ = __float__ = __fspath__ = _refuse  # type: ignore[assignment]


def score(request: dict[str, Any]) -> float:
    return 0.5


def refused(do: Callable[[], object]) -> list[str]:
    """Where the problems are that `do` raises; each says what was expected, what came and what to do."""
    with pytest.raises(UsageError) as caught:
        do()
    for problem in caught.value.problems:
        assert all((problem.where, problem.expected, problem.got, problem.remedy)), problem
    return [problem.where for problem in caught.value.problems]


INIT: tuple[tuple[str, object], ...] = (
    ("clock", 5),
    ("clock", lambda now: now),
    ("clock", Evil()),
    ("registry", "x"),
    ("registry", Evil()),
    ("exporter", "http://127.0.0.1:4318"),
    ("strict", "no"),
    ("service", 5),
    ("service", " "),
    ("service", "\ud800"),
    ("environment", 5),
    ("environment", "\udfff"),
    ("feature_log", 5),
    ("feature_log", Evil()),
    ("sample", "0.1"),
    ("sample", float("nan")),
    ("sample", 10**400),
    ("sample_by", Evil()),
    ("trace_sample", -1),
    ("otlp", "collector:4318"),
    ("otlp", "http://"),
    ("otlp", "http://collector:port"),
    ("otlp", "GRPC://collector:4317"),
    ("otlp", " grpc://collector:4317"),
    ("otlp", "http://collector:4318\n"),
    ("otlp", 4318),
    ("durability", ["disk"]),
    ("native", 1),
    ("buckets", 0.1),
    ("buckets", [True]),
    ("buckets", [10**400]),
    ("buckets", []),
    ("mask", {"schema": 5}),
    ("smaple", 0.1),
)


@pytest.mark.parametrize(("keyword", "value"), INIT, ids=[f"{name}-{n}" for n, (name, _) in enumerate(INIT)])
def test_init_names_the_keyword_that_is_wrong(keyword: str, value: object) -> None:
    given: dict[str, Any] = {"service": "given", keyword: value}
    with pytest.raises(ConfigError):
        mlobs.init(**given)
    assert refused(lambda: mlobs.init(**given)) == [f"init({keyword}=)"]


@pytest.mark.parametrize(
    "address", ["http://me:PLANTED@collector:port", "http://me:PLANTED@collector:4318\n"]
)
def test_an_address_that_is_refused_shows_no_login(address: str) -> None:
    for do in (lambda: mlobs.init(service="given", otlp=address), lambda: mlobs.job(otlp=address)):
        with pytest.raises(UsageError, match="collector") as caught:
            do()
        assert "PLANTED" not in str(caught.value)


def test_init_names_all_that_is_wrong_at_once() -> None:
    wrong: dict[str, Any] = {"service": 5, "clock": 5, "sample": 2, "smaple": 1}
    assert sorted(refused(lambda: mlobs.init(**wrong))) == [
        "init(clock=)", "init(sample=)", "init(service=)", "init(smaple=)"
    ]  # fmt: skip


@pytest.mark.parametrize("config", [5, b"mlobs.yaml", {"service": "given"}, Evil()])
def test_init_says_what_is_no_configuration(config: Any) -> None:
    assert refused(lambda: mlobs.init(config)) == ["init()"]


def test_init_takes_paths_and_clocks_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOBS_HASH_KEY", "00" * 32)
    for clock in (None, time.time, lambda: 1.0, lambda now=2.0: now):
        mlobs.init(service="given", clock=clock, feature_log=tmp_path / "log", registry=CollectorRegistry())
        mlobs.log_label("p", 1)
        assert mlobs.close(60)
    assert (tmp_path / "log").is_dir()


OBSERVE: tuple[tuple[str, Callable[[], object]], ...] = (
    ("@mlobs.observe", lambda: mlobs.observe("fraud")),
    ("@mlobs.observe", lambda: mlobs.observe(model="m")(5)),
    ("@mlobs.observe", lambda: mlobs.observe(model="m")(property(score))),
    ("observe(model=)", lambda: mlobs.observe(model=score)),
    ("observe(model=)", lambda: mlobs.observe(model=Evil())),
    ("observe(version=)", lambda: mlobs.observe(version=["1"])),
    ("observe(variant=)", lambda: mlobs.observe(variant={})),
    ("observe(modle=)", lambda: mlobs.observe(modle="m")),
    ("observe(prediction_id=)", lambda: mlobs.observe(prediction_id=5)(score)),
    ("observe(entity=)", lambda: mlobs.observe(entity=Evil())(score)),
    ("observe(features=)", lambda: mlobs.observe(features=[])(score)),
    ("observe(segment=)", lambda: mlobs.observe(segment=5)(score)),
    ("observe(decision=)", lambda: mlobs.observe(decision="approve")),
    ("observe(batch=)", lambda: mlobs.observe(batch=5)(score)),
    ("observe(features=)", lambda: mlobs.observe(batch="request", features="amount")(score)),
    ("observe(entity=)", lambda: mlobs.observe(batch="request", entity=5)(score)),
    ("@mlobs.job", lambda: mlobs.job("train")),
    ("@mlobs.job", lambda: mlobs.job(name="train")(5)),
    ("job(name=)", lambda: mlobs.job(name=score)),
    ("job(nmae=)", lambda: mlobs.job(nmae="train")),
    ("job(textfile=)", lambda: mlobs.job(textfile=5)),
    ("job(textfile=)", lambda: mlobs.job(textfile=b"/tmp")),
    ("job(otlp=)", lambda: mlobs.job(otlp="collector:4318")),
    ("flush(timeout=)", lambda: mlobs.flush("2")),
    ("flush(timeout=)", lambda: mlobs.flush(float("nan"))),
    ("close(timeout=)", lambda: mlobs.close(None)),
    ("start_metrics_server(port=)", lambda: mlobs.start_metrics_server("8000")),
    ("start_metrics_server(port=)", lambda: mlobs.start_metrics_server(99_999)),
    ("start_metrics_server(host=)", lambda: mlobs.start_metrics_server(host=5)),
)


@pytest.mark.parametrize(
    ("where", "do"), OBSERVE, ids=[f"{where}-{n}" for n, (where, _) in enumerate(OBSERVE)]
)
def test_what_is_set_up_wrongly_is_told_where_it_stands(where: str, do: Callable[[], object]) -> None:
    assert refused(do) == [where]


def test_numbers_are_names_too_and_none_is_no_version() -> None:
    with capture() as seen:
        assert mlobs.observe(model=5, version=7, variant=1)(score)({}) == 0.5  # type: ignore[call-overload]
        assert mlobs.observe(model="none", version=None)(score)({}) == 0.5  # type: ignore[call-overload]
    assert [(record.model, record.model_version, record.variant) for record in seen.records] == [
        ("5", "7", "1"), ("none", "", None)
    ]  # fmt: skip


def test_a_job_may_be_a_static_or_class_method() -> None:
    class Runs:
        @mlobs.job(name="static")
        @staticmethod
        def static(rows: int) -> int:
            return rows

        @mlobs.job(name="class")
        @classmethod
        def of_class(cls, rows: int) -> tuple[str, int]:
            return cls.__name__, rows

    with capture() as seen:
        assert (Runs().static(2), Runs.of_class(3)) == (2, ("Runs", 3))
    assert seen.value("mlobs_job_runs_total", job_name="static", outcome="ok") == 1


IN_A_CALL: tuple[tuple[str, Callable[[], object]], ...] = (
    ("stage", lambda: mlobs.stage(["private"]).__enter__()),
    ("stage", lambda: mlobs.stage(Evil()).__enter__()),
    ("features", lambda: mlobs.current().set_features(5)),  # type: ignore[arg-type]
    ("log_label", lambda: mlobs.log_label(None, 1)),  # type: ignore[arg-type]
    ("log_label", lambda: mlobs.log_label(Evil(), 1)),  # type: ignore[arg-type]
    ("log_label", lambda: mlobs.log_label("p", 1, event_time="private")),  # type: ignore[arg-type]
    ("log_label", lambda: mlobs.log_label("p", 1, event_time=float("nan"))),
    ("log_label", lambda: mlobs.log_label("p", 1, event_time=10**400)),
    ("batch", lambda: mlobs.batch(None)),  # type: ignore[arg-type]
    ("feature_age", lambda: mlobs.feature_age("f", Evil())),  # type: ignore[arg-type]
)


@pytest.mark.parametrize(
    ("site", "do"), IN_A_CALL, ids=[f"{site}-{n}" for n, (site, _) in enumerate(IN_A_CALL)]
)
def test_within_a_call_it_is_counted_and_never_raised(
    site: str, do: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    @mlobs.observe(model="wrong")
    def call() -> int:
        do()
        return 7

    with capture(strict=False) as seen, caplog.at_level(logging.WARNING, "mlobs"):
        assert call() == 7
    assert seen.value("mlobs_internal_errors_total", reason=site) == 1
    assert "private" not in caplog.text


def test_the_log_says_what_is_wrong_with_a_label(caplog: pytest.LogCaptureFixture) -> None:
    with (
        capture(Settings(service="test", sample=1.0), strict=False),
        caplog.at_level(logging.WARNING, "mlobs"),
    ):
        mlobs.log_label("p", 1, event_time="yesterday")  # type: ignore[arg-type]
    assert "log_label(event_time=): expected seconds since the epoch, got a value of type str" in caplog.text


def test_a_label_whose_time_is_a_number_in_text_is_kept() -> None:
    """As it comes out of a CSV file or a message."""
    log = MemoryLog()
    with installed(Runtime(Settings(service="test"), log=log)):
        for at in ("1700000000.5", 1700000000.5, Decimal("1700000000.5")):
            mlobs.log_label("p", 1, event_time=at)  # type: ignore[arg-type]
    assert [label.event_time for label in log.labels] == [1700000000.5] * 3
