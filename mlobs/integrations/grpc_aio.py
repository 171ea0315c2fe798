"""A gRPC server of grpcio's asyncio API.

    from mlobs.integrations.grpc_aio import MlobsInterceptor
    server = grpc.aio.server(interceptors=[MlobsInterceptor()])

All four kinds of method, as coroutines, as async generators, and as plain functions, which that API runs in
threads. A stream is timed to its end. Unknown methods are not counted.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio

from mlobs.integrations import grpc_server


class MlobsInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """Counts whole calls; gives their trace context to the observed calls inside."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        return grpc_server.wrapped(await continuation(details), details.method, _wrap)


def _wrap(behaviour: Callable[..., Any], method: str, streams: bool) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(behaviour):
        return _generator(behaviour, method)
    if inspect.iscoroutinefunction(behaviour):
        return _coroutine(behaviour, method)
    plain = grpc_server.wrap(behaviour, method, streams)
    return lambda request, context: plain(request, _Told(context))


class _Told:
    """The context of a plain function, which keeps its code to itself: notes what it is told."""

    def __init__(self, context: Any) -> None:
        self._context, self._code = context, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_code(self, code: Any) -> None:
        self._code = code
        self._context.set_code(code)

    def abort(self, code: Any, *given: Any, **more: Any) -> None:
        self._code = code
        self._context.abort(code, *given, **more)

    def code(self) -> Any:
        return self._code


def _coroutine(behaviour: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Any]:
    async def observed(request: Any, context: Any) -> Any:
        with grpc_server.Counted(context, method, _is_gone):
            return await behaviour(request, context)

    return observed


def _generator(behaviour: Callable[..., AsyncIterator[Any]], method: str) -> Callable[..., Any]:
    async def observed(request: Any, context: Any) -> AsyncIterator[Any]:
        with grpc_server.Counted(context, method, _is_gone):
            async for response in behaviour(request, context):
                yield response

    return observed


def _is_gone(context: Any, raised: BaseException | None) -> bool:
    return isinstance(raised, GeneratorExit | asyncio.CancelledError) or bool(context.cancelled())
