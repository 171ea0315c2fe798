"""What the drift stage watches: each model's reference, with what a person declared on top of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlobs import names
from mlobs.drift.declared import declare, misfits, renamed_columns
from mlobs.drift.mlref import read_reference
from mlobs.drift.reference import WHOLE, Reference, chosen_columns
from mlobs.drift.spec import CHECKS, ROWS, Spec
from mlobs.drift.unlike import LoggedAs, unlike_columns
from mlobs.drift.verdicts import MASKED
from mlobs.errors import ConfigError, MlobsError, Problem
from mlobs.settings import ModelSettings, Settings

_log = logging.getLogger("mlobs.drift")


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A model's reference with what was declared on top."""

    reference: Reference
    spec: Spec
    segments: frozenset[str]
    unlike: Mapping[str, str]
    """Features that are not judged, for masking made other values of them, and why."""


def load_references(
    settings: Settings, logged_as: LoggedAs = lambda _model, _feature: ("clear", 0)
) -> Mapping[str, Watched]:
    """By model, of those that name one. `logged_as`: what masking makes of each feature. Raises ConfigError
    with the problems of all of them."""
    found: dict[str, Watched] = {}
    problems: list[Problem] = []
    for model in settings.models:
        if model.reference is None:
            continue
        path = os.path.join(settings.base, model.reference)
        try:
            reference = read_reference(path)
        except MlobsError as error:
            problems.extend(
                replace(problem, where=f"mlobs.yaml: models.{model.name}.reference, {problem.where}")
                for problem in error.problems
            )
            continue
        old = {old: name for name, feature in model.features.items() for old in feature.aliases}
        reference = renamed_columns(reference, old)
        segments = frozenset(reference.days) - {WHOLE}
        columns = reference.spec.columns
        masked = unlike_columns(columns, model.name, logged_as)
        for name, why in masked.items():
            _log.warning("drift of %s, feature %s is not judged: %s", model.name, name, why)
        if masked:
            reference = chosen_columns(reference, [name for name in columns if name not in masked])
        spec = declare(reference.spec, model.features, model.rows)
        found[model.name] = Watched(reference, spec, segments, masked)
    if problems:
        raise ConfigError(*problems)
    return found


def notes_of(watched: Watched | None, model: ModelSettings, margin: float) -> dict[tuple[str, str], str]:
    """Checks that are off or cannot be judged as declared, by (feature, check), with the reason."""
    if watched is None:
        return {("", names.REFERENCE): "no reference: nothing is judged until one is built"}
    declared = {name: one for name, one in model.features.items() if name not in watched.unlike}
    found = misfits(watched.spec, declared)
    for feature, column in watched.spec.columns.items():
        for check in CHECKS:
            limit = watched.reference.days[WHOLE].limit(feature, check, margin)
            if column.most.get(check, 0.0) >= 1:
                found[feature, check] = "off: declared so, `most` is all rows"
            elif limit.off and check not in column.most:
                found[feature, check] = limit.said(margin)
    return found | {(feature, MASKED): f"not judged: {why}" for feature, why in watched.unlike.items()}


def severity_of(model: ModelSettings, feature: str) -> str:
    """A critical feature pages, another is a ticket; where none is critical, all page. What is of rows as a
    whole (their number, their age, repeated ones) is a ticket unless it was declared critical."""
    if feature == ROWS:
        return names.PAGE if model.rows.critical else names.TICKET
    critical = {name for name, declared in model.features.items() if declared.critical}
    return names.PAGE if not critical or feature in critical else names.TICKET
