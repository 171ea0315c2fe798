"""Log lines that name their trace and prediction, in logging and in structlog."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import structlog

import mlobs
from mlobs.sdk.trace import INCOMING, parse_traceparent
from mlobs.testing import Seen, capture

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.fixture
def seen() -> Iterator[Seen]:
    with capture() as found:
        yield found


@pytest.fixture
def lines() -> tuple[logging.Logger, StringIO]:
    logger, out = logging.Logger("host.api", logging.INFO), StringIO()  # noqa: LOG001 - below no root
    handler = logging.StreamHandler(out)
    handler.addFilter(mlobs.LogFilter())
    handler.setFormatter(mlobs.JsonFormatter(service="fraud-api", environment="test"))
    logger.addHandler(handler)
    return logger, out


def read(out: StringIO) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in out.getvalue().splitlines()]


def test_a_line_of_a_call_carries_the_ids_of_its_record(
    seen: Seen, lines: tuple[logging.Logger, StringIO]
) -> None:
    logger, out = lines

    @mlobs.observe(model="fraud", prediction_id="id")
    def score(request: dict[str, str]) -> int:
        logger.info("scored %s", 1, extra={"amount": 3})
        return 1

    token = INCOMING.set(parse_traceparent(PARENT))
    score({"id": "p-1"})
    INCOMING.reset(token)
    logger.info("outside")
    inside, outside = read(out)
    record = seen.records[0]
    assert inside["trace.id"] == record.trace_id == PARENT[3:35]
    assert inside["span.id"] == record.span_id
    assert inside["ml.prediction.id"] == record.prediction_id == "p-1"
    assert inside["ml.model.name"] == "fraud"
    assert (inside["message"], inside["labels"], inside["log.level"]) == ("scored 1", {"amount": 3}, "info")
    assert (inside["service.name"], inside["ecs.version"]) == ("fraud-api", "8.11.0")
    assert inside["@timestamp"].endswith("Z")
    assert not {"trace.id", "span.id", "ml.prediction.id"} & outside.keys()


def test_a_log_line_makes_no_prediction_id(seen: Seen, lines: tuple[logging.Logger, StringIO]) -> None:
    logger, out = lines

    @mlobs.observe(model="m")
    def score() -> int:
        logger.info("before")
        ident = mlobs.current().prediction_id
        logger.info("after %s", ident)
        return 1

    score()
    before, after = read(out)
    assert "ml.prediction.id" not in before
    assert after["ml.prediction.id"] == after["message"].removeprefix("after ")


def test_a_plain_format_always_finds_the_names(seen: Seen) -> None:
    record = logging.makeLogRecord({"msg": "x", "trace_id": "theirs"})
    assert mlobs.LogFilter().filter(record)
    assert logging.Formatter("[%(trace_id)s|%(span_id)s] %(message)s").format(record) == "[theirs|] x"


def test_an_exception_is_told_in_ecs_fields(seen: Seen, lines: tuple[logging.Logger, StringIO]) -> None:
    logger, out = lines
    try:
        raise KeyError("gone")
    except KeyError:
        logger.exception("failed")
    (line,) = read(out)
    assert (line["error.type"], line["error.message"]) == ("KeyError", "'gone'")
    assert line["error.stack_trace"].endswith("KeyError: 'gone'")


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 10**400, b"\xff", "\ud800", Unshowable(), {1: {2: {3}}}]
)
def test_a_hostile_value_costs_no_line(
    seen: Seen, lines: tuple[logging.Logger, StringIO], value: object
) -> None:
    logger, out = lines
    cycle: list[object] = [value]
    cycle.append(cycle)
    logger.info("x", extra={"value": value, "cycle": cycle})
    logger.info("%d", value)
    assert len(read(out)) == 2
    assert "value" in read(out)[0]["labels"]


def test_what_fails_in_us_is_counted_and_the_line_is_written(
    monkeypatch: pytest.MonkeyPatch, lines: tuple[logging.Logger, StringIO]
) -> None:
    def broken() -> dict[str, str]:
        raise RuntimeError("ours")

    monkeypatch.setattr("mlobs.sdk.logs.running_ids", broken)
    logger, out = lines
    with capture(strict=False) as seen:
        logger.info("x")
        assert mlobs.structlog_ids(None, "info", {"event": "x"}) == {"event": "x"}
        assert seen.internal_errors == {"logs": 3}
    assert read(out)[0]["log.logger"] == "host.api"


def test_structlog_lines_carry_them_too(seen: Seen) -> None:
    out = StringIO()
    log = structlog.wrap_logger(
        structlog.PrintLogger(out), processors=[mlobs.structlog_ids, structlog.processors.JSONRenderer()]
    )

    @mlobs.observe(model="m", prediction_id="id")
    def score(request: dict[str, str]) -> int:
        log.info("scored", model="theirs")
        return 1

    score({"id": "p-1"})
    (line,) = read(out)
    assert line["trace_id"] == seen.records[0].trace_id
    assert (line["prediction_id"], line["model"], line["event"]) == ("p-1", "theirs", "scored")
