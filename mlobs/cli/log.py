"""`mlobs log`: what a feature log holds."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlobs.durations import parse_duration
from mlobs.errors import EXIT_FINDING, EXIT_FINE, EXIT_UNAVAILABLE, Problem, UnreadableError, UsageError

if TYPE_CHECKING:
    from mlobs.featurelog.compact import Compacted
    from mlobs.featurelog.reader import LogReader

app = typer.Typer(
    name="log",
    help="Look into a feature log.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Source = Annotated[
    str, typer.Argument(help="Directory of the feature log, or s3://bucket/prefix.", metavar="DIR")
]


Lake = Annotated[str, typer.Option("--lake", help="Where the lake is, if not in DIR (`lake: {to: ...}`).")]


@app.command()
def stat(
    source: Source,
    lake: Lake = "",
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON.")] = False,
) -> None:
    """Count records, duplicates, gaps and what cannot be read.

    Exit 0; 1 where something is missing or unreadable; 2 where DIR is no directory; 3 where it holds nothing.

    Example: mlobs log stat ./featurelog --json
    """
    total: Counter[str] = Counter()
    models: Counter[str] = Counter()
    low, high = math.inf, -math.inf
    with _progress("reading {task.fields[done]:,} records") as progress:
        task = progress.add_task("", total=None, done=0)
        for chunk in _chunks(source, None, lake):
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
    lake: Lake = "",
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many records to begin with.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    model: Annotated[str, typer.Option(help="Records of this model alone.")] = "",
) -> None:
    """Print the newest records, one JSON object a line, as they lie in the log: masked.

    Example: mlobs log tail ./featurelog -n 3
    """
    if not follow:
        found = _reader(source, lake).scan(-math.inf, math.inf, model, count).to_pylist() if count else []
        _print(_newest(found, count))
        if count and not found:
            of = f" of model {model!r}" if model else ""
            typer.echo(f"no record{of} in {source}", err=True)
        return
    last: list[dict[str, Any]] = []
    cursor: bytes | None = None
    read = 0
    with _progress("reading {task.fields[done]:,} records") as progress:
        task = progress.add_task("", total=None, done=0)
        for chunk in _chunks(source, None, lake):
            last = _newest(last + _rows(chunk, model), count)
            cursor, read = chunk.cursor, read + chunk.stats.records
            progress.update(task, done=read)
    _print(last)
    try:
        while True:
            time.sleep(0.5)
            for chunk in _chunks(source, cursor, lake):
                _print(_newest(_rows(chunk, model), None))
                cursor = chunk.cursor
    except KeyboardInterrupt:
        return


@app.command()
def compact(
    source: Source,
    to: Annotated[str, typer.Option(help="Directory or s3://bucket/prefix of the lake; else DIR.")] = "",
    keep: Annotated[str, typer.Option(help="Remove what is older, like 90d.")] = "",
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="Remove although the clock has jumped.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what --keep would remove.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON.")] = False,
) -> None:
    """Turn sealed spool segments into Parquet by model, date and hour; then apply retention.

    Exit 0; 1 where something was unreadable (it lies in spool/aside); 2 on wrong use; 3 where another run
    holds the log, the storage does not answer, or the clock has jumped.

    Example: mlobs log compact ./featurelog --keep 90d
    """
    from pathlib import Path

    from mlobs.featurelog.compact import Compacted
    from mlobs.featurelog.compact import compact as run
    from mlobs.featurelog.lake import Lake
    from mlobs.featurelog.retention import expire, plan_expiry
    from mlobs.featurelog.storage import open_storage

    seconds = _seconds(keep)
    _must_be_directory(source)
    storage = open_storage(to or source)
    result = Compacted()
    if not dry_run:
        with _progress("compacting {task.percentage:.0f} %") as progress:
            task = progress.add_task("", total=None)
            result = run(
                Path(source),
                storage,
                time.time(),
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    removed = 0
    if seconds is not None:
        lake = Lake(storage)
        plan = plan_expiry(lake, seconds, time.time(), accept_clock, _uptime())
        removed = plan.rows
        if not dry_run:
            expire(lake, plan, seconds)
    found = {**dataclasses.asdict(result), "expired": removed}
    if as_json:
        print(json.dumps(found))  # noqa: T201 - the command's answer
    else:
        print("\n".join(_compacted(result, removed if keep else None, dry_run)))  # noqa: T201 - as above
    raise typer.Exit(EXIT_FINDING if result.unreadable else EXIT_FINE)


def _compacted(result: Compacted, removed: int | None, dry_run: bool) -> list[str]:
    """What the run did, and what it left and why, in words."""
    lines = []
    if not dry_run:
        taken = f"{_count(result.records, 'record')} and {_count(result.labels, 'label')}"
        where = f"{_count(result.files, 'file')}, {_count(result.bytes, 'byte')}"
        lines.append(f"{_count(result.segments, 'segment')}: {taken} in {where}")
    if result.held:
        lines.append(f"{_count(result.held, 'segment')} held back: `mlobs log ship` has not shipped them yet")
    if result.writing:
        left = _count(result.writing, "segment")
        lines.append(f"{left} left: a process still writes there; a run in a minute takes it")
    if result.duplicates:
        lines.append(f"{result.duplicates:,} duplicates dropped")
    if result.torn:
        lines.append(f"{_count(result.torn, 'segment')} ended inside a commit: their writer was killed")
    if result.unreadable:
        names = ", ".join(result.set_aside)
        lines.append(
            f"{_count(result.unreadable, 'unreadable stretch', 'es')}, set aside in spool/aside: {names}"
        )
    if removed is not None:
        lines.append(f"{removed:,} expired rows {'would be removed' if dry_run else 'removed'}")
    return lines or ["nothing to do: --dry-run says what --keep would remove"]


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number:,} {what}{'' if number == 1 else plural}"


def _uptime() -> Any:
    """This machine's; None where it cannot be told."""
    from pathlib import Path

    from mlobs.featurelog.retention import Uptime

    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return Uptime(boot, time.clock_gettime(time.CLOCK_BOOTTIME))
    except (OSError, AttributeError):
        return None  # not Linux


def _seconds(keep: str) -> float | None:
    if not keep:
        return None
    try:
        return float(parse_duration(keep))
    except ValueError:
        raise UsageError(Problem("--keep", "a duration", repr(keep[:40]), "write one like 90d")) from None


def _must_be_directory(source: str) -> None:
    from pathlib import Path

    if not Path(source).is_dir():
        raise UnreadableError(Problem(source, "a directory", "none", "name the `feature_log` of the service"))


def _progress(text: str) -> Any:
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    console = _stderr()
    shown = console.is_terminal
    return Progress(TextColumn(text), TimeElapsedColumn(), transient=True, console=console, disable=not shown)


def _reader(source: str, lake: str) -> LogReader:
    from mlobs.featurelog.reader import LogReader

    if not source.startswith("s3://"):
        _must_be_directory(source)
    return LogReader(source, lake=lake or None)


def _chunks(source: str, cursor: bytes | None, lake: str) -> Any:
    reader = _reader(source, lake)
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
    if found["event_time"] is not None:
        first, last = (_utc(each) for each in found["event_time"])
        table.add_row("from", first)
        table.add_row("to", last)
    Console(file=sys.stdout).print(table)


def _utc(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # an event time that no calendar has
        return f"{seconds:g}"


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
