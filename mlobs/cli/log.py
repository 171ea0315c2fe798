"""`mlobs log`: what a feature log holds."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from typing import Annotated, Any

import typer

from mlobs.errors import EXIT_FINDING, EXIT_FINE, EXIT_UNAVAILABLE, UnreadableError

app = typer.Typer(
    name="log",
    help="Look into a feature log.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Source = Annotated[str, typer.Argument(help="Directory of the feature log.", metavar="DIR")]


@app.command()
def stat(
    source: Source, as_json: Annotated[bool, typer.Option("--json", help="Strict JSON.")] = False
) -> None:
    """Count records, duplicates, gaps and what cannot be read.

    Exit 0; 1 where something is missing or unreadable; 2 where DIR is no directory; 3 where it holds nothing.

    Example: mlobs log stat ./featurelog --json
    """
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    total: Counter[str] = Counter()
    models: Counter[str] = Counter()
    low, high = math.inf, -math.inf
    with Progress(
        TextColumn("reading {task.fields[done]:,} records"),
        TimeElapsedColumn(),
        transient=True,
        console=_stderr(),
    ) as progress:
        task = progress.add_task("", total=None, done=0)
        for chunk in _chunks(source, None):
            stats = chunk.stats
            for name in ("records", "labels", "duplicates", "unreadable", "torn"):
                total[name] += getattr(stats, name)
            total["gaps"] = stats.gaps
            for model, table in chunk.records.items():
                models[model] += len(table)
                times = [value for value in table.column("event_time").to_pylist() if value is not None]
                low, high = min([low, *times]), max([high, *times])
            progress.update(task, done=total["records"])
    found: dict[str, Any] = {name: total[name] for name in _COUNTED}
    found["models"] = dict(sorted(models.items()))
    found["event_time"] = [low, high] if low <= high else None
    if as_json:
        print(json.dumps(found, allow_nan=False))  # noqa: T201 - the command's answer
    else:
        _show(found)
    if not total["records"] and not total["labels"] and not total["unreadable"]:
        raise typer.Exit(EXIT_UNAVAILABLE)
    raise typer.Exit(EXIT_FINDING if total["gaps"] or total["unreadable"] else EXIT_FINE)


_COUNTED = ("records", "labels", "duplicates", "gaps", "unreadable", "torn")


@app.command()
def tail(
    source: Source,
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many records to begin with.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    model: Annotated[str, typer.Option(help="Records of this model alone.")] = "",
) -> None:
    """Print the newest records, one JSON object a line, as they lie in the log: masked.

    Example: mlobs log tail ./featurelog -n 3
    """
    last: list[dict[str, Any]] = []
    cursor: bytes | None = None
    for chunk in _chunks(source, None):
        last = _newest(last + _rows(chunk, model), count)
        cursor = chunk.cursor
    _print(last)
    try:
        while follow:
            time.sleep(0.5)
            for chunk in _chunks(source, cursor):
                _print(_newest(_rows(chunk, model), None))
                cursor = chunk.cursor
    except KeyboardInterrupt:
        return


def _chunks(source: str, cursor: bytes | None) -> Any:
    from pathlib import Path

    from mlobs.errors import Problem
    from mlobs.featurelog.reader import LogReader

    if not Path(source).is_dir():
        raise UnreadableError(Problem(source, "a directory", "none", "name the `feature_log` of the service"))
    reader = LogReader(source)
    while True:
        chunk = reader.poll(cursor)
        yield chunk
        cursor = chunk.cursor
        if not chunk.more:
            return


def _rows(chunk: Any, model: str) -> list[dict[str, Any]]:
    return [row for name, table in chunk.records.items() if model in ("", name) for row in table.to_pylist()]


def _newest(rows: list[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    ordered = sorted(rows, key=lambda row: row["event_time"] or 0.0)
    return ordered if count is None else ordered[len(ordered) - min(count, len(ordered)) :]


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["conflicts"] = dict(row["conflicts"] or ())
        print(json.dumps(_finite(row), allow_nan=False), flush=True)  # noqa: T201 - the command's answer


def _finite(value: Any) -> Any:
    """Strict JSON has no NaN and no infinity: they are written as text."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name in _COUNTED:
        table.add_row(name, f"{found[name]:,}", _MEANING[name])
    for model, count in found["models"].items():
        table.add_row("model", f"{count:,}", model)
    Console(file=sys.stdout).print(table)


_MEANING = {
    "records": "",
    "labels": "",
    "duplicates": "read once",
    "gaps": "numbers that were given out and are not there",
    "unreadable": "broken stretches, passed over",
    "torn": "segments that end inside a commit: their writer was killed",
}


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)
