"""Where a lake lies: a directory or an S3-compatible bucket, behind a few verbs.

A file appears whole or not at all under its name: on disk by write, sync, rename and sync of the folder, on
S3 because an object exists once its upload is complete.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import parse_qsl, urlsplit

from mlobs.errors import ConfigError, MissingExtraError, Problem, UnavailableError, shown
from mlobs.featurelog.spool import sync_folder

_PARTIAL = ".partial"
T = TypeVar("T")


class Storage(Protocol):
    """Names are relative, with `/` between folders."""

    where: str

    def names(self, folder: str) -> list[str]:
        """Files directly in `folder`, sorted; none where it does not exist."""

    def walk(self, folder: str) -> list[str]:
        """Names of all files below `folder`, sorted, unfinished ones too."""

    def read(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""

    def open(self, name: str) -> IO[bytes]:
        """The file, to read parts of it; the caller closes it. Raises FileNotFoundError."""

    def write(self, name: str, data: bytes) -> None:
        """The file appears whole, durable and in the place of an older one."""

    def delete(self, name: str) -> None:
        """Removed; no matter if it was not there."""


class DiskStorage:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def names(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.root / folder) as found:
                return sorted(
                    each.name for each in found if each.is_file() and not each.name.endswith(_PARTIAL)
                )
        except FileNotFoundError:
            return []

    def walk(self, folder: str) -> list[str]:
        return sorted(
            str(each.relative_to(self.root)) for each in (self.root / folder).rglob("*") if each.is_file()
        )

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        fresh = [each for each in (path.parent, *path.parent.parents) if not each.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
        try:
            with partial.open("wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        for folder in (path.parent, *(each.parent for each in fresh)):
            sync_folder(folder)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


class S3Storage:
    """By pyarrow's own S3 client: credentials and region as AWS tools take them from the environment."""

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        try:
            from pyarrow import fs
        except ModuleNotFoundError:
            raise MissingExtraError.for_extra(f"feature log {url.split('?', maxsplit=1)[0]}", "s3") from None
        parts = urlsplit(url)
        if not parts.netloc or "@" in parts.netloc:
            raise ConfigError(
                Problem(
                    "feature_log",
                    "s3://bucket/prefix",
                    "no bucket" if not parts.netloc else "credentials in the URL",
                    "name the bucket; keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                )
            )
        options = dict(parse_qsl(parts.query))
        known = {"region", "scheme", "endpoint_override"}
        if not set(options) <= known:
            raise ConfigError(
                Problem(
                    "feature_log", f"options out of {', '.join(sorted(known))}", shown(parts.query), "mend it"
                )
            )
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        if endpoint and "endpoint_override" not in options:
            options["endpoint_override"] = endpoint  # pyarrow does not look at these variables
        self.where = f"s3://{parts.netloc}{parts.path}".rstrip("/")
        self._root = f"{parts.netloc}{parts.path}".rstrip("/")
        self._fs = fs.S3FileSystem(**options)
        self._selector, self._file = fs.FileSelector, fs.FileType.File

    def names(self, folder: str) -> list[str]:
        chosen = self._selector(f"{self._root}/{folder}", allow_not_found=True)
        return sorted(
            each.base_name for each in self._try(self._fs.get_file_info, chosen) if each.type == self._file
        )

    def walk(self, folder: str) -> list[str]:
        chosen = self._selector(f"{self._root}/{folder}", allow_not_found=True, recursive=True)
        return sorted(
            each.path.removeprefix(f"{self._root}/")
            for each in self._try(self._fs.get_file_info, chosen)
            if each.type == self._file
        )

    def read(self, name: str) -> bytes:
        def get(path: str) -> bytes:
            with self._fs.open_input_file(path) as handle:
                return bytes(handle.read())

        return self._try(get, f"{self._root}/{name}")

    def open(self, name: str) -> IO[bytes]:
        return self._try(self._fs.open_input_file, f"{self._root}/{name}")

    def write(self, name: str, data: bytes) -> None:
        def put(path: str) -> None:
            with self._fs.open_output_stream(path) as handle:
                handle.write(data)

        self._try(put, f"{self._root}/{name}")

    def delete(self, name: str) -> None:
        try:
            self._try(self._fs.delete_file, f"{self._root}/{name}")
        except FileNotFoundError:
            return

    def _try(self, call: Callable[[Any], T], argument: Any) -> T:
        try:
            return call(argument)
        except FileNotFoundError:
            raise
        except OSError as problem:  # what S3 says is in the message, credentials are not
            raise UnavailableError(
                Problem(
                    self.where, "an S3 answer", str(problem)[:200], "check bucket, endpoint and credentials"
                )
            ) from None


class NoStorage:
    """Holds nothing and takes nothing: a log that has no lake."""

    def __init__(self, where: str) -> None:
        self.where = where

    def names(self, folder: str) -> list[str]:  # noqa: ARG002 - of Storage
        return []

    def walk(self, folder: str) -> list[str]:  # noqa: ARG002 - of Storage
        return []

    def read(self, name: str) -> bytes:
        raise FileNotFoundError(name)

    def open(self, name: str) -> IO[bytes]:
        raise FileNotFoundError(name)

    def write(self, name: str, data: bytes) -> None:  # noqa: ARG002 - of Storage
        raise UnavailableError(
            Problem(self.where, "a lake", "none", "name a directory or s3://bucket/prefix")
        )

    def delete(self, name: str) -> None:  # noqa: ARG002 - of Storage
        return


def open_storage(destination: str | Path, environ: Mapping[str, str] | None = None) -> Storage:
    """The storage at a directory or an `s3://bucket/prefix[?region=&endpoint_override=&scheme=]`."""
    text = str(destination)
    if text.startswith("s3://"):
        return S3Storage(text, os.environ if environ is None else environ)
    if "://" in text and not text.startswith("file://"):
        raise ConfigError(
            Problem("lake", "a directory or s3://bucket/prefix", shown(text), "name one of these")
        )
    return DiskStorage(Path(text.removeprefix("file://")))
