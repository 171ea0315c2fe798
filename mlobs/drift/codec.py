"""Bytes of a state: versioned, checksummed, nothing that could run. Pure.

    magic | version u16 | length u64 | payload: zlib over msgpack | CRC-32 of the payload

Arrays travel as little-endian integers. The canonical part holds integers and extremes alone, so that equal
rows give equal bytes; what is floating stands beside it.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, NoReturn

import msgspec
import numpy as np

from mlobs.drift.block import Block
from mlobs.drift.deep import Deep, Moments
from mlobs.drift.state import ColumnCounts, State, Stratum
from mlobs.errors import UnavailableError, UnreadableError

STATE_MAGIC = b"MLDST\0"
VERSION = 1
_HEAD = struct.Struct("<6sHQ")
_GREATEST = 1 << 30
"""A payload that unpacks to more is refused: nothing of ours comes near it."""
_SCALARS = (
    "rows", "null", "nan", "pos_inf", "neg_inf", "below", "above", "wrong", "missing", "low", "high",
)  # fmt: skip
MISFITS = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)
"""What reading a payload of another shape raises."""


def canonical_bytes(state: State) -> bytes:
    """The integers of a state (with least and greatest values): equal rows give equal bytes, in whatever
    batches and order they were profiled and merged."""
    return frame(STATE_MAGIC, {"reference": state.reference} | state_out(state))


def dump_state(state: State) -> bytes:
    """The whole state: the canonical part, and beside it what is floating (moments, blocks)."""
    content = {"reference": state.reference, "floating": floating_out(state)} | state_out(state)
    return frame(STATE_MAGIC, content)


def load_state(data: bytes, where: str) -> State:
    """The state of `dump_state`. Raises UnreadableError for broken bytes, UnavailableError for a newer
    version.
    """
    payload = unframe(STATE_MAGIC, data, where, "a stored state")
    try:
        return state_in(payload, payload["reference"], payload.get("floating") or [])
    except MISFITS as problem:
        refuse(where, "a stored state", f"a field that does not fit ({type(problem).__name__})")


def frame(magic: bytes, content: object) -> bytes:
    """A file's bytes; equal content gives equal bytes."""
    payload = zlib.compress(msgspec.msgpack.encode(content, order="deterministic"), 1)
    return _HEAD.pack(magic, VERSION, len(payload)) + payload + struct.pack("<I", zlib.crc32(payload))


def unframe(magic: bytes, data: bytes, where: str, what: str) -> Any:
    """The content of `frame`. Raises as `load_state`."""
    if len(data) < _HEAD.size or data[:6] != magic:
        refuse(where, what, "another kind of file")
    _, version, length = _HEAD.unpack_from(data)
    if version > VERSION:
        raise UnavailableError.of(
            where,
            f"format version {VERSION} or older",
            f"version {version}",
            "use the newer mlobs that wrote it",
        )
    payload = data[_HEAD.size : _HEAD.size + length]
    if len(data) != _HEAD.size + length + 4 or struct.unpack("<I", data[-4:])[0] != zlib.crc32(payload):
        refuse(where, what, "bytes whose checksum does not fit")
    try:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(payload, _GREATEST)
        content = msgspec.msgpack.decode(plain)
    except (zlib.error, msgspec.DecodeError):
        refuse(where, what, "bytes that do not unpack")
    if unpacker.unconsumed_tail:
        refuse(where, what, "more than it can hold")
    return content


def refuse(where: str, what: str, got: str) -> NoReturn:
    """Raise UnreadableError for bytes that are not what they should be."""
    raise UnreadableError.of(where, what, got, "build it again")


def state_out(state: State) -> dict[str, Any]:
    """The canonical content of a state."""
    return {
        "strata": [
            {
                "weight": weight,
                "rows": stratum.rows,
                "bad": dict(sorted(stratum.bad_rows.items())),
                "extra": dict(sorted(stratum.extra.items())),
                "seen": None if stratum.rows_seen is None else stratum.rows_seen.tobytes(),
                "columns": {name: _counts_out(counts) for name, counts in sorted(stratum.columns.items())},
            }
            for weight, stratum in sorted(state.strata.items())
        ]
    }


