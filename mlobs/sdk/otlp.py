"""The OTLP exporter for an address: by HTTP or gRPC, from the extra [otlp]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlobs.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

EXPORT_TIMEOUT_S = 5.0
"""A batch that the collector has not taken by then is dropped and counted."""


def exporter_for(url: str) -> Callable[[], SpanExporter]:
    """What makes the exporter: `http(s)://host:4318` by HTTP (path `/v1/traces` unless given), `grpc://` and
    `grpcs://` by gRPC. Raises MissingExtraError now rather than in the sending thread.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("grpc", "grpcs"):
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc
        except ImportError:
            raise MissingExtraError.for_extra("OTLP by gRPC", "otlp") from None
        return lambda: Grpc(endpoint=rest, insecure=scheme == "grpc", timeout=EXPORT_TIMEOUT_S)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http
    except ImportError:
        raise MissingExtraError.for_extra("OTLP by HTTP", "otlp") from None
    endpoint = url if "/" in rest else f"{url}/v1/traces"
    Http(endpoint=endpoint)  # connects nowhere, and loads what it would load late: see `api._open_spans`
    return lambda: Http(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
