"""A file of checks, which a reference inferred and a person went through: `models[].checks`.

It is read where drift is judged and nowhere else: a serving process does without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from mlobs.config.plain import plain_features, plain_rows
from mlobs.config.problems import problem_of
from mlobs.config.shape import Checks
from mlobs.errors import ConfigError, MlobsError, Problem, shown
from mlobs.settings import FeatureSettings, ModelSettings, RowsSettings, Settings
from mlobs.yamltext import read_yaml


def load_checks(path: str | Path) -> tuple[dict[str, FeatureSettings], RowsSettings]:
    """Features and rows of the file. Raises UnreadableError, or ConfigError with every problem of it."""
    document = read_yaml(path)
    value = {} if document.value is None else document.value
    if not isinstance(value, dict):
        raise ConfigError(
            Problem(document.where(()), "a mapping", shown(value), "begin with `features:` or `rows:`")
        )
    try:
        checks = Checks.model_validate(value)
    except ValidationError as invalid:
        raise ConfigError(*(problem_of(document, error, Checks) for error in invalid.errors())) from None
    return plain_features(checks.features), plain_rows(checks.rows)


def with_checks(settings: Settings) -> Settings:
    """The settings with the checks files of the models read; what mlobs.yaml itself says goes before them.
    Raises ConfigError with the problems of all of them."""
    problems: list[Problem] = []
    models = []
    for model in settings.models:
        try:
            models.append(model if model.checks is None else _with(model, *load_checks(model.checks)))
        except MlobsError as error:
            where = f"mlobs.yaml: models.{model.name}.checks, "
            problems += (replace(problem, where=where + problem.where) for problem in error.problems)
    if problems:
        raise ConfigError(*problems)
    return replace(settings, models=tuple(models))


def _with(model: ModelSettings, features: Mapping[str, FeatureSettings], rows: RowsSettings) -> ModelSettings:
    joined = dict(features)
    for name, own in model.features.items():
        below = joined.get(name, own)
        joined[name] = FeatureSettings(
            name,
            own.type or below.type,
            own.range or below.range,
            own.categories if own.categories is not None else below.categories,
            own.critical or below.critical,
            own.aliases or below.aliases,
            {**below.most, **own.most},
        )
    own_rows = model.rows
    over = RowsSettings(
        rows.duplicates if own_rows.duplicates is None else own_rows.duplicates,
        rows.volume if own_rows.volume is None else own_rows.volume,
        rows.freshness if own_rows.freshness is None else own_rows.freshness,
        rows.critical or own_rows.critical,
    )
    return replace(model, features=joined, rows=over)
