"""Whatever fails in us, the function behaves as if bare: same value, same exception object, same kind.

Each kind of function runs bare and decorated with hostile values, while every internal call site is made to
fail in turn. A slice of the examples runs here, 100,000 of them nightly.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlobs
from mlobs.sdk import beginning, ending, settled
from mlobs.sdk import binding as last
from mlobs.sdk.api import _BINDINGS, installed
from mlobs.sdk.binding import Binding
from mlobs.sdk.call import CURRENT
from mlobs.sdk.runtime import Runtime
from mlobs.settings import Settings
from mlobs.testing import MemoryLog


class Evil:
    """Refuses to be shown, compared, hashed, measured or judged."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("evil")

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __len__ = __format__ = __iter__ = _refuse  # type: ignore[assignment]
    __float__ = __lt__ = __sub__ = __abs__ = __getitem__ = _refuse


CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE
HOSTILE = (
    None, math.nan, math.inf, -math.inf, 10**400, -0.0, b"\xff\x00", "\ud800", "x" * 100_000, CYCLE, [CYCLE],
    Evil(), {"evil": Evil()}, {Evil: 1}, {1: 2}, {"id": "\udfff"}, {"id": Evil()}, {"id": 7}, object(), 0.5,
)  # fmt: skip
EVIL, NUMBER = 11, 19
ERRORS = (
    ValueError("v"),
    KeyError(Evil()),
    StopAsyncIteration(),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
)

# Closure variables of the wrapper that are calls of ours, and methods and collaborators further in.
CLOSURE = ("shard", "incoming", "identify", "enter", "leave", "clock", "bisect", "crc32")
DEEPER = (
    "binding.prepare", "binding.prepare_ident", "binding.strange_ident", "binding.failed", "binding.finished",
    "runtime.clock", "runtime.random", "runtime.bits", "runtime.log.offer", "runtime.meter.block",
    "runtime.meter.add", "runtime.exemplars.note", "module.call_of", "module.keep", "module.snapshot",
    "module.first_mapping", "module.perf_counter", "runtime.turn", "runtime.begin_price", "runtime.end_price",
    "module.bisect_left", "module.enter_trace", "module.drop_context",
)  # fmt: skip
SITES = (None, *CLOSURE, *DEEPER)


BOOMS: list[str] = []


def boom(*_: object, **__: object) -> Any:
    BOOMS.append("boom")
    raise RuntimeError("one of our own call sites failed")


def behaviours(result: Any, error: BaseException | None) -> dict[str, Callable[..., Any]]:
    """A function of each kind that gives `result`, or raises `error`."""

    def plain(value: Any, *rest: Any, key: Any = 1) -> Any:
        with mlobs.stage("inference"):
            mlobs.current().set_decision(value)
        if error is not None:
            raise error
        return result

    async def coroutine(value: Any) -> Any:
        await asyncio.sleep(0)
        return plain(value)

    def generator(value: Any) -> Iterator[Any]:
        yield value
        yield value
        return plain(value)

    async def async_generator(value: Any) -> AsyncIterator[Any]:
        yield value
        plain(value)
        yield result

    return {
        "plain": plain,
        "coroutine": coroutine,
        "generator": generator,
        "async generator": async_generator,
    }


def outcome(fn: Callable[..., Any], value: Any) -> tuple[str, Any, list[Any]]:
    """How a call ends: with what value or exception object, and what it gave on the way."""
    given: list[Any] = []

    async def consume_async() -> Any:
        if inspect.isasyncgenfunction(fn):
            async for item in fn(value):
                given.append(item)  # noqa: PERF401 - what came before an exception counts
            return None
        return await fn(value)

    def consume() -> Any:
        if inspect.isgeneratorfunction(fn):
            stream = fn(value)
            while True:
                try:
                    given.append(next(stream))
                except StopIteration as stop:
                    return stop.value
        if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
            # Driven by hand: a loop would turn the exceptions that end it into others.
            coroutine = consume_async()
            while True:
                try:
                    coroutine.send(None)
                except StopIteration as stop:
                    return stop.value
        return fn(value)

    try:
        return "value", consume(), given
    except BaseException as error:
        return "error", error, given


def breaks(site: str | None, binding: Binding, runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
    if site in CLOSURE:
        patch.setattr(binding, "_free", lambda: {**Binding._free(binding), site: boom})
        binding._set_closure()
    elif site is not None:
        owner, _, name = site.rpartition(".")
        if owner == "module":
            for module in (settled, beginning, ending, last):
                if hasattr(module, name):
                    patch.setattr(module, name, boom)
            return
        target: Any = {
            "binding": binding,
            "runtime": runtime,
            "runtime.log": runtime.log,
            "runtime.meter": runtime.meter,
            "runtime.exemplars": runtime.exemplars,
        }[owner]
        patch.setattr(target, name, boom)


def same(left: Any, right: Any) -> bool:
    if type(left) is type(right) is RuntimeError and left.__cause__ is not None:
        return left.__cause__ is right.__cause__  # the interpreter wraps a StopAsyncIteration anew each time
    return left is right


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, ...]:
    return (
        draw(st.integers(0, len(HOSTILE) - 1)),  # places: an evil value cannot even be drawn
        draw(st.integers(0, len(HOSTILE) - 1)),
        draw(st.integers(-3, len(ERRORS) - 1)),
        draw(st.sampled_from(SITES)),
        draw(st.sampled_from(("plain", "coroutine", "generator", "async generator"))),
        draw(st.sampled_from((0.0, 0.5, 1.0))),
        draw(st.booleans()),
        draw(st.booleans()),
    )


