"""Every kind of callable is timed to its end, and every way of running at once knows its own call."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest

import mlobs
from mlobs.sdk.call import running
from mlobs.sdk.wrap import names_used
from mlobs.testing import Seen, capture

COUNT = "mlobs_request_duration_seconds_count"
Request = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def known(request: Request) -> Request:
    """What each body below does: it knows its call, and gives its argument back."""
    assert mlobs.current().prediction_id == request["id"]
    with mlobs.stage("inference"):
        return request


# -- callables ----------------------------------------------------------------------------------------------


def plain(request: Request) -> Request:
    return known(request)


async def coroutine(request: Request) -> Request:
    await asyncio.sleep(0)
    return known(request)


def generator(request: Request) -> Iterator[Request]:
    yield known(request)


async def async_generator(request: Request) -> AsyncIterator[Request]:
    await asyncio.sleep(0)
    yield known(request)


def more(first: int, request: Request, *, second: int) -> Request:
    assert (first, second) == (1, 2)
    return known(request)


class Plain:
    def __call__(self, request: Request) -> Request:
        return known(request)

    def method(self, request: Request) -> Request:
        return known(request)


class Coroutine:
    async def __call__(self, request: Request) -> Request:
        await asyncio.sleep(0)
        return known(request)


class Generator:
    def __call__(self, request: Request) -> Iterator[Request]:
        yield known(request)


class AsyncGenerator:
    async def __call__(self, request: Request) -> AsyncIterator[Request]:
        yield known(request)


class Slotted:
    """Takes no attribute, and has no name."""

    __slots__ = ()

    def __call__(self, request: Request) -> Request:
        return known(request)


def passing(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Somebody else's decorator."""

    @functools.wraps(fn)
    def around(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return around


def awaiting(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def around(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return around


CALLABLES: dict[str, Any] = {
    "function": plain,
    "coroutine": coroutine,
    "generator": generator,
    "async generator": async_generator,
    "lambda": lambda request, *_: known(request),
    "bound method": Plain().method,
    "partial": functools.partial(more, 1, second=2),
    "partial of a partial": functools.partial(functools.partial(more, 1), second=2),
    "partial of a coroutine": functools.partial(coroutine),
    "partial of a generator": functools.partial(generator),
    "partial of an async generator": functools.partial(async_generator),
    "partial of a bound method": functools.partial(Plain().method),
    "partial of an object": functools.partial(Coroutine()),
    "object": Plain(),
    "object without attributes": Slotted(),
    "object, coroutine": Coroutine(),
    "object, generator": Generator(),
    "object, async generator": AsyncGenerator(),
    "decorated": passing(plain),
    "decorated coroutine": awaiting(coroutine),
    "decorated twice": passing(passing(plain)),
}


def called(fn: Callable[..., Any], request: Request) -> Any:
    """Its one value, by whatever way it is given; and it ends."""

    async def in_a_loop() -> Any:
        if inspect.isasyncgenfunction(fn):
            (only,) = [item async for item in fn(request)]
            return only
        return await fn(request)

    if inspect.isgeneratorfunction(fn):
        (only,) = fn(request)
        return only
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        return asyncio.run(in_a_loop())
    return fn(request)


@pytest.mark.parametrize("kind", CALLABLES)
def test_a_callable_is_counted_timed_recorded_and_stays_what_it_is(kind: str) -> None:
    bare = CALLABLES[kind]
    with capture() as seen:
        observed = mlobs.observe(model="called", prediction_id="id")(bare)
        request = {"id": "r-1", "amount": 2.5}
        assert called(observed, request) is request
        assert running() is None
        words = ("iscoroutinefunction", "isgeneratorfunction", "isasyncgenfunction")
        words = (
            words if inspect.isroutine(bare) else ()
        )  # of an object `inspect` sees nothing: we look into it
        assert [getattr(inspect, word)(observed) for word in words] == [
            getattr(inspect, word)(bare) for word in words
        ]
        assert inspect.signature(observed) == inspect.signature(bare)
    assert seen.value(COUNT, model="called", outcome="ok") == 1
    assert seen.value("mlobs_stage_duration_seconds_count", stage="inference") == 1
    assert seen.value("mlobs_requests_in_flight", model="called") == 0
    (record,) = seen.records
    assert (record.prediction_id, record.features["amount"]) == ("r-1", 2.5)


@pytest.mark.parametrize("kind", CALLABLES)
def test_a_callable_that_asks_for_its_call_is_seen_to_ask(kind: str) -> None:
    """However it is wrapped: else after 1,000 calls the first that asks would find none."""
    assert "known" in names_used(CALLABLES[kind])


def test_a_plain_function_around_a_coroutine_function_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for fine in CALLABLES.values():
        mlobs.observe(fine)
    assert caplog.messages == []
    for hidden in (passing(coroutine), passing(generator), passing(passing(async_generator))):
        mlobs.observe(model="hidden")(hidden)
        assert "put observe below the other decorator" in caplog.messages[-1]
    assert len(caplog.messages) == 3


def test_an_observed_function_may_be_decorated_again_and_be_bound_by_a_partialmethod() -> None:
    class Model:
        @functools.lru_cache  # noqa: B019 - one object
        @mlobs.observe(model="cached")
        def cached(self, key: int) -> int:
            return key

        @mlobs.observe(model="two", prediction_id="id")
        def two(self, more: int, request: Request) -> tuple[int, Request]:
            return more, known(request)

        one = functools.partialmethod(two, 7)

    with capture() as seen:
        model, request = Model(), {"id": "r-2"}
        assert [model.cached(1), model.cached(1), model.cached(2)] == [1, 1, 2]
        assert model.one(request) == (7, request)
    assert seen.value(COUNT, model="cached") == 2
    assert seen.value(COUNT, model="two") == 1


def test_a_builtin_and_a_class_are_callables_too() -> None:
    with capture() as seen:
        assert mlobs.observe(model="len")(len)([1, 2]) == 2
        assert mlobs.observe(model="dict")(dict)(a=1) == {"a": 1}
        assert mlobs.observe(model="cache")(functools.lru_cache(plain_of_one))(3) == 3
    for model in ("len", "dict", "cache"):
        assert seen.value(COUNT, model=model, outcome="ok") == 1


def plain_of_one(value: int) -> int:
    return value


# -- contexts -----------------------------------------------------------------------------------------------


@mlobs.observe(model="outer", prediction_id="id")
async def outer(request: Request, inside: Callable[[str], Awaitable[None]]) -> None:
    await inside(request["id"])
    assert mlobs.current().prediction_id == request["id"], "back in its own call"


@mlobs.observe(model="inner", prediction_id="id")
async def inner(request: Request, meet: Callable[[], Awaitable[object]]) -> None:
    await meet()  # all are under way at once
    known(request)
    await meet()
    known(request)


def met(seen: Seen, calls: int, inside: int) -> None:
    assert running() is None
    assert seen.value(COUNT, model="outer", outcome="ok") == calls
    assert seen.value(COUNT, model="inner", outcome="ok") == calls * inside
    assert sorted(record.prediction_id for record in seen.records if record.model == "inner") == sorted(
        f"{call}-{number}" for call in range(calls) for number in range(inside)
    )


async def child(wants: str) -> None:
    """A task of a call is in that call."""
    await asyncio.sleep(0)
    assert mlobs.current().prediction_id == wants


def test_calls_in_tasks_of_a_task_group_know_their_own() -> None:
    async def inside(name: str) -> None:
        barrier = asyncio.Barrier(3)
        async with asyncio.TaskGroup() as group:
            group.create_task(child(name))
            for number in range(3):
                group.create_task(inner({"id": f"{name}-{number}"}, barrier.wait))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for call in range(4):
                group.create_task(outer({"id": str(call)}, inside))

    with capture() as seen:
        asyncio.run(main())
    met(seen, 4, 3)


@pytest.mark.anyio
async def test_calls_in_tasks_and_threads_of_anyio_know_their_own() -> None:
    async def inside(name: str) -> None:
        lock = anyio.Lock()

        async def meet() -> None:
            async with lock:
                await anyio.sleep(0)

        async with anyio.create_task_group() as group:
            group.start_soon(child, name)
            for number in range(3):
                group.start_soon(inner, {"id": f"{name}-{number}"}, meet)
        assert await anyio.to_thread.run_sync(lambda: mlobs.current().prediction_id) == name

    with capture() as seen:
        async with anyio.create_task_group() as group:
            for call in range(4):
                group.start_soon(outer, {"id": str(call)}, inside)
    met(seen, 4, 3)


def test_a_group_that_fails_cancels_its_other_calls_and_each_has_its_outcome() -> None:
    @mlobs.observe(model="grouped")
    async def work(request: Request) -> None:
        await asyncio.sleep(0)
        if request["fails"]:
            raise KeyError("one")
        await asyncio.sleep(60)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for fails in (False, True, False):
                group.create_task(work({"fails": fails}))

    with capture() as seen, pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert seen.value(COUNT, model="grouped", outcome="error") == 1
    assert seen.value(COUNT, model="grouped", outcome="cancelled") == 2
    assert seen.value("mlobs_requests_in_flight", model="grouped") == 0


@pytest.mark.anyio
async def test_a_cancel_scope_of_anyio_cancels_a_call_and_goes_on_after_it() -> None:
    @mlobs.observe(model="scoped")
    async def work() -> None:
        await anyio.sleep(60)

    @mlobs.observe(model="stream")
    async def stream() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep(60)

    with capture() as seen:
        with anyio.move_on_after(0.01) as scope:
            await work()
        assert scope.cancelled_caught
        with anyio.move_on_after(0.01) as scope:
            assert [item async for item in stream()] == [1]
        assert scope.cancelled_caught
    for model in ("scoped", "stream"):
        assert seen.value(COUNT, model=model, outcome="cancelled") == 1, model


def test_calls_in_threads_know_their_own_and_a_bare_thread_knows_none() -> None:
    barrier = threading.Barrier(8)

    @mlobs.observe(model="threaded", prediction_id="id")
    def work(request: Request) -> None:
        barrier.wait()
        known(request)
        found: list[object] = []
        bare = threading.Thread(target=lambda: found.append(running()))
        bare.start()
        bare.join()
        assert found == [None]
        context = contextvars.copy_context()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(context.run, lambda: mlobs.current().prediction_id).result() == request["id"]
        barrier.wait()
        known(request)

    with capture() as seen, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [{"id": str(number)} for number in range(24)]))
    assert seen.value(COUNT, model="threaded", outcome="ok") == 24
    assert seen.internal_errors == {}


def test_what_a_task_that_outlives_its_call_says_of_it_hurts_nobody() -> None:
    left: list[asyncio.Task[None]] = []

    @mlobs.observe(model="left", prediction_id="id")
    async def work(request: Request) -> None:
        async def later() -> None:
            await asyncio.sleep(0.01)
            mlobs.current().set_decision("late")
            with mlobs.stage("inference"):
                pass

        left.append(asyncio.create_task(later()))

    async def main() -> None:
        await work({"id": "r-3"})
        assert running() is None
        await left[0]

    with capture() as seen:
        asyncio.run(main())
    assert [record.decision for record in seen.records] == [None]
    assert seen.value(COUNT, model="left", outcome="ok") == 1
    assert seen.internal_errors == {}


def test_streams_read_in_turns_by_tasks_know_their_own() -> None:
    @mlobs.observe(model="turns", prediction_id="id")
    async def stream(request: Request) -> AsyncIterator[int]:
        for number in range(3):
            known(request)
            yield number
            await asyncio.sleep(0)

    async def consume(name: str) -> list[int]:
        found = []
        async for item in stream({"id": name}):
            assert running() is None, "the consumer is not in the call"
            found.append(item)
        return found

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(consume(str(number)) for number in range(5)))

    with capture() as seen:
        assert asyncio.run(main()) == [[0, 1, 2]] * 5
    assert seen.value(COUNT, model="turns", outcome="ok") == 5