def state_in(payload: dict[str, Any], reference: str, floating: list[Any]) -> State:
    """The state of `state_out`, with what is floating put back."""
    rest = {entry["weight"]: entry for entry in floating}
    strata = {}
    for entry in payload["strata"]:
        weight = float(entry["weight"])
        extra = rest.get(weight, {})
        moments = extra.get("moments", {})
        strata[weight] = Stratum(
            entry["rows"],
            {name: _counts_in(found, moments.get(name)) for name, found in entry["columns"].items()},
            entry["bad"],
            entry["extra"],
            _block_in(extra.get("block")),
            None if entry["seen"] is None else np.frombuffer(entry["seen"], np.uint8),
        )
    return State(reference, strata)


def _counts_out(counts: ColumnCounts) -> dict[str, Any]:
    return {
        "n": [getattr(counts, scalar) for scalar in _SCALARS],
        "cells": counts.cells.astype("<i8").tobytes(),
        "sums": counts.sums.astype("<i8").tobytes(),
        "unseen": dict(sorted(counts.unseen.items())),
        "outside": sorted(counts.outside.items()),
        "deep": None if counts.deep is None else _deep_out(counts.deep),
    }


def _counts_in(found: dict[str, Any], moments: list[float] | None) -> ColumnCounts:
    return ColumnCounts(
        cells=np.frombuffer(found["cells"], dtype="<i8").astype(np.int64),
        sums=np.frombuffer(found["sums"], dtype="<i8").astype(np.int64),
        unseen=found["unseen"],
        outside={int(key): int(count) for key, count in found["outside"]},
        deep=None if found["deep"] is None else _deep_in(found["deep"], moments),
        **dict(zip(_SCALARS, found["n"], strict=True)),
    )


def _deep_out(deep: Deep) -> dict[str, Any]:
    return {
        "keys": np.diff(deep.keys, prepend=np.uint64(0)).astype("<u4").tobytes(),
        "counts": deep.counts.astype("<i8").tobytes(),
        "total": deep.total.to_bytes((deep.total.bit_length() + 8) // 8, "little", signed=True),
        "words": dict(sorted(deep.words.items())),
        "other": deep.other,
        "registers": deep.registers.tobytes(),
    }


def _deep_in(found: dict[str, Any], moments: list[float] | None) -> Deep:
    n, mean, m2 = moments or (0, 0.0, 0.0)
    return Deep(
        np.cumsum(np.frombuffer(found["keys"], "<u4"), dtype=np.uint64),
        np.frombuffer(found["counts"], "<i8").astype(np.int64),
        int.from_bytes(found["total"], "little", signed=True),
        found["words"],
        found["other"],
        np.frombuffer(found["registers"], np.uint8),
        Moments(int(n), mean, m2),
    )


def floating_out(state: State) -> list[dict[str, Any]]:
    """What is floating in a state: moments and blocks, by stratum."""
    return [
        {
            "weight": weight,
            "moments": {
                name: [counts.deep.moments.n, counts.deep.moments.mean, counts.deep.moments.m2]
                for name, counts in sorted(stratum.columns.items())
                if counts.deep is not None
            },
            "block": _block_out(stratum.block),
        }
        for weight, stratum in sorted(state.strata.items())
    ]


def _block_out(block: Block | None) -> dict[str, Any] | None:
    if block is None:
        return None
    return {
        "names": list(block.names),
        "n": block.n,
        "mean": block.mean.astype("<f8").tobytes(),
        "comoment": block.comoment.astype("<f8").tobytes(),
    }


def _block_in(found: dict[str, Any] | None) -> Block | None:
    if found is None:
        return None
    names = tuple(found["names"])
    comoment = np.frombuffer(found["comoment"], "<f8").reshape(len(names), len(names))
    return Block(names, found["n"], np.frombuffer(found["mean"], "<f8"), comoment)
