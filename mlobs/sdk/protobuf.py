"""Metric families -> the Prometheus protobuf exposition, encoded by hand, without a protobuf library. Pure.

Each family is one length-delimited `io.prometheus.client.MetricFamily`. Field numbers are those of
https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.samples import Exemplar, Sample

from mlobs.sdk.buckets import SCHEMA
from mlobs.sdk.native import Native

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

_COUNTER, _GAUGE, _UNTYPED, _HISTOGRAM = 0, 1, 3, 4
_VARINT, _DOUBLE, _BYTES = 0, 1, 2


@dataclass(frozen=True, slots=True)
class NativeFamily:
    """A family of native histograms: (labels, histogram, its exemplars) of each series."""

    name: str
    help: str
    series: tuple[tuple[Mapping[str, str], Native, tuple[Exemplar, ...]], ...]


def accepted(accept: str) -> bool:
    """Whether a scraper asks for this format."""
    return any(
        part.split(";")[0].strip().lower() == "application/vnd.google.protobuf"
        and "io.prometheus.client.metricfamily" in part.lower()
        and "delimited" in part.lower()
        for part in accept.split(",")
    )


def encode(families: Iterable[Metric], natives: Iterable[NativeFamily] = ()) -> bytes:
    """The exposition's body; a sample of a kind that the format does not know is left out."""
    messages = [*map(_family, families), *map(_native_family, natives)]
    return b"".join(_varint(len(message)) + message for message in messages if message)


# -- wire format --------------------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # a negative one is its two's complement, ten bytes
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else -(number << 1) - 1


def _int(field: int, number: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(number)


def _double(field: int, number: float) -> bytes:
    return _varint(field << 3 | _DOUBLE) + struct.pack("<d", number)


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(body)) + body


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode("utf-8", "backslashreplace"))


def _labels(labels: Mapping[str, str], field: int = 1) -> bytes:
    return b"".join(_message(field, _text(1, name) + _text(2, value)) for name, value in labels.items())


def _exemplar(field: int, exemplar: Exemplar | None) -> bytes:
    if exemplar is None:
        return b""
    body = _labels(exemplar.labels) + _double(2, exemplar.value)
    if exemplar.timestamp is not None:
        at = float(exemplar.timestamp)
        seconds = math.floor(at)
        body += _message(3, _int(1, seconds) + _int(2, int((at - seconds) * 1e9)))
    return _message(field, body)


# -- families --------------------------------------------------------------------------------------------


def _head(name: str, text: str, kind: int) -> bytes:
    return _text(1, name) + _text(2, text) + _int(3, kind)


def _family(family: Metric) -> bytes:
    if family.type == "histogram":
        series = b"".join(_message(4, each) for each in _histograms(family))
        return _head(family.name, family.documentation, _HISTOGRAM) + series if series else b""
    if family.type == "counter":
        name, kind, field = f"{family.name}_total", _COUNTER, 3
    elif family.type == "gauge":
        name, kind, field = family.name, _GAUGE, 2
    elif family.type == "info":
        name, kind, field = f"{family.name}_info", _GAUGE, 2
    else:
        name, kind, field = family.name, _UNTYPED, 5
    series = b"".join(
        _message(4, _labels(sample.labels) + _message(field, _value(sample, kind)))
        for sample in family.samples
        if sample.name == name
    )
    return _head(name, family.documentation, kind) + series if series else b""


def _value(sample: Sample, kind: int) -> bytes:
    return _double(1, sample.value) + (_exemplar(2, sample.exemplar) if kind == _COUNTER else b"")


def _histograms(family: Metric) -> Iterator[bytes]:
    """A metric for each set of labels; their buckets stand together, as the collector wrote them."""
    by_labels: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in family.samples:
        labels = tuple(sorted(item for item in sample.labels.items() if item[0] != "le"))
        by_labels.setdefault(labels, []).append(sample)
    for labels, samples in by_labels.items():
        body = b""
        for sample in samples:
            if sample.name.endswith("_bucket"):
                bucket = _int(1, int(sample.value)) + _double(2, float(sample.labels["le"]))
                body += _message(3, bucket + _exemplar(3, sample.exemplar))
            elif sample.name.endswith("_count"):
                body += _int(1, int(sample.value))
            elif sample.name.endswith("_sum"):
                body += _double(2, sample.value)
        yield _labels(dict(labels)) + _message(7, body)


def _native_family(family: NativeFamily) -> bytes:
    series = b"".join(
        _message(4, _labels(labels) + _message(7, _native(histogram, exemplars)))
        for labels, histogram, exemplars in family.series
    )
    return _head(family.name, family.help, _HISTOGRAM) + series if series else b""


def _native(histogram: Native, exemplars: tuple[Exemplar, ...]) -> bytes:
    return b"".join(
        (
            _int(1, histogram.count),
            _double(2, histogram.total),
            _int(5, _zigzag(SCHEMA)),
            _double(6, histogram.zero_threshold),
            _int(7, histogram.zero_count),
            *(
                _message(12, _int(1, _zigzag(gap)) + _int(2, length))
                # An empty one of no length says "native" where nothing was observed yet.
                for gap, length in histogram.spans or ((0, 0),)
            ),
            *(_int(13, _zigzag(delta)) for delta in histogram.deltas),
            *(_exemplar(16, exemplar) for exemplar in exemplars),
        )
    )
