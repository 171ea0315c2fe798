"""The frame: what makes a torn or flipped byte visible.

    offset  size  field
    0       4     magic `mlF1`
    4       1     kind (`RECORDS`, `LABELS`, `END`)
    5       3     zero
    8       4     records in the payload
    12      4     length of the payload in bytes
    16      4     CRC-32 of the payload
    20      4     CRC-32 of bytes 0..19
    24      n     payload

Little-endian. A frame is whole or it is nothing; after a broken one the reader looks for the next magic whose
header checks. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple
from zlib import crc32

MAGIC: Final = b"mlF1"
HEADER: Final = struct.Struct("<4sB3xIII")
_CHECK: Final = struct.Struct("<I")
HEADER_SIZE: Final = HEADER.size + _CHECK.size
MAX_PAYLOAD: Final = 64 << 20
"""A length beyond it is a broken header, not a frame to wait for."""

RECORDS: Final = 1
LABELS: Final = 2
END: Final = 3
"""Last frame of a writer that ended in order: what it had offered."""


class Frame(NamedTuple):
    kind: int
    rows: int
    payload: memoryview
    """Of the bytes that were read: no copy."""
    end: int
    """Offset just behind the frame."""


class Damage(NamedTuple):
    """A stretch that is no frame. `end`: where reading goes on; `torn`: it reaches the end of the data."""

    start: int
    end: int
    torn: bool
    complete: bool = False
    """Nothing is missing of it: its bytes were changed, and not its writing cut short."""


def pack(kind: int, count: int, payload: bytes) -> bytes:
    """One frame around `payload` (at most 64 MiB)."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(payload)} bytes is beyond the frame's {MAX_PAYLOAD}")
    header = HEADER.pack(MAGIC, kind, count, len(payload), crc32(payload))
    return b"".join((header, _CHECK.pack(crc32(header)), payload))


def unpack(data: bytes, start: int = 0) -> Iterator[Frame | Damage]:
    """The frames of `data` from offset `start`, in order; what is no frame comes as Damage.

    The last item is a torn Damage where the data ends inside a frame: on a file that still grows, wait there.
    """
    at, size, view = start, len(data), memoryview(data)
    while at < size:
        frame = _frame_at(data, view, at)
        if frame is not None:
            yield frame
            at = frame.end
            continue
        if _reaches_beyond(data, at):
            yield Damage(at, size, torn=True)
            return
        found = _next_frame(data, at + 1)
        complete = _header_at(data, at) is not None
        yield Damage(at, size if found is None else found, torn=found is None, complete=complete)
        if found is None:
            return
        at = found


def _header_at(data: bytes, at: int) -> tuple[int, int, int, int] | None:
    if at + HEADER_SIZE > len(data):
        return None
    magic, kind, count, length, payload_check = HEADER.unpack_from(data, at)
    (check,) = _CHECK.unpack_from(data, at + HEADER.size)
    if magic != MAGIC or length > MAX_PAYLOAD or crc32(data[at : at + HEADER.size]) != check:
        return None
    return kind, count, length, payload_check


def _frame_at(data: bytes, view: memoryview, at: int) -> Frame | None:
    header = _header_at(data, at)
    if header is None:
        return None
    kind, count, length, check = header
    begin = at + HEADER_SIZE
    payload = view[begin : begin + length]
    if len(payload) < length or crc32(payload) != check:
        return None
    return Frame(kind, count, payload, begin + length)


def _reaches_beyond(data: bytes, at: int) -> bool:
    """A good header whose payload is not all there yet, or the beginning of a header at the very end."""
    header = _header_at(data, at)
    if header is not None:
        return at + HEADER_SIZE + header[2] > len(data)
    rest = data[at : at + HEADER_SIZE]
    return len(rest) < HEADER_SIZE and MAGIC.startswith(rest[: len(MAGIC)])


def _next_frame(data: bytes, at: int) -> int | None:
    """Offset of the next good header; a magic within a payload does not pass its check."""
    while True:
        at = data.find(MAGIC, at)
        if at < 0:
            return None
        if _header_at(data, at) is not None:
            return at
        at += 1
