"""The hash key: where it comes from, how it is named, and the keyed hash itself.

A key file holds one key a line; the first is in force, the others are retired and only tried when records
of a subject are looked for. A key is at least 16 bytes: a short one is reversed by enumeration like no key
at all. The value stays inside `Keyring`, which shows key ids alone.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from mlobs.errors import ConfigError, Problem
from mlobs.names import ENV_HASH_KEY
from mlobs.secret import Secret

KEY_FILE_NAME: Final = "hash.key"
_MIN_KEY: Final = 16
_DIGEST: Final = 16
BLAKE2B: Final = "blake2b-128"
HMAC: Final = "hmac-sha-256"
ALGORITHMS: Final = (BLAKE2B, HMAC)


class KeyedHash:
    """`text -> "<key id>:<hex digits>"`: BLAKE2b-128 with a key (0.7 us a call), or HMAC-SHA-256 (1.4 us)."""

    __slots__ = ("_prefix", "_state", "key_id")

    def __init__(self, key: bytes, algorithm: str = BLAKE2B) -> None:
        if len(key) > 64:  # BLAKE2b's longest key
            key = blake2b(key, digest_size=64).digest()
        self.key_id: str = blake2b(b"mlobs key id", key=key, digest_size=4).hexdigest()
        self._prefix = self.key_id + ":"
        self._state: Any = blake2b(key=key, digest_size=_DIGEST)
        if algorithm == HMAC:
            self._state = hmac.new(key, digestmod="sha256")

    def text(self, value: str) -> str:
        try:
            return self.raw(value.encode())
        except UnicodeEncodeError:  # a lone surrogate
            return self.raw(value.encode("utf-8", "surrogatepass"))

    def raw(self, value: bytes) -> str:
        state = self._state.copy()
        state.update(value)
        return self._prefix + str(state.hexdigest())

    def stream(self, value: str) -> bytes:
        """16 bytes or more that only the key and `value` decide; for `tokenise`."""
        state = self._state.copy()
        state.update(b"mlobs token\0" + value.encode("utf-8", "surrogatepass"))
        return bytes(state.digest())

    def __repr__(self) -> str:
        return f"<hash key {self.key_id}>"

    __reduce__ = None  # type: ignore[assignment]  # a pickle would hold the key


class Keyring:
    """The key in force and the retired ones."""

    __slots__ = ("active", "retired")

    def __init__(self, keys: list[bytes], algorithm: str = BLAKE2B) -> None:
        self.active = KeyedHash(keys[0], algorithm)
        self.retired = tuple(KeyedHash(key, algorithm) for key in keys[1:])

    def hashes(self, subject: str) -> tuple[str, ...]:
        """What `subject` may be hashed as: by the key in force and by each retired one."""
        return tuple(each.text(subject) for each in (self.active, *self.retired))

    def __repr__(self) -> str:
        return f"<hash keys {', '.join(one.key_id for one in (self.active, *self.retired))}>"


def parse_keys(text: str, where: str) -> list[bytes]:
    """The keys of a key file's text. Raises ConfigError, without showing any of it."""
    keys = [line.strip().encode() for line in text.splitlines() if line.strip()]
    if not keys:
        raise ConfigError(
            Problem(where, "a key", "nothing", "write 32 random bytes in hex: openssl rand -hex 32")
        )
    short = [number for number, key in enumerate(keys, 1) if len(key) < _MIN_KEY]
    if short:
        raise ConfigError(
            Problem(
                where,
                f"keys of {_MIN_KEY} characters or more",
                f"a shorter one in line {short[0]}",
                "write 32 random bytes in hex: openssl rand -hex 32",
            )
        )
    return keys


def configured_keys(
    key_file: str | None, environ: Mapping[str, str], algorithm: str = BLAKE2B
) -> Keyring | None:
    """The keys of `mask.key_file`, else of MLOBS_HASH_KEY (keys divided by commas), else None."""
    if key_file is not None:
        text = Secret("mask.key_file", file=key_file).reveal()
        return Keyring(parse_keys(text, "mask.key_file"), algorithm)
    value = environ.get(ENV_HASH_KEY, "").strip()
    if value:
        keys = parse_keys(value.replace(",", "\n"), f"environment variable {ENV_HASH_KEY}")
        return Keyring(keys, algorithm)
    return None


def kept_keys(folder: Path, algorithm: str = BLAKE2B) -> Keyring:
    """The random key beside the log, made at the first use with mode 0600. Raises OSError.

    Made under another name and linked into place: of two processes that start together one wins, both read
    it.
    """
    path = folder / KEY_FILE_NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{KEY_FILE_NAME}.{os.getpid()}.{secrets.token_hex(4)}"
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_hex(32).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(partial, path)
        except FileExistsError:
            pass  # another process made it a moment ago; its key is the one to use
        finally:
            os.unlink(partial)
        _sync_folder(folder)
    return Keyring(parse_keys(path.read_text(encoding="utf-8"), str(path)), algorithm)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
