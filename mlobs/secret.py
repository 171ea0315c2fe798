"""A secret that cannot be shown by accident: it knows where it comes from and is read when it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlobs.errors import ConfigError, Problem


@dataclass(frozen=True, slots=True)
class Secret:
    """A token, key or URL with a token in it, by its source: a file or an environment variable.

    Only the source is stored, so no repr, pickle, dataclass dump or traceback can hold the value; a rotated
    file is picked up at the next `reveal()`.
    """

    field: str
    """Configuration field that names it, for messages: `notify.channels.oncall.slack.token_file`."""
    file: str | None = None
    env: str | None = None

    def reveal(self) -> str:
        """The value without surrounding white space. Raises ConfigError when missing or empty."""
        if self.file is not None:
            try:
                value = Path(self.file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as problem:
                raise ConfigError(
                    Problem(self.field, "a readable file", type(problem).__name__, f"check {self.file}")
                ) from None
        else:
            value = os.environ.get(self.env or "", "").strip()
        if not value:
            raise ConfigError(
                Problem(
                    self.field, "a value", "nothing", f"fill {self.file or 'the variable ' + str(self.env)}"
                )
            )
        return value

    def __str__(self) -> str:
        return f"<secret {self.field}>"

    __repr__ = __str__


def without_password(url: str) -> str:
    """`url` without the user and password that it may hold."""
    before, at, after = url.rpartition("@")
    return f"{urlsplit(before).scheme}://{after}" if at else url
