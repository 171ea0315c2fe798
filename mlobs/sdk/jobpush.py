"""A job's metrics to an OTLP collector, once, at the end of a run: for a process that nobody scrapes."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource

from mlobs.errors import MissingExtraError
from mlobs.sdk.jobfile import Samples
from mlobs.sdk.meter import COUNTER

TIMEOUT_S = 2.0
"""As long as the end of a run waits for the collector."""


def push(samples: Samples, *, service: str, environment: str, url: str) -> bool:
    """Send one run's samples to `http(s)://host:4318` or `grpc(s)://host:4317`; True when they were taken.

    Counters carry this run's increments and leave off `_total`, which the collector's way to Prometheus adds.
    Raises MissingExtraError without the extra [otlp].
    """
    exporter = _exporter(url)
    resource = {"service.name": service}
    if environment:
        resource["deployment.environment.name"] = environment
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], Resource(resource), shutdown_on_exit=False)
    try:
        meter = provider.get_meter("mlobs")
        made: dict[str, Any] = {}
        for (family, values), value in samples.items():
            attributes = dict(zip(family.labels, values, strict=True))
            if family.kind == COUNTER:
                name = family.name.removesuffix("_total")
                counter = made.get(name) or made.setdefault(name, meter.create_counter(name, "", family.help))
                counter.add(value, attributes)
            else:
                gauge = made.get(family.name) or made.setdefault(
                    family.name, meter.create_gauge(family.name, "", family.help)
                )
                gauge.set(value, attributes)
        data = reader.get_metrics_data()
        if data is None:
            return False
        return exporter.export(data, timeout_millis=TIMEOUT_S * 1000) is MetricExportResult.SUCCESS
    finally:
        provider.shutdown()
        exporter.shutdown(timeout_millis=TIMEOUT_S * 1000)


def _exporter(url: str) -> MetricExporter:
    scheme, _, rest = url.partition("://")
    if scheme in ("grpc", "grpcs"):
        try:
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc
        except ImportError:
            raise MissingExtraError.for_extra("OTLP by gRPC", "otlp") from None
        return Grpc(endpoint=rest, insecure=scheme == "grpc", timeout=TIMEOUT_S)
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http
    except ImportError:
        raise MissingExtraError.for_extra("OTLP by HTTP", "otlp") from None
    return Http(endpoint=url if "/" in rest else f"{url}/v1/metrics", timeout=TIMEOUT_S)