@contextmanager
def broken(
    site: str | None, bare: Callable[..., Any], sample: float, more: dict[str, Any]
) -> Iterator[tuple[Callable[..., Any], Runtime]]:
    """The function decorated, with one of our call sites failing."""
    CURRENT.set(None)
    with pytest.MonkeyPatch.context() as patch:
        runtime = Runtime(Settings(service="test", sample=sample), log=MemoryLog())
        with installed(runtime):
            observed = mlobs.observe(model="hostile", entity="value", segment="value", **more)(bare)
            (binding,) = [one for one in _BINDINGS if one.wrapper is observed]
            _BINDINGS.discard(binding)  # or thousands of them wait for the garbage collector
            breaks(site, binding, runtime, patch)
            yield observed, runtime


def compare(case: tuple[Any, ...]) -> None:
    value, result, error, site, kind, sample, with_id, with_decision = case
    value, result, error = HOSTILE[value], HOSTILE[result], ERRORS[error] if error >= 0 else None
    if error is not None:
        error.__traceback__ = error.__context__ = None  # or it keeps the frames of every example before
    bare = behaviours(result, error)[kind]
    more: dict[str, Any] = {}
    if with_id:
        more["prediction_id"] = "id"
    if with_decision:
        more["decision"] = lambda given: given
    with broken(site, bare, sample, more) as (observed, _):
        for _ in range(2):
            expected = outcome(bare, value)
            got = outcome(observed, value)
            assert got[0] == expected[0]
            assert same(got[1], expected[1]), (got, expected)
            assert len(got[2]) == len(expected[2])
            assert all(same(a, b) for a, b in zip(got[2], expected[2], strict=True))
        assert inspect.isgeneratorfunction(observed) == inspect.isgeneratorfunction(bare)
        assert inspect.iscoroutinefunction(observed) == inspect.iscoroutinefunction(bare)
        assert inspect.isasyncgenfunction(observed) == inspect.isasyncgenfunction(bare)
        assert mlobs.current().binding is None or site == "leave"


QUIET = settings(
    deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), max_examples=400, database=None
)


@QUIET
@given(cases())
def test_a_decorated_function_behaves_as_the_bare_one_whatever_fails_in_us(case: tuple[Any, ...]) -> None:
    compare(case)


@pytest.mark.nightly
@settings(QUIET, max_examples=100_000)
@given(cases())
def test_a_hundred_thousand_such_calls(case: tuple[Any, ...]) -> None:
    compare(case)


@pytest.mark.parametrize("kind", ["plain", "coroutine", "generator", "async generator"])
@pytest.mark.parametrize("site", SITES)
def test_every_kind_survives_every_site(site: str | None, kind: str) -> None:
    for value in (EVIL, 17, NUMBER):
        for error in (-1, 0):
            compare((value, EVIL, error, site, kind, 1.0, True, True))


@pytest.mark.parametrize("kind", ["plain", "coroutine", "generator", "async generator"])
@pytest.mark.parametrize("site", SITES)
def test_every_failure_of_ours_is_counted_exactly(site: str | None, kind: str) -> None:
    for error, sample, more in product(
        (None, ValueError("the host's")),
        (0.0, 1.0),
        ({}, {"prediction_id": "id", "decision": lambda given: given}),
    ):
        BOOMS.clear()
        with broken(site, behaviours(0.5, error)[kind], sample, more) as (observed, runtime):
            for _ in range(3):
                outcome(observed, {"id": "a"})
            assert sum(runtime.guard.counts.values()) == len(BOOMS), (
                error,
                sample,
                more,
                runtime.guard.counts,
            )


def test_a_strange_id_is_no_failure_of_ours() -> None:
    with broken(None, behaviours(0.5, None)["plain"], 1.0, {"prediction_id": "id"}) as (observed, runtime):
        for ident in (7, None, b"x", "\ud800", 1.5):
            outcome(observed, {"id": ident})
        assert runtime.guard.counts == {}


def test_a_failing_site_is_counted_exactly() -> None:
    runtime = Runtime(Settings(service="test", sample=1.0), log=MemoryLog())
    with installed(runtime), pytest.MonkeyPatch.context() as patch:

        @mlobs.observe(model="counted")
        def score(request: dict[str, Any]) -> int:
            return 1

        patch.setattr(runtime.log, "offer", boom)
        for _ in range(5):
            assert score({}) == 1
    assert runtime.guard.counts == {"keep": 5}
