"""`--alias new=old` of the drift commands, and the aliases that files declare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mlobs.errors import UsageError
from mlobs.settings import FeatureSettings

AliasOption = Annotated[
    list[str] | None,
    typer.Option("--alias", metavar="NEW=OLD", help="Renamed column: read OLD as NEW; may be repeated."),
]


def aliases_of(given: list[str] | None, *, checks: Path | None = None) -> dict[str, str]:
    """Name in force by old name: `--alias`, then the `aliases` of the features in a checks file. Raises
    UsageError for an old name of two, or of one that is in force."""
    found: dict[str, str] = {}
    for text in given or ():
        new, _, old = (part.strip() for part in text.partition("="))
        if not (new and old):
            raise UsageError.of("--alias", "the new and the old name: NEW=OLD", text, "amount_eur=amount")
        _add(found, new, old)
    if checks is not None:
        from mlobs.config.checks import load_checks

        _of_features(found, load_checks(checks)[0])
    return found


def aliases_of_model(found: dict[str, str], config: Path | None, model: str) -> dict[str, str]:
    """... and those of a model in mlobs.yaml, `model` or its only one."""
    if config is None:
        return found
    from mlobs.config import load_settings

    for one in load_settings(config).models:
        if not model or one.name == model:
            _of_features(found, one.features)
    return found


def _of_features(found: dict[str, str], features: Mapping[str, FeatureSettings]) -> None:
    for name, feature in features.items():
        for old in feature.aliases:
            if old not in found:
                _add(found, name, old)


def _add(found: dict[str, str], new: str, old: str) -> None:
    taken = old == new or old in found.values() or new in found or found.get(old, new) != new
    if taken:
        raise UsageError.of("--alias", "an old name of one column alone", f"{new}={old}", "drop one")
    found[old] = new
