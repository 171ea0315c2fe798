"""Generative models and token streams: time to first token, time per output token, tokens, their speed.

    @mlobs.observe(model="support-chat")
    @mlobs.generates(model="llama-3-8b", provider="vllm")
    async def answer(prompt: str):
        async for token in engine.stream(prompt):
            yield token                                  # each value given is one output token
        mlobs.token_usage(input=prompt_tokens)           # what only the engine knows

    with mlobs.generation(model="gpt-5", provider="openai") as g:      # around a client of your own
        for chunk in client.stream(...):
            g.token(len(chunk.tokens))
        g.usage(input=chunk.usage.prompt_tokens, output=chunk.usage.completion_tokens)

Names, attributes and bucket edges are those of OpenTelemetry's semantic conventions for generative AI
(docs/gen-ai/gen-ai-metrics.md, status Development), written as Prometheus writes them. As they say: time to
first token and time per output token are of successful responses; the latter is what follows the first token,
over the tokens that follow it; tokens are only reported where they are known. Nothing here raises.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any, TypeVar, cast

from mlobs import names
from mlobs.sdk.api import default_runtime
from mlobs.sdk.buckets import Bounds, plain_bounds
from mlobs.sdk.call import CURRENT, call_of
from mlobs.sdk.instruments import observe_value
from mlobs.sdk.meter import HISTOGRAM, Family, clean_label

F = TypeVar("F", bound=Callable[..., Any])

INPUT, OUTPUT = "input", "output"

# The last label is the one that gives way to `__other__` beyond the cap.
_BY = (names.GENAI_OPERATION, names.GENAI_PROVIDER, names.GENAI_MODEL)
DURATION = Family(
    names.GENAI_DURATION, HISTOGRAM, (names.GENAI_ERROR, *_BY), "Duration of a response to its last token."
)
FIRST = Family(names.GENAI_TTFT, HISTOGRAM, _BY, "Seconds to the first token of a successful response.")
EACH = Family(names.GENAI_TPOT, HISTOGRAM, _BY, "Seconds per token after the first of a successful response.")
TOKENS = Family(names.GENAI_TOKENS, HISTOGRAM, (names.GENAI_COUNTED, *_BY), "Tokens of a response.")
SPEED = Family(names.GENAI_SPEED, HISTOGRAM, _BY, "Output tokens of a successful response a second.")

DURATION_EDGES = plain_bounds(0.01 * 2**power for power in range(14))
FIRST_EDGES = plain_bounds(
    (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
)
EACH_EDGES = plain_bounds((0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5))
TOKEN_EDGES = plain_bounds(4.0**power for power in range(14))
_SPEED_EDGES = plain_bounds((1, 2.5, 5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1_000, 2_500))


class Generation:
    """One response under way. Times are `perf_counter` seconds. Enter it, or let the decorator do so."""

    def __init__(self, operation: str, provider: str, model: str) -> None:
        self._labels = (operation, provider, model)
        self._start = perf_counter()
        self._first: float | None = None
        self._counted = 0
        self._input: int | None = None
        self._output: int | None = None
        self._done = False
        self._before: Any = None

    def token(self, count: int = 1) -> None:
        """`count` output tokens came just now; 0.1 us. For chunks of several tokens give their number."""
        if self._first is None:
            self._first = perf_counter()
        try:
            self._counted += count
        except Exception as problem:  # noqa: BLE001 - the guard's: no number
            default_runtime().guard.swallow("tokens", problem)

    def usage(self, *, input: int | None = None, output: int | None = None) -> None:  # noqa: A002 - the words
        """What the engine says of tokens in and out: it wins over what was counted."""
        self._input = self._input if input is None else input
        self._output = self._output if output is None else output

    def __enter__(self) -> Generation:
        self._start = perf_counter()
        self._before = _running.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            _running.reset(self._before)
        except ValueError as problem:  # ended in another context: there is nothing to restore there
            default_runtime().guard.swallow("generation_context", problem)
        self.end(error)

    def end(self, error: BaseException | None = None) -> None:
        """Count it, once; `error` is what ended it. A reader who goes away is no error of the model."""
        if self._done:
            return
        self._done = True
        end = perf_counter()
        runtime = default_runtime()
        try:
            gone = isinstance(error, GeneratorExit) or type(error).__name__ == "CancelledError"
            kind = "" if error is None else "cancelled" if gone else type(error).__name__
            output = self._counted or None if self._output is None else self._output
            for family, labels, bounds, value in self._values(end, kind, output):
                observe_value(runtime, family, (*labels, *self._labels), bounds, value)
            self._tell_call(output)
        except Exception as problem:  # noqa: BLE001 - the guard's
            runtime.guard.swallow("generation", problem)

    def _tell_call(self, output: int | None) -> None:
        """The observed call around it has the conventions' attributes on its span, if it is kept."""
        marker = CURRENT.get()
        if marker is not None and default_runtime().spans is not None:
            operation, provider, model = self._labels
            call_of(marker).attributes = {
                names.ATTR_GENAI_OPERATION: operation,
                names.ATTR_GENAI_PROVIDER: provider,
                names.ATTR_GENAI_MODEL: model,
                names.ATTR_GENAI_INPUT: self._input,
                names.ATTR_GENAI_OUTPUT: output,
            }

    def _values(
        self, end: float, kind: str, output: int | None
    ) -> list[tuple[Family, tuple[str, ...], Bounds, float]]:
        took = end - self._start
        found: list[tuple[Family, tuple[str, ...], Bounds, float]] = [
            (DURATION, (clean_label(kind),), DURATION_EDGES, took)
        ]
        if self._input is not None:
            found.append((TOKENS, (INPUT,), TOKEN_EDGES, self._input))
        if output is not None:
            found.append((TOKENS, (OUTPUT,), TOKEN_EDGES, output))
        if kind or output is None:
            return found
        if self._first is not None:
            found.append((FIRST, (), FIRST_EDGES, self._first - self._start))
            if output > 1:
                found.append((EACH, (), EACH_EDGES, (end - self._first) / (output - 1)))
        if took > 0:
            found.append((SPEED, (), _SPEED_EDGES, output / took))
        return found


