"""`mlobs.yaml` -> `Settings`: every problem at once, each with its file, line, expectation, value and remedy.

A file with any problem is refused as a whole.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from mlobs.config.across import across
from mlobs.config.channels import channels
from mlobs.config.plain import plain
from mlobs.config.problems import problem_of
from mlobs.config.shape import File
from mlobs.errors import ConfigError, Problem, shown
from mlobs.settings import Settings
from mlobs.yamltext import YamlText, parse_yaml, read_yaml

__all__ = ["load_settings", "parse_settings"]


def load_settings(path: str | os.PathLike[str]) -> Settings:
    """Read `path`. Raises UnreadableError or ConfigError; the latter carries every problem of the file."""
    return _settings(read_yaml(Path(path)), Path(path).absolute().parent)


def parse_settings(text: str, base: str | os.PathLike[str] = ".", source: str = "mlobs.yaml") -> Settings:
    """The same from text; relative paths are taken from the folder `base`."""
    return _settings(parse_yaml(text, source), Path(base).absolute())


def _settings(document: YamlText, base: Path) -> Settings:
    if document.value is None:
        document = YamlText(document.source, {}, {})
    value = document.value
    if not isinstance(value, dict):
        raise ConfigError(
            Problem(document.where(()), "a mapping", shown(value), "begin with `service: your-service`")
        )
    found, problems = channels(document, base)
    problems += across(document)
    file = None
    try:
        file = File.model_validate(value)
    except ValidationError as invalid:
        problems += (problem_of(document, error) for error in invalid.errors())
    if file is None or problems:
        raise ConfigError(*sorted(problems, key=lambda problem: _line(problem.where)))
    return plain(file, base, found)


def _line(where: str) -> int:
    number = where.partition(":")[2].partition(":")[0]
    return int(number) if number.isdigit() else 0
