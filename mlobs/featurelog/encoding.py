"""Raw records -> masked blocks -> frames. Pure but for the masker's counters.

Records of one model and one set of names become one block; where a record breaks its block, each is tried
alone, so that one strange value costs one record at most, and that one is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from mlobs.featurelog.blocks import pack_block
from mlobs.featurelog.frames import LABELS, RECORDS, pack
from mlobs.featurelog.masking import Masker
from mlobs.featurelog.scalars import plain
from mlobs.records import FeatureRecord, LabelRecord

Numbered = tuple[int, FeatureRecord | LabelRecord]

UNENCODABLE: Final = "unencodable"
MAX_FEATURES: Final = 2000
"""Names beyond it are left out and counted: a dictionary keyed by user is no feature set."""

_F: Final = {name: place for place, name in enumerate(FeatureRecord._fields)}
_FEATURES: Final = _F["features"]
_STAGES: Final = _F["stage_durations_s"]
_WORDS: Final = tuple(
    (name, _F[name]) for name in ("service", "model", "model_version", "outcome", "sampling_reason")
)
"""Words of the code, not of the data."""
_DATA_WORDS: Final = tuple((name, _F[name]) for name in ("decision", "variant", "segment"))
_IDS: Final = tuple((name, _F[name]) for name in ("prediction_id", "trace_id", "span_id"))
_FLOATS: Final = tuple((name, _F[name]) for name in ("event_time", "duration_s", "weight"))


class Encoded(NamedTuple):
    data: bytes
    """Whole frames, ready to append."""
    rows: int
    """Records in them."""
    lost: int
    """Records that could not be encoded."""


def encode(batch: Sequence[Numbered], writer: str, offered: int, masker: Masker) -> Encoded:
    """The frames of `batch`. Never raises for what a record holds."""
    groups: dict[Any, list[Numbered]] = {}
    broken: list[Numbered] = []
    for pair in batch:
        try:
            groups.setdefault(_shape(pair[1]), []).append(pair)
        except Exception:  # noqa: BLE001 - a host's mapping may raise anything; the record is tried alone below
            broken.append(pair)
    frames: list[bytes] = []
    count = 0
    for pairs in groups.values():
        try:
            frames.append(_frame(pairs, writer, offered, masker))
            count += len(pairs)
        except Exception:  # noqa: BLE001 - as above: found out record by record
            broken.extend(pairs)
    lost = 0
    for pair in broken:
        try:
            frames.append(_frame([_copied(pair)], writer, offered, masker))
            count += 1
        except Exception:  # noqa: BLE001 - counted by the caller as dropped{unencodable}
            lost += 1
    if lost:
        masker.odd[UNENCODABLE] += lost
    return Encoded(b"".join(frames), count, lost)


def _shape(record: Any) -> Any:
    if type(record) is LabelRecord:
        return None
    return record[4], tuple(record[_FEATURES]), tuple(record[_STAGES])


def _copied(pair: Numbered) -> Numbered:
    """The record with mappings of its own: a host that still writes to its own is met once."""
    number, record = pair
    if isinstance(record, LabelRecord):
        return pair
    return number, record._replace(
        features=_as_dict(record.features), stage_durations_s=_as_dict(record.stage_durations_s)
    )


def _as_dict(mapping: Any) -> dict[Any, Any]:
    for _attempt in range(3):
        try:
            return dict(mapping)
        except RuntimeError:  # its size changed while it was copied
            continue
        except Exception:  # noqa: BLE001 - not a mapping at all: the record is kept without it
            break
    return {}


def _frame(pairs: list[Numbered], writer: str, offered: int, masker: Masker) -> bytes:
    numbers = [number for number, _ in pairs]
    records = [record for _, record in pairs]
    if isinstance(records[0], LabelRecord):
        payload = pack_block(writer, numbers, offered, _label_fields(records, masker), {}, {})
        return pack(LABELS, len(pairs), payload)
    columns: list[Sequence[Any]] = list(zip(*records, strict=True))
    model = columns[4][0]
    features: dict[str, Any] = {}
    rows = columns[_FEATURES]
    # Lists behind the stars: a tuple made of an iterator goes to a free list of CPython that only fills.
    for name, values in zip(
        list(rows[0])[:MAX_FEATURES], zip(*[row.values() for row in rows], strict=True), strict=False
    ):
        mask = masker.feature(model, name)
        if mask is None:
            masker.odd["masked_out"] += len(values)
            continue
        features[masker.name(name)] = mask(values)
    if len(rows[0]) > MAX_FEATURES:
        masker.odd["too_many_features"] += len(rows)
    stages = {
        masker.name(name): _floats(values, masker)
        for name, values in zip(
            list(columns[_STAGES][0]),
            zip(*[row.values() for row in columns[_STAGES]], strict=True),
            strict=False,
        )
    }
    payload = pack_block(writer, numbers, offered, _record_fields(columns, masker), features, stages)
    return pack(RECORDS, len(pairs), payload)


def _record_fields(columns: list[Sequence[Any]], masker: Masker) -> dict[str, Sequence[Any]]:
    fields: dict[str, Sequence[Any]] = {name: masker.declared(columns[place]) for name, place in _WORDS}
    for name, place in _DATA_WORDS:
        fields[name] = masker.words(columns[place])
    for name, place in _IDS:
        fields[name] = masker.ids(columns[place])
    for name, place in _FLOATS:
        fields[name] = _floats(columns[place], masker)
    mask = masker.prediction()
    if mask is not None:
        fields["prediction"] = mask(columns[_F["prediction"]])
    fields["entity_key"] = masker.entities(columns[_F["entity_key"]])
    fields["record_version"] = [int(version) for version in columns[_F["record_version"]]]
    return fields


def _label_fields(records: Iterable[Any], masker: Masker) -> dict[str, Sequence[Any]]:
    _ids, prediction_ids, labels, times, services, versions = zip(*records, strict=True)
    mask = masker.prediction()
    return {
        "prediction_id": masker.ids(prediction_ids),
        "label": [None] * len(labels) if mask is None else mask(labels),
        "event_time": _floats(times, masker),
        "service": masker.declared(services),
        "record_version": [int(version) for version in versions],
    }


def _floats(values: Sequence[Any], masker: Masker) -> Sequence[Any]:
    if frozenset(map(type, values)) == {float}:
        return values
    return [_float(value, masker) for value in values]


def _float(value: Any, masker: Masker) -> float | None:
    value = plain(value, masker.odd)
    try:
        return None if value is None or isinstance(value, str) else float(value)
    except OverflowError:
        return None