_running: ContextVar[Generation | None] = ContextVar("mlobs_generation", default=None)


def generation(*, model: str, provider: str = "", operation: str = "chat") -> Generation:
    """A response that your own code goes through: `with mlobs.generation(model="gpt-5") as g: g.token()`.

    `operation` is `chat`, `text_completion` or `generate_content`, `provider` as the conventions spell it
    (`openai`, `anthropic`, `aws.bedrock`, ...) or a name of your own for an engine of your own.
    """
    try:
        return Generation(clean_label(operation), clean_label(provider), clean_label(model))
    except Exception as problem:  # noqa: BLE001 - the guard's: a name that cannot be said
        default_runtime().guard.swallow("generation", problem)
        return Generation("", "", "")


def token_usage(*, input: int | None = None, output: int | None = None) -> None:  # noqa: A002 - the words
    """Tokens in and out of the running generation, where the engine knows them; nothing outside of any."""
    found = _running.get()
    if found is not None:
        found.usage(input=input, output=output)


def generates(
    *,
    model: str,
    provider: str = "",
    operation: str = "chat",
    tokens: Callable[[Any], int] | None = None,
) -> Callable[[F], F]:
    """Measure a function that generates: a generator or async generator of tokens, or one that returns all.

    `tokens` says how many output tokens a value given is (default 1 for each of a stream); of a function that
    returns, it says how many the result is. Kind, signature, values and exceptions stay. Stacks under
    `observe`.
    """

    def fresh() -> Generation:
        return generation(model=model, provider=provider, operation=operation)

    def count(found: Generation, value: Any, whole: bool) -> None:
        try:
            if whole:
                if tokens is not None:
                    found.usage(output=tokens(value))
            else:
                found.token(1 if tokens is None else tokens(value))
        except Exception as problem:  # noqa: BLE001 - the guard's
            default_runtime().guard.swallow("tokens", problem)

    def decorate(fn: F) -> F:
        if inspect.isasyncgenfunction(fn):
            return cast(F, _async_stream(fn, fresh, count))
        if inspect.isgeneratorfunction(fn):
            return cast(F, _stream(fn, fresh, count))
        if inspect.iscoroutinefunction(fn):

            @functools.wraps(fn)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with fresh() as found:
                    result = await fn(*args, **kwargs)
                    count(found, result, True)
                    return result

            return cast(F, coroutine)

        @functools.wraps(fn)
        def function(*args: Any, **kwargs: Any) -> Any:
            with fresh() as found:
                result = fn(*args, **kwargs)
                count(found, result, True)
                return result

        return cast(F, function)

    return decorate


Count = Callable[[Generation, Any, bool], None]


def _stream(fn: Callable[..., Any], fresh: Callable[[], Generation], count: Count) -> Callable[..., Any]:
    """A generator around a generator; the generation is the running one only while its own code runs."""

    @functools.wraps(fn)
    def generator(*args: Any, **kwargs: Any) -> Any:
        found = fresh()
        inner = fn(*args, **kwargs)
        error: BaseException | None = None
        step, given = inner.send, None
        try:
            while True:
                token = _running.set(found)
                try:
                    value = step(given)
                except StopIteration as stop:
                    return stop.value
                finally:
                    _running.reset(token)
                count(found, value, False)
                try:
                    step, given = inner.send, (yield value)
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - handed on to whom it was meant for
                    step, given = inner.throw, thrown
        except BaseException as problem:
            error = problem
            raise
        finally:
            found.end(error)

    return generator


def _async_stream(
    fn: Callable[..., Any], fresh: Callable[[], Generation], count: Count
) -> Callable[..., Any]:
    """As `_stream`, for async generators; closed from another task, the token belongs to that task."""

    @functools.wraps(fn)
    async def generator(*args: Any, **kwargs: Any) -> Any:
        found = fresh()
        inner = fn(*args, **kwargs)
        error: BaseException | None = None
        step, given = inner.asend, None
        try:
            while True:
                token = _running.set(found)
                try:
                    value = await step(given)
                except StopAsyncIteration:
                    return
                finally:
                    _running.reset(token)
                count(found, value, False)
                try:
                    given = yield value
                    step = inner.asend
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - handed on to whom it was meant for
                    step, given = inner.athrow, thrown
        except BaseException as problem:
            error = problem
            raise
        finally:
            found.end(error)

    return generator
