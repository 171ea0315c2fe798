"""`mlobs drift check --html` and `--evidently`: the comparison as a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from mlobs.drift.compare import Comparison
from mlobs.drift.mlref import is_reference
from mlobs.drift.reference import Reference
from mlobs.drift.report.evidently import need_evidently, write_evidently
from mlobs.drift.report.page import report_page
from mlobs.drift.state import State
from mlobs.errors import UnreadableError, UsageError


def write_html(path: Path, result: Comparison, reference: Reference, current: State) -> None:
    """Write our own report whole or not at all. Raises UnreadableError where it cannot be written."""
    page = report_page(result, reference.state, current, reference.spec)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(page, encoding="utf-8", errors="replace")
        os.replace(partial, path)
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise UnreadableError.of(str(path), "a place to write to", reason, "name another") from None
    typer.echo(f"written: {path}", err=True)


def html_can(path: Path) -> None:
    """Before the long work: UnreadableError where there is no folder to write the page to."""
    if not path.absolute().parent.is_dir():
        raise UnreadableError.of(str(path), "a place to write to", "no such folder", "name another")


def evidently_can(reference: str, current: str, renamed: bool) -> None:
    """Before the long work: UsageError for what evidently cannot read, MissingExtraError without it."""
    if renamed:
        raise UsageError.of(
            "--evidently", "columns under their own names", "--alias or --score", "use --html"
        )
    for given in (reference, current):
        if "://" in given:
            raise UsageError.of("--evidently", "files on this machine", given, "copy it here, or use --html")
        if Path(given).is_dir():
            raise UsageError.of("--evidently", "a file", "a folder", "name one file, or use --html")
    if is_reference(Path(reference)):
        raise UsageError.of(
            "--evidently",
            "a table as reference",
            "an .mlref file, which has no rows",
            "give the table itself",
        )
    need_evidently()


def draw_evidently(reference: str, current: str, path: Path, columns: Sequence[str] | None) -> None:
    """Write evidently's report of two tables that it can read."""
    write_evidently(Path(reference), Path(current), path, columns)
    typer.echo(f"written: {path}", err=True)
