"""Bloom filters of Parquet columns: whether a file may hold an id, from a few bytes of it.

pyarrow writes them and has no way to ask them. The form is Parquet's split block filter: a Thrift header,
then blocks of eight 32-bit words; the hash is XXH64 with seed 0 of the value's bytes. One id costs
microseconds, however long the file is. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

_ALL: Final = (1 << 64) - 1
_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
)  # fmt: skip
_SALTS: Final = (
    0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31,
)  # fmt: skip
_BLOCK: Final = struct.Struct("<8I")
_NUMBER: Final = b"\x15"
"""Field 1, a 32-bit integer: the length of the blocks."""
_FORM: Final = b"\x1c\x1c\x00\x00" * 3 + b"\x00"
"""Fields 2 to 4: the first algorithm, hash and compression there are; end."""


def may_hold(data: bytes, hashes: Iterable[int]) -> bool:
    """Whether one of the values hashed to `hashes` may be in the column of the filter `data`; False is sure.

    Raises ValueError for a filter of another form.
    """
    start, size = _header(data)
    for each in hashes:
        at = start + ((each >> 32) * (size // _BLOCK.size) >> 32) * _BLOCK.size
        words = _BLOCK.unpack_from(data, at)
        low = each & 0xFFFFFFFF
        bits = (1 << ((low * salt & 0xFFFFFFFF) >> 27) for salt in _SALTS)
        if all(word & bit for word, bit in zip(words, bits, strict=True)):
            return True
    return False


def _header(data: bytes) -> tuple[int, int]:
    """Where the blocks begin, and their length in bytes."""
    size = shift = 0
    at = 1
    while at < len(data) and at < 6:
        size |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            break
    size >>= 1  # zigzag, of a length
    start = at + len(_FORM)
    if (
        data[:1] != _NUMBER
        or data[at:start] != _FORM
        or size % _BLOCK.size
        or not 0 < size <= len(data) - start
    ):
        raise ValueError("a Bloom filter of another form")
    return start, size


def xxh64(data: bytes) -> int:
    """XXH64 with seed 0."""
    at, rest = 0, len(data)
    if rest >= 32:
        lanes = [(_P1 + _P2) & _ALL, _P2, 0, -_P1 & _ALL]
        while rest - at >= 32:
            lanes = [
                _round(lane, word)
                for lane, word in zip(lanes, struct.unpack_from("<4Q", data, at), strict=True)
            ]
            at += 32
        value = sum(_turned(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _ALL
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * _P1 + _P4) & _ALL
    else:
        value = _P5
    value = (value + rest) & _ALL
    while rest - at >= 8:
        value ^= _round(0, struct.unpack_from("<Q", data, at)[0])
        value = (_turned(value, 27) * _P1 + _P4) & _ALL
        at += 8
    if rest - at >= 4:
        value ^= struct.unpack_from("<I", data, at)[0] * _P1 & _ALL
        value = (_turned(value, 23) * _P2 + _P3) & _ALL
        at += 4
    for byte in data[at:]:
        value = _turned(value ^ (byte * _P5 & _ALL), 11) * _P1 & _ALL
    value = (value ^ value >> 33) * _P2 & _ALL
    value = (value ^ value >> 29) * _P3 & _ALL
    return value ^ value >> 32


def _round(lane: int, word: int) -> int:
    return _turned((lane + word * _P2) & _ALL, 31) * _P1 & _ALL


def _turned(value: int, by: int) -> int:
    return (value << by | value >> (64 - by)) & _ALL
