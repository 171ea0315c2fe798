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
        handler = continuation(details)
        if handler is None:
            return None
        method = str(details.method).lstrip("/")
        wrap = _streamed if handler.response_streaming else _single
        for kind, make in _MAKERS.items():
            behaviour = getattr(handler, kind, None)
            if behaviour is not None:
                return make(
                    wrap(behaviour, method),
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


def _single(behaviour: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Any]:
    def observed(request: Any, context: Any) -> Any:
        passage = Passage(lambda: _incoming(context))
        raised: BaseException | None = None
        try:
            return behaviour(request, context)
        except BaseException as error:
            raised = error
            raise
        finally:
            passage.end(RPC, lambda: (_status(context, raised), method))

    return observed


def _streamed(behaviour: Callable[[Any, Any], Any], method: str) -> Callable[[Any, Any], Any]:
    def observed(request: Any, context: Any) -> Iterator[Any]:
        passage = Passage(lambda: _incoming(context))
        raised: BaseException | None = None
        try:
            yield from behaviour(request, context)
        except BaseException as error:
            raised = error
            raise
        finally:
            passage.end(RPC, lambda: (_status(context, raised), method))

    return observed


def _incoming(context: Any) -> tuple[str | None, str]:
    found = dict(context.invocation_metadata())
    return found.get("traceparent"), found.get("tracestate", "")


def _status(context: Any, raised: BaseException | None) -> str:
    """The code that the method set, else OK or what grpcio makes of an exception."""
    if isinstance(raised, GeneratorExit) or not context.is_active():
        return str(grpc.StatusCode.CANCELLED.name)
    code = context.code()
    if code is None:
        return "OK" if raised is None else "UNKNOWN"
    if isinstance(code, grpc.StatusCode):
        return str(code.name)
    return next((known.name for known in grpc.StatusCode if known.value[0] == code), "UNKNOWN")
