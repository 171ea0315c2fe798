"""A block: records of one model and one set of feature names, by column, as msgpack.

By column, because both sides are faster so: the writer packs thirty floats of a hundred records with thirty
calls, the reader hands the bytes to Arrow as they are. A payload is a msgpack map

    v        1
    writer   `<host>-<boot>-<process start>`; with a number of `seq` it is the event id
    n        rows
    seq      int64 little-endian, n of them
    offered  numbers given out by the writer so far
    fields   {name: column}     record fields; names that a reader does not know are kept
    features {name: column}
    stages   {name: column}
    gone     int64 little-endian: numbers that stood here and were erased; not in every block
    pad      zeros: an erasure leaves every frame as long as it was, so that positions stay good

and a column is a list whose first item says how the rest is packed:

    ["n"]                        all null
    ["f", bytes, valid]          float64, little-endian; valid is None or one byte (0, 1) a row
    ["i", bytes, valid]          int64, little-endian
    ["b", bytes, valid]          boolean, one byte a row
    ["c", text]                  the same text in every row
    ["s", [text or null, ...]]
    ["x", [scalar, ...]]         mixed types, each as it was

Pure.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from mlobs.records import FeatureRecord, LabelRecord

BLOCK_VERSION: Final = 1

_NONE = type(None)
_CODES: Final = {float: ("f", "d", 0.0), int: ("i", "q", 0), bool: ("b", "B", False)}
_SWAP: Final = sys.byteorder == "big"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode

Column = list[Any]
Block = dict[str, Any]

RECORD_FIELDS: Final = tuple(
    name for name in FeatureRecord._fields if name not in ("event_id", "features", "stage_durations_s")
)
LABEL_FIELDS: Final = tuple(name for name in LabelRecord._fields if name != "event_id")


def pack_column(values: Sequence[Any]) -> Column:
    """The column of `values`, each None, bool, int (64 bit), float or well-formed str."""
    kinds = set(map(type, values))
    nullable = _NONE in kinds
    kinds.discard(_NONE)
    if not kinds:
        return ["n"]
    if len(kinds) > 1:
        return ["x", list(values)]
    (kind,) = kinds
    if kind is str:
        first = values[0]
        if not nullable and values.count(first) == len(values):
            return ["c", first]
        return ["s", list(values)]
    if kind not in _CODES:
        raise TypeError(f"a column cannot hold {kind.__name__}")
    code, typecode, filler = _CODES[kind]
    valid = None
    if nullable:
        valid = bytes([value is not None for value in values])
        values = [filler if value is None else value for value in values]
    return [code, numbers_bytes(typecode, values), valid]


def numbers_bytes(typecode: str, values: Iterable[Any]) -> bytes:
    """`values` as little-endian bytes of an `array` of `typecode`. Raises OverflowError beyond 64 bits."""
    packed = array(typecode, values)
    if _SWAP:
        packed.byteswap()
    return packed.tobytes()


def bytes_numbers(typecode: str, data: bytes) -> array[Any]:
    unpacked = array(typecode)
    unpacked.frombytes(data)
    if _SWAP:
        unpacked.byteswap()
    return unpacked


def unpack_column(column: Column, rows: int) -> list[Any]:
    """The values of `column`; raises ValueError when it does not hold `rows` of them."""
    kind = column[0]
    if kind == "n":
        return [None] * rows
    if kind == "c":
        return [column[1]] * rows
    if kind in ("s", "x"):
        values = list(column[1])
    elif kind in ("f", "i", "b"):
        typecode = {"f": "d", "i": "q", "b": "B"}[kind]
        values = bytes_numbers(typecode, column[1]).tolist()
        if kind == "b":
            values = [bool(value) for value in values]
        if column[2] is not None:
            values = [value if valid else None for value, valid in zip(values, column[2], strict=True)]
    else:
        raise ValueError(f"a column packed as {kind!r} is unknown to this version")
    if len(values) != rows:
        raise ValueError(f"a column holds {len(values)} rows of {rows}")
    return values


def pack_block(
    writer: str,
    numbers: Sequence[int],
    offered: int,
    fields: Mapping[str, Sequence[Any]],
    features: Mapping[str, Sequence[Any]],
    stages: Mapping[str, Sequence[Any]],
) -> bytes:
    """The payload of one block; every sequence has a value a row."""
    return _encode(
        {
            "v": BLOCK_VERSION,
            "writer": writer,
            "n": len(numbers),
            "seq": numbers_bytes("q", numbers),
            "offered": offered,
            "fields": {name: pack_column(values) for name, values in fields.items()},
            "features": {name: pack_column(values) for name, values in features.items()},
            "stages": {name: pack_column(values) for name, values in stages.items()},
        }
    )


def pack_end(writer: str, offered: int, ledger: Mapping[str, Any]) -> bytes:
    return _encode({"v": BLOCK_VERSION, "writer": writer, "n": 0, "offered": offered, "ledger": dict(ledger)})


def unpack_block(payload: bytes | memoryview) -> Block:
    """The block of a payload. Raises ValueError for what is no block (a newer one is read as far as it is
    known).
    """
    try:
        block = _decode(payload)
        rows = block["n"]
        if not isinstance(block["writer"], str) or not isinstance(rows, int):
            raise ValueError("writer and n")
        if rows and len(block["seq"]) != 8 * rows:
            raise ValueError("seq")
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"no block: {type(problem).__name__}: {problem}") from None
    for part in ("fields", "features", "stages"):
        block.setdefault(part, {})
    return block


def block_numbers(block: Block) -> array[Any]:
    return bytes_numbers("q", block["seq"])


def gone_numbers(block: Block) -> list[int]:
    """The numbers that were erased from the block, ascending."""
    gone = block.get("gone")
    return bytes_numbers("q", gone).tolist() if isinstance(gone, bytes) and len(gone) % 8 == 0 else []
