"""Spool segments: append-only files of frames, one open a process, sealed by rename.

    <folder>/spool/<writer>-<number>.open     grows; its writer holds a lock on it
    <folder>/spool/<writer>-<number>.seg      sealed: never written again

An append is one write of whole frames; one that fails is cut back to the last good byte, and where even
that fails the segment is left behind (a torn tail is survivable) and the frames go to the next. At `disk`
every append is followed by fdatasync, and the folder is synced when a name in it changes. The lock goes
with the process however it ends, so an `.open` whose lock is free belongs to nobody and is sealed by
whoever comes next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

SPOOL: Final = "spool"
OPEN: Final = ".open"
SEALED: Final = ".seg"
REWRITE: Final = ".rewrite"
_NAME = re.compile(r"(?P<writer>.+)-(?P<number>\d{8})(?P<suffix>\.open|\.seg)")


class Segment(NamedTuple):
    writer: str
    number: int
    sealed: bool
    path: Path

    @property
    def name(self) -> str:
        """Without the suffix: it stays the same when the segment is sealed."""
        return self.path.stem


def list_segments(folder: Path) -> list[Segment]:
    """The segments of a log, by writer and number. A folder that is not there has none."""
    found = []
    try:
        names = os.listdir(folder / SPOOL)
    except FileNotFoundError:
        return []
    for name in names:
        match = _NAME.fullmatch(name)
        if match:
            path = folder / SPOOL / name
            found.append(Segment(match["writer"], int(match["number"]), match["suffix"] == SEALED, path))
    return sorted(found)


class ReserveReachedError(OSError):
    """The disk has less free than the reserve: nothing is written, so that the host can go on writing."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ENOSPC, "the reserve of free disk is reached", str(path))


class SpoolWriter:
    """The one writer of a process. Every method may raise OSError and can be tried again after it."""

    def __init__(
        self,
        folder: Path,
        writer: str,
        *,
        sync: bool,
        segment_bytes: int = 64 << 20,
        segment_seconds: float = 60.0,
        reserve_bytes: int = 0,
        monotonic: Callable[[], float],
    ) -> None:
        self._folder = folder / SPOOL
        self._root = folder
        self._writer = writer
        self._sync = sync
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._reserve = reserve_bytes
        self._monotonic = monotonic
        self._number = 0
        self._handle = -1
        self._path: Path | None = None
        self._good = 0
        self._since = 0.0

    def append(self, data: bytes) -> None:
        """Take `data` (whole frames) in; when it returns they are as durable as asked."""
        if self._handle >= 0 and not os.fstat(self._handle).st_nlink:
            self._leave()  # somebody removed the file: what goes into it would be read by nobody
        if self._handle < 0:
            self._begin()
        if self._reserve:
            disk = os.fstatvfs(self._handle)
            if disk.f_bavail * disk.f_frsize < self._reserve + len(data):
                raise ReserveReachedError(self._folder)
        try:
            _write_all(self._handle, data)
            if self._sync:
                os.fdatasync(self._handle)
        except OSError:
            self._cut_back()
            raise
        self._good += len(data)

    def due(self) -> bool:
        """The open segment is large or old enough to be sealed."""
        if self._handle < 0 or not self._good:
            return False
        return self._good >= self._segment_bytes or self._monotonic() - self._since >= self._segment_seconds

    def seal(self) -> None:
        """End the open segment, if there is one: an empty one is removed, another renamed."""
        if self._handle < 0 or self._path is None:
            return
        if not os.fstat(self._handle).st_nlink:
            self._leave()  # removed by somebody: there is nothing to seal
            return
        if self._good:
            os.fsync(self._handle)
            os.rename(self._path, self._path.with_suffix(SEALED))
        else:
            os.unlink(self._path)
        self._leave()
        if self._sync:
            sync_folder(self._folder)

    def abandon(self) -> None:
        """Forget the open segment without a word to the disk: after a fork the file is the parent's."""
        self._leave()

    def _begin(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._sync:
                sync_folder(self._root)
                sync_folder(self._root.parent)
        path = self._folder / f"{self._writer}-{self._number:08d}{OPEN}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        self._number += 1
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.stat(path), os.fstat(handle)):
                raise FileNotFoundError(
                    errno.ENOENT, "taken for a stale segment before it was locked", str(path)
                )
            if self._sync:
                sync_folder(self._folder)
        except OSError:
            os.close(handle)
            raise
        self._handle, self._path, self._good, self._since = handle, path, 0, self._monotonic()

    def _cut_back(self) -> None:
        """Back to the last acknowledged byte. After a failed sync the pages may be gone, so the segment
        ends here.
        """
        try:
            os.ftruncate(self._handle, self._good)
        except OSError:
            self._leave()  # its tail is torn; a reader skips it, the next process seals it
            return
        if self._sync:
            self._leave_sealed()

    def _leave_sealed(self) -> None:
        try:
            self.seal()
        except OSError:
            self._leave()

    def _leave(self) -> None:
        handle, self._handle, self._path = self._handle, -1, None
        if handle >= 0:
            try:
                os.close(handle)
            except OSError:
                pass  # closed it is; what the close reports was written before and is tried again


def seal_stale(folder: Path) -> list[Segment]:
    """Seal the `.open` segments whose writer is gone (their lock is free); those that were sealed. Raises
    OSError.
    """
    taken = []
    for segment in list_segments(folder):
        if segment.sealed:
            continue
        for handle in _locked(segment.path):
            if os.fstat(handle).st_size:
                target = segment.path.with_suffix(SEALED)
                os.rename(segment.path, target)
                taken.append(segment._replace(sealed=True, path=target))
            else:
                os.unlink(segment.path)
    if taken:
        sync_folder(folder / SPOOL)
    return taken


def _locked(path: Path) -> Iterator[int]:
    """The file's handle under its lock, once; nothing where another holds it or it is gone."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(handle)):
            yield handle
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: without it a power cut takes a renamed file away (10 of 10)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rewrite_segment(path: Path, data: bytes) -> None:
    """`data` in the place of the sealed segment at `path`, whole or not at all."""
    partial = path.with_name(f".{path.name}{REWRITE}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    try:
        _write_all(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(partial, path)
    sync_folder(path.parent)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(handle, view)
        view = view[written:]
