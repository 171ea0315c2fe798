"""A gRPC server of grpcio.

    from mlobs.integrations.grpc_server import MlobsInterceptor
    server = grpc.server(pool, interceptors=[MlobsInterceptor()])

All four kinds of method; a stream is timed to its end. Unknown methods have no handler and are not counted,
so that the label holds only names of the service's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from mlobs.integrations.passage import RPC, Passage


class MlobsInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio ships no types
    """Counts whole calls; gives their trace context to the observed calls inside."""

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        return wrapped(continuation(details), details.method, wrap)


Wrap = Callable[[Callable[..., Any], str, bool], Callable[..., Any]]
"""Takes a method's function, its name, and whether it gives a stream."""


def wrapped(handler: Any, method: str, around: Wrap) -> Any:
    """The handler with `around` its function; None where there is no such method."""
    for kind, make in _MAKERS.items():
        behaviour = getattr(handler, kind, None)
        if behaviour is not None:
            return make(
                around(behaviour, str(method).lstrip("/"), bool(handler.response_streaming)),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
    return handler


_MAKERS: dict[str, Callable[..., Any]] = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


def wrap(behaviour: Callable[..., Any], method: str, streams: bool) -> Callable[..., Any]:
    """A plain function of any of the four kinds, counted under its method."""
    return _streamed(behaviour, method) if streams else _single(behaviour, method)


def _single(behaviour: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Any]:
    def observed(request: Any, context: Any) -> Any:
        with Counted(context, method, _is_gone):
            return behaviour(request, context)

    return observed


def _streamed(behaviour: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Any]:
    def observed(request: Any, context: Any) -> Iterator[Any]:
        with Counted(context, method, _is_gone):
            yield from behaviour(request, context)

    return observed


Gone = Callable[[Any, BaseException | None], bool]
"""Whether nobody waits for the answer any more, by the context and what was raised."""


class Counted:
    """A call under way, as a context manager of either API: counted under its code when it ends."""

    __slots__ = ("_context", "_gone", "_method", "_passage")

    def __init__(self, context: Any, method: str, gone: Gone) -> None:
        self._context, self._method, self._gone = context, method, gone
        self._passage = Passage(lambda: incoming(context))

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, raised: BaseException | None, trace: object) -> None:
        self._passage.end(RPC, lambda: (self._code(raised), self._method))

    def _code(self, raised: BaseException | None) -> str:
        """The code that the method set, else OK or what grpcio makes of an exception."""
        if self._gone(self._context, raised):
            return str(grpc.StatusCode.CANCELLED.name)
        return code_name(self._context.code(), raised)


def incoming(context: Any) -> tuple[str | None, str]:
    """`traceparent` and `tracestate` of the call."""
    found = dict(context.invocation_metadata())
    return found.get("traceparent"), found.get("tracestate", "")


def _is_gone(context: Any, raised: BaseException | None) -> bool:
    active = getattr(
        context, "is_active", None
    )  # a plain function under the asyncio API has no such question
    return isinstance(raised, GeneratorExit) or (active is not None and not active())


def code_name(code: Any, raised: BaseException | None) -> str:
    """The name of a code, or of its number; where none was set, OK or UNKNOWN."""
    if code in (None, 0, grpc.StatusCode.OK):
        return "OK" if raised is None else "UNKNOWN"
    if isinstance(code, grpc.StatusCode):
        return str(code.name)
    return next((known.name for known in grpc.StatusCode if known.value[0] == code), "UNKNOWN")
