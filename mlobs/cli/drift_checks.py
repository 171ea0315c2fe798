"""Checks that a person went through: written from a reference, read on top of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from mlobs.config.checks import load_checks
from mlobs.drift.compare import MARGIN
from mlobs.drift.declared import declare, misfits
from mlobs.drift.mlref import dump_reference, load_reference
from mlobs.drift.reference import Reference
from mlobs.drift.review import checks_text
from mlobs.errors import UnavailableError, UsageError
from mlobs.settings import RowsSettings


def not_there(path: Path) -> None:
    """What a person has gone through is never written over."""
    if path.exists():
        raise UsageError.of("--checks", "no such file yet", str(path), "move it away, or name another")


def write_checks(reference: Reference, path: Path) -> None:
    """The inferred checks as a file. Raises UsageError where there is one."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(checks_text(reference, MARGIN))
    except FileExistsError:
        not_there(path)
    except OSError as problem:
        raise UnavailableError.of(
            str(path), "a place to write to", problem.strerror or type(problem).__name__, "check the folder"
        ) from None


def declared_reference(reference: Reference, path: Path) -> Reference:
    """The reference with what the file declares; what cannot be judged as declared is a warning."""
    return _declared(reference, path, judged="")[0]


def profiled_as_declared(reference: Reference, path: Path) -> tuple[Reference, RowsSettings]:
    """`declared_reference` under the id that an engine's workers have it by; and what is said of rows."""
    declared, rows = _declared(reference, path, judged="volume")
    sent = load_reference(dump_reference(declared), declared.name)
    features, _ = load_checks(path)
    return replace(sent, spec=declare(sent.spec, features, rows)), rows


def _declared(reference: Reference, path: Path, judged: str) -> tuple[Reference, RowsSettings]:
    features, rows = load_checks(path)
    for (feature, _), text in misfits(reference.spec, features).items():
        typer.echo(f"warning: {path.name}: {feature}: {text}", err=True)
    for name, value in (("volume", rows.volume), ("freshness", rows.freshness)):
        if value is not None and name != judged:
            typer.echo(f"warning: {path.name}: rows.{name} is judged by `mlobs serve` only", err=True)
    return replace(reference, spec=declare(reference.spec, features, rows)), rows
