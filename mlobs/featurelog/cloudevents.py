"""Blocks <-> CloudEvents 1.0 in structured JSON mode, one event a record or label. Pure.

    {"specversion": "1.0", "id": <event id>, "source": "/mlobs/<writer>", "type": "mlobs.record.v1",
     "subject": <prediction id>, "time": "2026-11-23T12:00:00.000000Z", "datacontenttype": "application/json",
     "data": {"fields": {...}, "features": {...}, "stages": {...}, "nonfinite": {"features.x": "nan"}}}

Structured and not binary mode: an event stays whole in a file, a dead letter or another transport. JSON has
no NaN and no infinity: such a value is null in its place and named in `nonfinite`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from mlobs.featurelog.blocks import Block, block_numbers, numbers_bytes, pack_column, unpack_column
from mlobs.featurelog.frames import LABELS, RECORDS

TYPES: Final = {RECORDS: "mlobs.record.v1", LABELS: "mlobs.label.v1"}
CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"
_KINDS: Final = {name: kind for kind, name in TYPES.items()}
_GROUPS: Final = ("fields", "features", "stages")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder().encode


class Event(NamedTuple):
    id: str
    key: str
    """The prediction id: a prediction and its labels go to one partition, in order."""
    value: bytes


class Told(NamedTuple):
    """An event, read."""

    kind: int
    writer: str
    number: int
    data: dict[str, dict[str, Any]]


def events(kind: int, block: Block) -> Iterator[Event]:
    """The events of a block, in order. Raises ValueError for a broken block."""
    rows, writer = block["n"], block["writer"]
    groups = [_rows(block[group], rows) for group in _GROUPS]
    for number, (fields, fields_odd), (features, features_odd), (stages, stages_odd) in zip(
        block_numbers(block), *groups, strict=True
    ):
        data: dict[str, Any] = {"fields": fields, "features": features, "stages": stages}
        if fields_odd or features_odd or stages_odd:
            named = zip(_GROUPS, (fields_odd, features_odd, stages_odd), strict=True)
            data["nonfinite"] = {f"{group}.{name}": odd[name] for group, odd in named for name in odd}
        key = str(fields.get("prediction_id") or "")
        event_id = f"{writer}-{number}"
        envelope = {
            "specversion": "1.0",
            "id": event_id,
            "source": f"/mlobs/{writer}",
            "type": TYPES[kind],
            "subject": key,
            "time": _time(fields.get("event_time")),
            "datacontenttype": "application/json",
            "data": data,
        }
        if not key:
            del envelope["subject"]  # the specification forbids an empty one
        yield Event(event_id, key, _encode(envelope))


def _rows(columns: dict[str, Any], rows: int) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Each row as a dictionary, and what JSON cannot say of it."""
    names = list(columns)
    values, odd = [], set()
    for name, column in columns.items():
        unpacked = unpack_column(column, rows)
        if column[0] in ("f", "x") and not all(map(_finite, unpacked)):
            odd.add(name)
        values.append(unpacked)
    if not names:
        for _ in range(rows):
            yield {}, {}
        return
    for row in zip(*values, strict=True):
        own = dict(zip(names, row, strict=True))
        strange = {name: str(own[name]) for name in odd if not _finite(own[name])}
        yield own, strange


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _time(seconds: Any) -> str:
    """RFC 3339; the first moment of 1970 for a time that is none."""
    try:
        at = _EPOCH + timedelta(seconds=float(seconds))
    except (TypeError, ValueError, OverflowError):
        at = _EPOCH
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_event(value: bytes) -> Told:
    """The event in a message. Raises ValueError for one that is none of ours."""
    try:
        envelope = msgspec.json.decode(value)
        writer, _, number = envelope["id"].rpartition("-")
        data = envelope["data"]
        for path, text in data.get("nonfinite", {}).items():
            group, _, name = path.partition(".")
            data[group][name] = float(text)
        return Told(
            _KINDS[envelope["type"]], writer, int(number), {group: dict(data[group]) for group in _GROUPS}
        )
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as problem:
        raise ValueError(f"no event of mlobs: {type(problem).__name__}") from None


def block_of(told: Sequence[Told]) -> Block:
    """One block of events of one kind, writer and model. Raises TypeError for values that are no scalars."""
    block: Block = {
        "v": 1,
        "writer": told[0].writer,
        "n": len(told),
        "seq": numbers_bytes("q", [each.number for each in told]),
    }
    for group in _GROUPS:
        names = list(dict.fromkeys(name for each in told for name in each.data[group]))
        block[group] = {name: pack_column([each.data[group].get(name) for each in told]) for name in names}
    return block
