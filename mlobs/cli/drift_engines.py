"""`mlobs drift backfill`: profile many files, here or on Spark, and judge their windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from mlobs.cli.drift_aliases import AliasOption, aliases_of
from mlobs.errors import EXIT_FINDING, EXIT_FINE, NothingJudgedError

if TYPE_CHECKING:
    from mlobs.drift.engines.backfill import Backfill
    from mlobs.drift.verdicts import WindowVerdict

EngineName = Annotated[str, typer.Option("--engine", help="local or spark.")]
Master = Annotated[
    str,
    typer.Option("--master", metavar="URL", help="Of Spark: local[2,4], spark://host:7077, yarn, k8s://..."),
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Processes of the local engine; 0: one a core.")
]


class Watch(Protocol):
    def __call__(self, done: int, total: int) -> None: ...


def backfill(
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help="Files, folders, s3://bucket/prefix.")],
    reference: Annotated[Path, typer.Option("--reference", help="The .mlref file.")],
    time: Annotated[str, typer.Option(help="Column with the event time.")] = "event_time",
    window: Annotated[str, typer.Option(help="Length of a window: 1d, 1h, 1m.")] = "1d",
    zone: Annotated[str, typer.Option(help="Time zone of whole days.")] = "UTC",
    model: Annotated[str | None, typer.Option(help="Column with the model's name.")] = None,
    version: Annotated[str | None, typer.Option(help="Column with the model's version.")] = None,
    segment: Annotated[str | None, typer.Option(help="Column whose values are segments.")] = None,
    weight: Annotated[str | None, typer.Option(help="Column with a row's weight.")] = None,
    score: Annotated[str | None, typer.Option(help="Column with the model's output.")] = None,
    store: Annotated[str, typer.Option(help="Where states are kept; a next run goes on there.")] = (
        "sqlite:///backfill.db"
    ),
    engine: EngineName = "local",
    master: Master = "local[2,4]",
    workers: Workers = 0,
    min_rows: Annotated[int, typer.Option(min=1, help="Fewer rows than these give no verdict.")] = 100,
    margin: Annotated[float, typer.Option(min=0, max=1, help="Share above the worst reference day.")] = 0.05,
    checks: Annotated[
        Path | None, typer.Option("--checks", help="Reviewed checks: what `build --checks` wrote.")
    ] = None,
    alias: AliasOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON on stdout.")] = False,
) -> None:
    """Judge the past, window by window. Stopped at any moment, the next run goes on; no row counts twice.

    Exit 0 without drift, 1 with, 2 for wrong use, 3 when nothing could be judged.

    Example: mlobs drift backfill s3://lake/flights --reference january.mlref --window 1d
    """
    from mlobs.cli.drift import _seconds as parse_window
    from mlobs.cli.drift import _zone as parse_zone
    from mlobs.cli.drift_checks import profiled_as_declared
    from mlobs.cli.drift_pool import open_engine
    from mlobs.cli.drift_view import print_json
    from mlobs.drift.declared import renamed_columns
    from mlobs.drift.engines import backfill as runs
    from mlobs.drift.engines import ledger
    from mlobs.drift.engines.base import Job, Keying
    from mlobs.drift.mlref import dump_reference, read_reference
    from mlobs.settings import RowsSettings
    from mlobs.store import open_store

    aliases = aliases_of(alias, checks=checks)
    found, rows = renamed_columns(read_reference(reference), aliases), RowsSettings()
    if checks is not None:
        found, rows = profiled_as_declared(found, checks)
    keying = Keying(time, parse_window(window), parse_zone(zone), model, version, segment, weight, score)
    job = Job(dump_reference(found), keying, tuple(aliases.items()))
    kept = open_store(store, [ledger.SCHEMA])
    try:
        with open_engine(engine, master, workers) as running, _watching(as_json) as watch:
            done = runs.backfill(kept, running, job, found, data, watch)
    finally:
        kept.close()
    verdicts = [runs.judged(one, found, min_rows, margin, rows) for one in done.windows]
    if as_json:
        print_json(_plain(done, verdicts))
    else:
        _show(done, verdicts)
    for path, problem in done.progress.failed:
        typer.echo(f"warning: not read: {problem or path}", err=True)
    if done.progress.unusable:
        typer.echo(f"warning: {done.progress.unusable} rows have no usable time in {time!r}", err=True)
    if not any(one.verdict in ("ok", "drifted") for one in verdicts):
        raise NothingJudgedError.of(
            " ".join(data)[:200], f"a window of {min_rows} rows or more", "none", "see the table and warnings"
        )
    raise typer.Exit(EXIT_FINDING if any(one.verdict == "drifted" for one in verdicts) else EXIT_FINE)


@contextmanager
def _watching(quiet: bool) -> Iterator[Watch | None]:
    """A bar on stderr where a person watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("files", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain(done: Backfill, verdicts: list[WindowVerdict]) -> dict[str, Any]:
    return {
        "job": done.job,
        "slices": {
            "done": done.progress.done,
            "skipped": done.skipped,
            "failed": [{"path": path, "problem": problem} for path, problem in done.progress.failed],
        },
        "rows": done.progress.rows,
        "rows_without_time": done.progress.unusable,
        "windows": [
            {
                **window.key._asdict(),
                "revision": window.revision,
                "changed": window.changed,
                "rows": window.rows,
                "slices": window.slices,
                "verdict": verdict.verdict,
                "status": verdict.status,
                "detail": verdict.detail,
                "features": [
                    {"feature": one.feature, "statistic": one.statistic, "value": one.value,
                     "verdict": one.verdict, "status": one.status}
                    for one in verdict.verdicts
                ],
            }
            for window, verdict in zip(done.windows, verdicts, strict=True)
        ],
    }  # fmt: skip


def _show(done: Backfill, verdicts: list[WindowVerdict]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("window", "model", "version", "segment", "rows", "rev", "verdict", "why"):
        table.add_column(name, overflow="fold")
    styles = {"ok": "green", "drifted": "bold red"}
    for window, verdict in zip(done.windows, verdicts, strict=True):
        key = window.key
        begin = datetime.fromtimestamp(key.start, UTC).strftime("%Y-%m-%d %H:%M")
        style = styles.get(verdict.verdict, "yellow")
        texts = (begin, key.model, key.version, key.segment, f"{window.rows:,}", str(window.revision))
        table.add_row(
            *(escape(_printable(text)) for text in texts),
            f"[{style}]{verdict.verdict}[/]",
            escape(_printable(verdict.detail)),
        )
    console.print(table)
    broken = sum(one.verdict == "drifted" for one in verdicts)
    console.print(
        f"{broken} of {len(verdicts)} windows drifted; {done.progress.rows:,} rows of {done.progress.done} "
        f"files, {done.skipped} of them known already"
    )


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
