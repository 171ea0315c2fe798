"""Token streams by OpenTelemetry's names, timed by a clock that the test moves."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator

import pytest

import mlobs
from mlobs.sdk import genai
from mlobs.testing import Seen, capture

TTFT, TPOT = "gen_ai_server_time_to_first_token_seconds", "gen_ai_server_time_per_output_token_seconds"
DURATION, TOKENS = "gen_ai_server_request_duration_seconds", "gen_ai_client_token_usage"
SPEED = "mlobs_output_tokens_per_second"
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Moved:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Moved:
    moved = Moved()
    monkeypatch.setattr(genai, "perf_counter", moved)
    return moved


@pytest.fixture
def seen() -> Iterator[Seen]:
    with capture() as found:
        yield found


def as_expected(seen: Seen) -> None:
    """0.5 s to the first of 5 tokens, 0.1 s to each of the others."""
    at = {
        "gen_ai_request_model": "llama",
        "gen_ai_provider_name": "vllm",
        "gen_ai_operation_name": "chat",
    }
    assert seen.value(f"{TTFT}_sum", **at) == pytest.approx(0.5)
    assert seen.value(f"{TPOT}_sum", **at) == pytest.approx(0.1)
    assert seen.value(f"{DURATION}_sum", error_type="", **at) == pytest.approx(0.9)
    assert seen.value(f"{TOKENS}_sum", gen_ai_token_type="output", **at) == 5
    assert seen.value(f"{TOKENS}_sum", gen_ai_token_type="input", **at) == 70
    assert seen.value(f"{SPEED}_sum", **at) == pytest.approx(5 / 0.9)
    assert seen.value("mlobs_request_duration_seconds_count", outcome="ok") == 1


def test_a_generator(seen: Seen, clock: Moved) -> None:
    @mlobs.observe(model="chat")
    @mlobs.generates(model="llama", provider="vllm")
    def answer(prompt: str) -> Iterator[str]:
        mlobs.token_usage(input=70)
        clock.now += 0.5
        yield "a"
        for letter in "bcde":
            clock.now += 0.1
            yield letter

    assert inspect.isgeneratorfunction(answer)
    assert "".join(answer("x")) == "abcde"
    as_expected(seen)


async def test_an_async_generator(seen: Seen, clock: Moved) -> None:
    @mlobs.observe(model="chat")
    @mlobs.generates(model="llama", provider="vllm")
    async def answer(prompt: str) -> AsyncIterator[str]:
        clock.now += 0.5
        yield "a"
        for letter in "bcde":
            clock.now += 0.1
            yield letter
        mlobs.token_usage(input=70)

    assert inspect.isasyncgenfunction(answer)
    assert [letter async for letter in answer("x")] == list("abcde")
    as_expected(seen)


def test_chunks_of_several_tokens_and_an_engine_that_knows_better(seen: Seen, clock: Moved) -> None:
    with mlobs.generation(model="gpt", provider="openai", operation="text_completion") as response:
        clock.now += 1
        response.token(3)
        clock.now += 2
        response.token(3)
        response.usage(input=10, output=5)
    assert seen.value(f"{TPOT}_sum", gen_ai_operation_name="text_completion") == pytest.approx(2 / 4)
    assert seen.value(f"{TOKENS}_sum", gen_ai_token_type="output") == 5


async def test_a_function_that_returns_all_has_no_first_token(seen: Seen, clock: Moved) -> None:
    @mlobs.generates(model="m", tokens=len)
    async def whole() -> list[str]:
        clock.now += 2
        return ["a", "b"]

    @mlobs.generates(model="m")
    def unknown() -> str:
        clock.now += 2
        return "tokens of which nobody knows"

    assert await whole() == ["a", "b"]
    assert unknown().startswith("tokens")
    assert seen.value(f"{TTFT}_count") is None
    assert seen.value(f"{TOKENS}_sum") == 2
    assert seen.value(f"{TOKENS}_count") == 1
    assert seen.value(f"{SPEED}_sum") == 1
    assert seen.value(f"{DURATION}_count") == 2


def test_an_error_is_told_by_its_type_and_a_reader_who_goes_away_is_cancelled(
    seen: Seen, clock: Moved
) -> None:
    closed: list[bool] = []

    @mlobs.generates(model="m")
    def answer(fail: bool) -> Iterator[str]:
        try:
            yield "a"
            if fail:
                raise KeyError("theirs")
            yield "b"
        finally:
            closed.append(True)

    with pytest.raises(KeyError, match="theirs"):
        list(answer(True))
    stream = answer(False)
    assert next(stream) == "a"
    stream.close()  # type: ignore[attr-defined]
    assert closed == [True, True]
    assert seen.value(f"{DURATION}_count", error_type="KeyError") == 1
    assert seen.value(f"{DURATION}_count", error_type="cancelled") == 1
    assert seen.value(f"{TTFT}_count") is None  # of successful responses alone
    assert seen.value(f"{TOKENS}_sum", gen_ai_token_type="output") == 2


def test_send_throw_and_the_returned_value_stay(seen: Seen) -> None:
    @mlobs.generates(model="m")
    def talk() -> Iterator[object]:
        heard = yield "first"
        try:
            yield heard
        except ValueError as problem:
            yield str(problem)
        return "result"

    stream = talk()
    assert next(stream) == "first"
    assert stream.send("hello") == "hello"  # type: ignore[attr-defined]
    assert stream.throw(ValueError("inside")) == "inside"  # type: ignore[attr-defined]
    with pytest.raises(StopIteration) as stop:
        next(stream)
    assert stop.value.value == "result"


def test_two_streams_read_in_turns_keep_their_own_usage(seen: Seen) -> None:
    @mlobs.generates(model="m")
    def answer(size: int) -> Iterator[int]:
        yield 1
        mlobs.token_usage(input=size)
        yield 2

    first, second = answer(10), answer(1000)
    for _ in range(2):
        next(first), next(second)
    mlobs.token_usage(input=7)  # outside of both
    assert [*first, *second] == []
    assert seen.value(f"{TOKENS}_sum", gen_ai_token_type="input") == 1010


def test_a_counter_that_fails_costs_no_token() -> None:
    @mlobs.generates(model="m", tokens=lambda value: 1 // 0)
    def answer() -> Iterator[str]:
        yield "a"
        mlobs.token_usage(input="strange")  # type: ignore[arg-type]

    with capture(strict=False) as seen:
        assert list(answer()) == ["a"]
        assert seen.internal_errors == {"tokens": 1, "generation": 1}


class Unnameable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_a_model_without_a_sayable_name_costs_its_label_and_no_response() -> None:
    with capture(strict=False) as seen:
        with mlobs.generation(model=Unnameable()) as response:  # type: ignore[arg-type]
            response.token()
        assert seen.internal_errors == {"generation": 1}
        assert seen.value(f"{DURATION}_count", gen_ai_request_model="") == 1


def test_models_beyond_the_cap_are_other(seen: Seen) -> None:
    for number in range(250):
        with mlobs.generation(model=f"model-{number}"):
            pass
    assert seen.value(f"{DURATION}_count", gen_ai_request_model="__other__") == 50


def test_the_edges_are_those_of_the_conventions() -> None:
    assert genai.TOKEN_EDGES.classic == (
        1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864
    )  # fmt: skip
    assert genai.DURATION_EDGES.classic == pytest.approx(
        (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92), abs=0
    )
    assert genai.EACH_EDGES.classic == (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
    assert genai.FIRST_EDGES.classic == (
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0
    )  # fmt: skip
