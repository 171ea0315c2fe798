"""The files below a path, on disk or in object storage. An edge: it lists them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyarrow import fs

from mlobs.drift.engines.base import FileSlice
from mlobs.drift.objects import readable, refuse_key
from mlobs.errors import UnreadableError

SUFFIXES = (".parquet", ".pq", ".arrow", ".arrows", ".ipc", ".feather", ".csv", ".csv.gz")
"""Files of a folder that are read; one that is named itself is read whatever its name."""
_MAGIC = re.compile(r"(\*|\?|\[[^\]]+\])")
_WILD = {"*": "[^/]*", "?": "[^/]"}
_ANY = r"(?:(?![._])[^/]+/)*"


def list_slices(sources: Sequence[str]) -> list[FileSlice]:
    """The files that `sources` name or match, and those in folders, each once, in order of their path.

    Names that begin with `_` or `.` are work in progress of whoever writes there, and skipped. Raises
    UnreadableError (exit 2) for a source that is not there or holds no table.
    """
    found: dict[str, FileSlice] = {}
    for source in sources:
        before = len(found)
        for one in _below(source):
            found[one.path] = one
        if len(found) == before:
            got = "none that match" if _MAGIC.search(source) else "a folder without any"
            raise UnreadableError.of(source, f"tables ({', '.join(SUFFIXES)})", got, "name another")
    return [found[path] for path in sorted(found)]


def _below(source: str) -> Iterator[FileSlice]:
    refuse_key(source)
    with readable(source):
        if "://" in source:
            system, path = fs.FileSystem.from_uri(source)
            prefix = source.partition("://")[0] + "://"
        else:
            system, path, prefix = fs.LocalFileSystem(), str(Path(source).absolute()), ""
        query = source.partition("?")[2] if prefix else ""
        listed = _listed(system, path)
    if listed is None:
        raise UnreadableError.of(source, "a file or folder", "none", "check the path")
    for one, chosen in listed:
        hidden = any(part.startswith(("_", ".")) for part in one.path[len(chosen) :].split("/"))
        unknown = one.path != chosen and not one.path.endswith(SUFFIXES)
        if one.type == fs.FileType.File and not hidden and not unknown:
            place = f"{prefix}{one.path}" + (f"?{query}" if query else "")
            yield FileSlice(place, f"{one.size}-{one.mtime_ns}")


def _listed(system: fs.FileSystem, path: str) -> list[tuple[fs.FileInfo, str]] | None:
    """(file, what chose it: the folder that it is in, or its own path); None where nothing is at `path`.

    `*`, `?` and `[...]` match within a name, `**` any folders; what has that very name goes before.
    """
    path = path.removesuffix("/**")  # all that is below: the folder itself
    info = system.get_file_info(path)
    if info.type == fs.FileType.File:
        return [(info, path)]
    if info.type == fs.FileType.Directory:
        return [(one, path) for one in system.get_file_info(fs.FileSelector(path, recursive=True))]
    parts = path.split("/")
    first = next((at for at, part in enumerate(parts) if _MAGIC.search(part)), None)
    if first is None:
        return None
    root = "/".join(parts[:first])
    matching = re.compile("/".join(map(_part, parts[first:])).replace(f"{_ANY}/", _ANY))
    found = []
    for one in system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True)):
        inner = one.path[len(root) + 1 :]
        whole = matching.fullmatch(inner)
        folder = whole or re.match(f"(?:{matching.pattern})(?=/)", inner)
        if folder is not None:
            found.append((one, one.path if whole else f"{root}/{folder[0]}"))
    return found


def _part(part: str) -> str:
    """One name of a pattern as a regular expression; a wildcard at its beginning finds nothing hidden."""
    if part == "**":
        return _ANY
    bits = [_WILD[bit] if bit in _WILD else _set_or_text(bit) for bit in _MAGIC.split(part) if bit]
    return (r"(?![._])" if part[0] in "*?[" else "") + "".join(bits)


def _set_or_text(bit: str) -> str:
    if not _MAGIC.fullmatch(bit):
        return re.escape(bit)
    inner = bit[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
    return f"[^{inner[1:]}]" if inner[0] == "!" and len(inner) > 1 else f"[{inner}]"
