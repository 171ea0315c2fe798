"""The files below a path, on disk or in object storage. An edge: it lists them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from mlobs.drift.engines.base import FileSlice
from mlobs.errors import UnreadableError, UsageError, shown

SUFFIXES = (".parquet", ".pq", ".arrow", ".arrows", ".ipc", ".feather", ".csv", ".csv.gz")
"""Files of a folder that are read; one that is named itself is read whatever its name."""


def list_slices(sources: Sequence[str]) -> list[FileSlice]:
    """The files named by `sources`, and those in folders, each once, in order of their path.

    Names that begin with `_` or `.` are work in progress of whoever writes there, and skipped. Raises
    UnreadableError (exit 2) for a source that is not there or holds no table.
    """
    found: dict[str, FileSlice] = {}
    for source in sources:
        before = len(found)
        for one in _below(source):
            found[one.path] = one
        if len(found) == before:
            raise UnreadableError.of(
                source, f"tables ({', '.join(SUFFIXES)})", "a folder without any", "name another"
            )
    return [found[path] for path in sorted(found)]


def _below(source: str) -> Iterator[FileSlice]:
    if "@" in source.partition("://")[2].partition("/")[0]:
        raise UsageError.of(
            source.partition("://")[0] + "://...", "an address without a key in it", "one with",
            "give it by the environment, a profile or a role: the address is kept and shown",
        )  # fmt: skip
    try:
        if "://" in source:
            system, path = fs.FileSystem.from_uri(source)
            prefix = source.partition("://")[0] + "://"
        else:
            system, path, prefix = fs.LocalFileSystem(), str(Path(source).absolute()), ""
        query = source.partition("?")[2]
        info = system.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise UnreadableError.of(source, "a file or folder", "none", "check the path")
        several = info.type == fs.FileType.Directory
        listed = system.get_file_info(fs.FileSelector(path, recursive=True)) if several else [info]
    except (pa.ArrowException, OSError) as problem:
        got = shown(str(problem).split("\n")[0])
        raise UnreadableError.of(
            source, "a place that can be listed", got, "check address and rights"
        ) from None
    for one in listed:
        inner = one.path[len(path) :] if several else ""
        hidden = any(part.startswith(("_", ".")) for part in inner.split("/"))
        if one.type != fs.FileType.File or hidden or (several and not one.path.endswith(SUFFIXES)):
            continue
        place = f"{prefix}{one.path}" + (f"?{query}" if query else "")
        yield FileSlice(place, f"{one.size}-{one.mtime_ns}")
