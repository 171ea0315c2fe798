"""What the commands of `mlobs slo` share: their file, and a Prometheus to ask."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlobs.durations import speak_duration
from mlobs.errors import ConfigError, Problem, UsageError

if TYPE_CHECKING:
    from mlobs.settings import Settings
    from mlobs.slo.prometheus import Prometheus
    from mlobs.slo.status import SloStatus

_OLD = 300.0
"""Seconds after which what was evaluated is no statement on now."""
_TIMEOUT = 60.0

File = Annotated[Path, typer.Argument(metavar="FILE", help="mlobs.yaml, or a file with its `slo:` section.")]
Json = Annotated[bool, typer.Option("--json", help="Strict JSON.")]
Config = Annotated[Path, typer.Option("-c", "--config", help="The settings.", dir_okay=False)]


def load(file: Path) -> Settings:
    """Settings of mlobs.yaml or of OpenSLO documents."""
    from mlobs.config import load_settings
    from mlobs.slo.openslo import is_openslo, read_openslo, settings_of

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return load_settings(file)  # which says what is wrong with it
    return settings_of(read_openslo(text, file.name)) if is_openslo(text) else load_settings(file)


def refuse(settings: Settings, file: Path) -> None:
    """Raise ConfigError unless there are objectives and every one can do its work."""
    from mlobs.slo.validate import check

    if not settings.slo.objectives:
        raise ConfigError(
            Problem(
                f"{file}: slo.objectives", "at least one objective", "none", "see docs/slo.md for one to copy"
            )
        )
    problems = check(settings, str(file))
    if problems:
        raise ConfigError(*problems)


def told_old(statuses: Sequence[SloStatus], settings: Settings) -> bool:
    """Whether the newest status is too old to stand for now; then a warning says so on stderr.

    A replay's clock is its own: there nothing is old.
    """
    newest = max(each.at for each in statuses)
    age = time.time() - newest
    if settings.clock != "wall" or age <= max(_OLD, 10 * settings.slo.scrape_interval):
        return False
    when = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC")
    said = f"warning: last evaluated {when}, {speak_duration(round(age))} ago: does `mlobs serve` run?"
    typer.echo(said, err=True)
    return True


def server(url: str, option: str = "--prometheus") -> Prometheus:
    """A Prometheus at `url`, as `option` gave it. Raises UsageError for what is no URL."""
    from mlobs.slo.prometheus import Prometheus as Server

    if not url.startswith(("http://", "https://")):
        raise UsageError(Problem(option, "an http or https URL", url[:80], "write http://127.0.0.1:9090"))
    return Server(url, http_get)


def http_get(url: str) -> bytes:
    """Body of `url`; an OSError with the server's own words where it refuses."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310 - http(s) alone, checked above
            return bytes(answer.read())
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise OSError(f"{refusal.code}: {refusal.read(300).decode('utf-8', 'replace')}") from None
