"""The OTLP exporter for an address: by HTTP or gRPC, from the extra [otlp]."""

from __future__ import annotations

import contextlib
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
        import grpc._channel  # weight: what the first channel loads, see `_load_http`
        import grpc.experimental  # noqa: F401

        return lambda: Grpc(endpoint=rest, insecure=scheme == "grpc", timeout=EXPORT_TIMEOUT_S)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http
    except ImportError:
        raise MissingExtraError.for_extra("OTLP by HTTP", "otlp") from None
    endpoint = url if "/" in rest else f"{url}/v1/traces"

    def make() -> SpanExporter:
        return Http(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)

    _load_http(make)
    return make


def _load_http(make: Callable[[], SpanExporter]) -> None:
    """Load now, in the thread of `init`, all that the sending thread needs.

    A fork while a thread imports leaves the child that module's lock, held by nobody: its own sending thread
    would wait for it for ever, and so would the host's `import requests`.
    """
    import encodings.idna  # noqa: F401 - weight: what a first request loads
    import netrc  # noqa: F401

    with contextlib.suppress(Exception):  # what is wrong is told, and counted, where it is sent
        make().shutdown()
