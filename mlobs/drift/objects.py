"""Where the bytes of a table are: a file on disk, or an object of a store that Arrow speaks to. An edge: it
opens them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from mlobs.errors import UnreadableError, UsageError, shown

HEAD = 65536
"""Bytes that tell the kind of a table."""
_AWS = re.compile(r"AWS Error (\w+) during.*?: (.*)", re.DOTALL)
_NO_BODY = ("", "No response body")
WITH_ENGINE = "name one file (`drift check --current` takes folders and patterns with --engine local)"
_REMEDIES = {
    "ACCESS_DENIED": "check credentials (AWS_ACCESS_KEY_ID, a profile, a role) and rights",
    "INVALID_ACCESS_KEY_ID": "check credentials (AWS_ACCESS_KEY_ID, a profile, a role)",
    "SIGNATURE_DOES_NOT_MATCH": "check the secret key",
    "NO_SUCH_BUCKET": "check the address",
    "NETWORK_CONNECTION": "check endpoint_override and region of the address",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A table's bytes, as often as asked for."""

    where: str
    """As it was named."""
    name: str
    """Path without the query of an address."""
    file: Callable[[], str | pa.NativeFile]
    """What Arrow's readers take: a path, or an open object whose ranges are fetched as they are needed."""
    stream: Callable[[], str | pa.NativeFile]
    """The same from its beginning to its end, decompressed by its name."""
    raw: Callable[[], pa.NativeFile]
    """The bytes as they are, from the beginning."""
    remote: bool = False


def place_of(where: str) -> Place:
    """The file or object `where`. Raises UsageError for an address with a key in it, UnreadableError (exit 2)
    for what is not there or no file."""
    if "://" in where:
        return _object(where)
    if Path(where).is_dir():
        raise _unreadable(where, "a file", "a folder", WITH_ENGINE)
    return Place(where, where, lambda: where, lambda: where, lambda: pa.OSFile(where))


def refuse_key(where: str) -> None:
    """Raises UsageError, without showing it, for a key or password in an address."""
    if "@" in where.partition("://")[2].partition("/")[0]:
        raise UsageError.of(
            where.partition("://")[0] + "://...", "an address without a key in it", "one with",
            "give it by the environment, a profile or a role: the address is kept and shown",
        )  # fmt: skip


def _object(where: str) -> Place:
    refuse_key(where)
    with readable(where):
        system, inner = fs.FileSystem.from_uri(where)
        info = system.get_file_info(inner)
    if info.type == fs.FileType.Directory:
        raise _unreadable(where, "an object", "a folder", WITH_ENGINE)
    if info.type == fs.FileType.NotFound:
        remedy = WITH_ENGINE if "*" in inner else "check the address"
        raise _unreadable(where, "an object", "none of this name", remedy)
    return Place(
        where,
        inner,
        lambda: system.open_input_file(inner),
        lambda: system.open_input_stream(inner),
        lambda: system.open_input_stream(inner, compression=None),
        remote=True,
    )


def head_of(place: Place) -> bytes:
    """The first bytes. Raises UnreadableError where there are none to be had."""
    try:
        with place.raw() if place.remote else open(place.where, "rb") as file:
            return bytes(file.read(HEAD))
    except OSError as problem:
        if place.remote:
            raise unreadable_object(place.where, problem) from None
        got = problem.strerror or type(problem).__name__
        pattern = any(letter in place.where for letter in "*?[")
        remedy = WITH_ENGINE if pattern else "check the path"
        raise _unreadable(place.where, "a readable file", got, remedy) from None


@contextmanager
def readable(where: str) -> Iterator[None]:
    """What breaks at the beginning or in the middle of a table, said alike. Raises UnreadableError."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as problem:
        if "://" in where:
            raise unreadable_object(where, problem) from None
        got = shown(str(problem).split("\n")[0])
        raise _unreadable(where, "a table that can be read", got, "write the file again") from None


def unreadable_object(where: str, problem: Exception) -> UnreadableError:
    """What a store said, in short: its clients tell much, and last what matters."""
    text = str(problem).split("\n")[0]
    if text.startswith("Unrecognized filesystem"):
        return _unreadable(where, "an address like s3://bucket/object", "another", "copy the table here")
    found = _AWS.search(text)
    if found is None:
        return _unreadable(where, "a table that can be read", shown(text), "write it again")
    code, said = found[1], found[2].strip().removesuffix(".")
    got = code.lower().replace("_", " ") + (f" ({said[:120]})" if said not in _NO_BODY else "")
    return _unreadable(where, "an object that can be read", got, _REMEDIES.get(code, "check the address"))


def _unreadable(where: str, expected: str, got: str, remedy: str) -> UnreadableError:
    error = UnreadableError.of(where, expected, got, remedy)
    assert isinstance(error, UnreadableError)
    return error
