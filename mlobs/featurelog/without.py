"""Frames without some of their rows, as long as before: positions of readers stay good. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from mlobs.featurelog.blocks import Block, Column, block_numbers, gone_numbers, numbers_bytes, unpack_block
from mlobs.featurelog.frames import END, HEADER_SIZE, LABELS, RECORDS, Damage, Frame, pack, unpack

_WIDTH: Final = {"f": 8, "i": 8, "b": 1}
_GROUPS: Final = ("fields", "features", "stages")
_BIN8, _BIN32 = b"\xc4", b"\xc6"

Chooser = Callable[[int, Block], Any]
"""(kind, block) -> the rows that go, as booleans."""


class Cut(NamedTuple):
    """A segment's bytes without what was to go."""

    data: bytes
    records: int
    labels: int
    blanked: int
    """Stretches that could not be decoded and held one of the needles: zeros now."""


def cut(data: bytes, chooser: Chooser, needles: tuple[bytes, ...]) -> Cut:
    """`data`, a segment, without the rows that `chooser` names; the same length."""
    pieces: list[bytes] = []
    at = 0
    gone = {RECORDS: 0, LABELS: 0}
    blanked = 0
    for stretch, frame, block in stretches(data):
        at += len(stretch)
        if frame is None or block is None:
            held = any(needle in stretch for needle in needles)
            blanked += held
            pieces.append(bytes(len(stretch)) if held else stretch)
            continue
        rows = chooser(frame.kind, block) if frame.kind in gone and block["n"] else np.zeros(0, bool)
        count = int(np.count_nonzero(rows))
        if count:
            gone[frame.kind] += count
            stretch = pack(frame.kind, frame.rows - count, shortened(block, ~rows, len(frame.payload)))
        pieces.append(stretch)
    return Cut(b"".join(pieces), gone[RECORDS], gone[LABELS], blanked)


def stretches(data: bytes) -> Iterator[tuple[bytes, Frame | None, Block | None]]:
    """All bytes of a segment in order: frames with their block, and what is none of the two."""
    for found in unpack(data):
        if isinstance(found, Damage):
            yield data[found.start : found.end], None, None
            continue
        stretch = data[found.end - len(found.payload) - HEADER_SIZE : found.end]
        try:
            block = unpack_block(found.payload)
        except ValueError:
            yield stretch, found, None
            continue
        yield stretch, found, block if found.kind in (RECORDS, LABELS, END) else None


def shortened(block: Block, keep: Any, size: int) -> bytes:
    """The payload of `block` with the rows of `keep` alone, padded to `size` bytes.

    Raises ValueError where it does not fit, which the columns of a record rule out.
    """
    numbers = np.asarray(block_numbers(block), dtype=np.int64)
    left = {**block, "n": int(np.count_nonzero(keep)), "seq": numbers_bytes("q", numbers[keep].tolist())}
    left["gone"] = numbers_bytes("q", sorted([*gone_numbers(block), *numbers[~keep].tolist()]))
    left.pop("pad", None)
    for group in _GROUPS:
        columns = block[group] if left["n"] else {}
        left[group] = {name: _kept(column, keep) for name, column in columns.items()}
    left["pad"] = b""  # the last key, so that its bytes are the last ones
    head = msgspec.msgpack.encode(left)[:-2]
    room = size - len(head)
    if room >= 5:
        return head + _BIN32 + (room - 5).to_bytes(4, "big") + bytes(room - 5)
    if room >= 2:
        return head + _BIN8 + bytes([room - 2]) + bytes(room - 2)
    raise ValueError(f"a block of {size} bytes does not become shorter by what is erased from it")


def _kept(column: Column, keep: Any) -> Column:
    code = column[0]
    if code in ("n", "c"):
        return column
    if code in _WIDTH:
        values = np.frombuffer(column[1], dtype=f"V{_WIDTH[code]}")[keep].tobytes()
        valid = None if column[2] is None else np.frombuffer(column[2], dtype=np.uint8)[keep].tobytes()
        return [code, values, valid]
    return [code, [value for value, stays in zip(column[1], keep.tolist(), strict=True) if stays]]
