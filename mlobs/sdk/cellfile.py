"""One process's cells in a file of its own, mapped into memory: what it counted outlives a kill -9.

The file is preallocated, so that a full disk is an OSError here and never a SIGBUS in a call. Its process
holds a lock on it (flock) for as long as it lives: who can share the lock knows that the process is gone.

    magic, then records, each at a multiple of 16:
    u32 size of the record; u32 length, u32 CRC-32 of its text; u32 number of cells; text; cells (float64)

The text is JSON and says what the cells are of, label values included. A record's size is written last: a
reader meets a whole record or none. Records never move; adding to a cell is one store of eight bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

MAGIC = b"mlobs cells 1\n\0\0"
SUFFIX = ".cells"
_HEAD = struct.Struct("<4I")
_FIRST = 1 << 16
_LARGEST = 1 << 20


def _round(size: int) -> int:
    return -(-size // 16) * 16


def encode(text: bytes, cells: list[float]) -> bytes:
    """A record in bytes."""
    start = _HEAD.size + _round(len(text))
    size = _round(start + 8 * len(cells))
    head = _HEAD.pack(size, len(text), zlib.crc32(text), len(cells))
    body = text.ljust(start - _HEAD.size, b"\0") + struct.pack(f"={len(cells)}d", *cells)
    return (head + body).ljust(size, b"\0")


def records(path: Path | str) -> Iterator[tuple[bytes, list[float]]]:
    """Text and cells of each record as they are now; a record that is not whole yet ends it.

    Raises OSError as `open` does.
    """
    with open(path, "rb") as file:
        yield from _records(file.fileno())


def records_and_life(path: Path) -> tuple[list[tuple[bytes, list[float]]], bool]:
    """What `records` gives, and whether the file's process lived when reading began. Raises OSError."""
    with open(path, "rb") as file:
        alive = not is_free(file.fileno())
        return list(_records(file.fileno())), alive


def is_free(descriptor: int) -> bool:
    """Whether no process holds the file; readers do not stand in each other's way."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _records(descriptor: int) -> Iterator[tuple[bytes, list[float]]]:
    length = os.fstat(descriptor).st_size
    if length <= len(MAGIC):
        return
    # Mapped, not read: a cell is then loaded at once, never half of it.
    with mmap.mmap(descriptor, length, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
        if mapped[: len(MAGIC)] != MAGIC:
            return
        at = len(MAGIC)
        while at + _HEAD.size <= length:
            size, text_size, crc, count = _HEAD.unpack_from(view, at)
            start = at + _HEAD.size + _round(text_size)
            if size < _HEAD.size or at + size > length or start + 8 * count > at + size:
                return
            if text_size:
                text = bytes(view[at + _HEAD.size : at + _HEAD.size + text_size])
                if zlib.crc32(text) != crc:
                    return
                with view[start : start + 8 * count] as part, part.cast("d") as cells:
                    numbers: list[float] = cells.tolist()  # type: ignore[assignment]
                    yield text, numbers
            at += size


class CellFile:
    """The file of this process, to which records are added. Methods raise OSError, the constructor too."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}{SUFFIX}"
        self._lock = threading.RLock()  # a signal handler may call within a call
        self._maps: list[mmap.mmap] = []
        self._end = self._used = 0
        beside = folder / f"new-{name}"
        self._file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._held = -1
        try:
            # Opened once more: every mapping keeps a duplicate of `_file`, with which a lock would live on.
            self._held = os.open(beside, os.O_RDONLY)
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._grow(_FIRST)
            self._maps[0][: len(MAGIC)] = MAGIC
            self._used = len(MAGIC)
            os.rename(beside, self.path)  # held before it has its name: nobody takes it for a dead one's
        except BaseException:
            self._close()
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise

    def _grow(self, size: int) -> None:
        os.posix_fallocate(self._file, self._end, size)
        self._maps.append(mmap.mmap(self._file, size, offset=self._end))
        self._end += size
        self._used = 0

    def add(self, text: bytes, cells: int, spare: int = 0) -> memoryview[float]:
        """Zeroed cells of a new record, and behind them `spare` more that no reader sees."""
        start = _HEAD.size + _round(len(text))
        size = _round(start + 8 * (cells + spare))
        with self._lock:
            room = len(self._maps[-1]) - self._used
            if size > room:
                page = mmap.ALLOCATIONGRANULARITY
                before, at = self._maps[-1], self._used
                self._grow(max(min(2 * len(before), _LARGEST), -(-size // page) * page))
                if room:  # a record of nothing, to the end of the part before
                    _HEAD.pack_into(before, at, room, 0, 0, 0)
            mapped, at = self._maps[-1], self._used
            self._used = at + size
            mapped[at + _HEAD.size : at + _HEAD.size + len(text)] = text
            struct.pack_into("<3I", mapped, at + 4, len(text), zlib.crc32(text), cells)
            struct.pack_into("<I", mapped, at, size)
        return memoryview(mapped)[at + start : at + start + 8 * (cells + spare)].cast("d")

    def let_go(self) -> None:
        """In a forked child: the file stays the parent's; calls under way here go on in a private copy.

        Without that the end of a call in which the fork happened would be counted twice by the parent.
        """
        import ctypes  # weight: only after a fork

        remap = ctypes.CDLL(None, use_errno=True).mmap
        remap.restype = ctypes.c_void_p
        remap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        fixed = 0x10  # MAP_FIXED: in the same place, at once
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | fixed
        at = 0
        try:
            for mapped in self._maps:
                address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
                if remap(address, len(mapped), protection, flags, self._file, at) != address:
                    raise OSError(ctypes.get_errno(), "the parent's cells stay shared")
                at += len(mapped)
        finally:
            self._close()  # or this process would keep the parent's lock after its death

    def remove(self) -> None:
        """Take the file away and end the lock; its cells stay usable in this process.

        Of a user that this process is no more, the file stays: for that one to fold.
        """
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.unlink(self.path)
        self._close()

    def _close(self) -> None:
        os.close(self._file)
        if self._held >= 0:
            os.close(self._held)
