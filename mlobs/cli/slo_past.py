"""`mlobs slo explain | backtest | backfill`: objectives and what has been."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlobs.cli.slo_common import Config, File, Json, load, refuse, server, told_old
from mlobs.errors import (
    EXIT_FINDING,
    EXIT_FINE,
    EXIT_UNAVAILABLE,
    ConfigError,
    NothingJudgedError,
    Problem,
    UnavailableError,
    UsageError,
    nearest,
)

if TYPE_CHECKING:
    from rich.console import Console

    from mlobs.settings import Settings
    from mlobs.slo.backtest import Backtest
    from mlobs.slo.evaluate import Plan
    from mlobs.slo.replay import Past


def explain(
    name: Annotated[str, typer.Argument(metavar="SLO", help="An objective's name; all without one.")] = "",
    config: Config = Path("mlobs.yaml"),
    as_json: Json = False,
) -> None:
    """Say in words what an objective promises, what was spent and by what, and when the rest is gone.

    Exit 0; 1 where it burns or is spent; 3 where nothing has been evaluated in the last minutes, or data are
    absent.

    Example: mlobs slo explain -c mlobs.yaml
    """
    from mlobs.slo import read
    from mlobs.slo.explain import explain as words
    from mlobs.slo.schema import SCHEMA
    from mlobs.store import open_store

    settings = load(config)
    objectives = {each.name: each for each in settings.slo.objectives}
    if name and name not in objectives:
        raise UsageError(Problem("SLO", "an objective of the file", repr(name), nearest(name, objectives)))
    store = open_store(settings.store, [SCHEMA])
    try:
        found = {each.name: each for each in read.statuses(store)}
    finally:
        store.close()
    wanted = [each for each in objectives if each in found and name in ("", each)]
    if not wanted:
        raise UnavailableError(
            Problem(
                f"store of {config}", "an evaluated objective", "none yet", "start `mlobs serve` on this file"
            )
        )
    told = {each: words(objectives[each], found[each], settings) for each in wanted}
    if as_json:
        rows = [{"name": each, "state": found[each].state, "text": text} for each, text in told.items()]
        print(json.dumps(rows, allow_nan=False))  # noqa: T201 - the command's answer
    else:
        typer.echo("\n\n".join(told.values()))
    states = {found[each].state for each in wanted}
    old = told_old([found[each] for each in wanted], settings)
    if states & {"burning", "exhausted"}:
        raise typer.Exit(EXIT_FINDING)
    raise typer.Exit(EXIT_UNAVAILABLE if old or "absent" in states else EXIT_FINE)


def backtest(
    file: File,
    prometheus: Annotated[
        str, typer.Option(help="Take the past from this Prometheus; else from the store.")
    ] = "",
    days: Annotated[float, typer.Option(min=0.1, help="How far back.")] = 30.0,
    end: Annotated[
        float | None, typer.Option(help="Until when, in seconds since the epoch; now without it.")
    ] = None,
    incidents: Annotated[
        Path | None,
        typer.Option(help="YAML list of {start, end} in seconds or ISO 8601, that people know of."),
    ] = None,
    max_pages: Annotated[
        float | None, typer.Option(help="Exit 1 above so many pages a week and objective.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay the past through proposed objectives and alerts.

    Exit 0; 1 above --max-pages or where a known incident was missed; 2 where FILE is refused; 3 without a
    past, and with --max-pages or --incidents where one objective has none.

    Example: mlobs slo backtest slo.yaml --prometheus http://localhost:9090
    """
    from mlobs.slo.backtest import backtest as replay
    from mlobs.slo.evaluate import plan

    settings = load(file)
    refuse(settings, file)
    known = _incidents(incidents) if incidents is not None else None
    plans = [plan(objective, settings) for objective in settings.slo.objectives]
    source = (
        _from_prometheus(settings, prometheus, days, end) if prometheus else _from_store(settings, days, end)
    )
    found: list[Backtest] = []
    for each in plans:
        past = source(each)
        if past is None and prometheus:
            continue  # told already
        if past is None or not len(past.times) or past.total[-1] <= past.total[0]:
            typer.echo(f"warning: {each.name}: nothing was counted by this definition in that time", err=True)
            continue
        found.append(replay(each, past, known))
    if not found:
        remedy = "let `mlobs serve` count for a while, or take --prometheus URL"
        if prometheus:
            remedy = f"ask `mlobs slo validate {file} --live {prometheus}` what is missing"
        raise NothingJudgedError(Problem(str(file), "counted events in the past", "none", remedy))
    if as_json:
        rows = [
            dataclasses.asdict(each)
            | {"pages_per_week": each.pages_per_week, "missed": each.missed, "delays": each.delays}
            for each in found
        ]
        print(json.dumps(rows, allow_nan=False))  # noqa: T201 - the command's answer
    else:
        _show(found)
    too_many = max_pages is not None and any(each.pages_per_week > max_pages for each in found)
    missed = known is not None and any(each.missed for each in found)
    if too_many or missed:
        raise typer.Exit(EXIT_FINDING)
    asked = max_pages is not None or known is not None
    raise typer.Exit(EXIT_UNAVAILABLE if asked and len(found) < len(plans) else EXIT_FINE)


def backfill(
    file: File,
    prometheus: Annotated[str, typer.Option(help="The server that has the raw series.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where to write.")],
    days: Annotated[float, typer.Option(min=0.1, help="How far back.")] = 30.0,
    end: Annotated[
        float | None, typer.Option(help="Until when, in seconds since the epoch; now without it.")
    ] = None,
    blocks: Annotated[
        bool, typer.Option(help="Let the promtool in PATH make TSDB blocks of each day.")
    ] = False,
) -> None:
    """Write the recorded series of the past, a file a day, so that budgets begin with a history.

    Exit 0; 2 where FILE is refused; 3 where the server does not answer.

    Example: mlobs slo backfill slo.yaml --prometheus http://localhost:9090 -o past
    """
    import time

    from rich.progress import Progress

    from mlobs.slo.backfill import backfill as pieces
    from mlobs.slo.backfill import days as count
    from mlobs.slo.evaluate import plan

    settings = load(file)
    refuse(settings, file)
    until = time.time() if end is None else end
    start = until - days * 86400.0
    plans = [plan(objective, settings) for objective in settings.slo.objectives]
    output.mkdir(parents=True, exist_ok=True)
    console, whole = _stderr(), count(start, until)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        asking = progress.add_task("asking for days", total=whole * len(plans))
        writing = progress.add_task("writing days", total=whole)
        for piece in pieces(
            settings, plans, server(prometheus), start, until, lambda: progress.advance(asking)
        ):
            path = output / f"{int(piece.start)}.om"
            path.write_text(piece.text, encoding="utf-8")
            if blocks:
                _blocks(path, output / "blocks")
            progress.advance(writing)
    where = f"{output / 'blocks'}: move them into the server's data folder" if blocks else str(output)
    typer.echo(f"wrote {count(start, until)} days to {where}")


def _blocks(path: Path, folder: Path) -> None:
    import shutil
    import subprocess

    tool = shutil.which("promtool")
    if tool is None:
        raise UnavailableError(Problem("promtool", "the program in PATH", "none", "or leave --blocks out"))
    folder.mkdir(exist_ok=True)
    command = [tool, "tsdb", "create-blocks-from", "openmetrics", str(path), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own files
    if done.returncode:
        raise UnavailableError(
            Problem(str(path), "blocks", done.stderr.strip()[-200:], "see promtool's message")
        )


def _from_prometheus(
    settings: Settings, url: str, days: float, end: float | None
) -> Callable[[Plan], Past | None]:
    import time

    from rich.progress import Progress

    from mlobs.slo.prometheus import past_of, step_of

    until = time.time() if end is None else end
    console, asked = _stderr(), server(url)

    def past(each: Plan) -> Past | None:
        try:
            step = step_of(each, asked, until - days * 86400.0, until, settings.slo.slice)
        except UnavailableError as problem:
            if problem.problems[0].where != f"the past of {each.name}":
                raise
            typer.echo(f"warning: {problem}", err=True)
            return None  # scrapes are too far apart for this objective
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(each.name, total=days)
            start = (until - days * 86400.0) // step * step
            return past_of(
                each, asked, start, until // step * step, step, settings.slo.slice,
                lambda: progress.advance(task),
            )  # fmt: skip

    return past


def _from_store(settings: Settings, days: float, end: float | None) -> Callable[[Plan], Past | None]:
    import numpy as np

    from mlobs.slo.evaluate import fingerprint
    from mlobs.slo.history import History
    from mlobs.slo.replay import Past
    from mlobs.slo.schema import SCHEMA
    from mlobs.store import open_store

    def past(each: Plan) -> Past | None:
        store = open_store(settings.store, [SCHEMA])
        try:
            found = History(store).past(each.name, fingerprint(each, settings))
        finally:
            store.close()
        if found is None:
            return None
        times, bad, total = (np.array(part) for part in found)
        until = times[-1] if end is None else end
        kept = (times <= until) & (times > until - days * 86400.0)
        return Past(times[kept], bad[kept], total[kept])

    return past


def _incidents(path: Path) -> list[tuple[float, float]]:
    from datetime import datetime

    from mlobs.yamltext import read_yaml

    text = read_yaml(path)

    def time_of(value: object) -> float:
        if isinstance(value, str):
            return datetime.fromisoformat(value).astimezone().timestamp()
        return float(value)  # type: ignore[arg-type]

    try:
        return [(time_of(each["start"]), time_of(each["end"])) for each in text.value]
    except (TypeError, KeyError, ValueError) as problem:
        raise ConfigError(
            Problem(
                str(path),
                "a list of {start, end}",
                str(problem)[:80],
                "write seconds or 2026-11-01T12:00:00+00:00",
            )
        ) from None


def _show(found: list[Backtest]) -> None:
    from rich.console import Console
    from rich.table import Table

    from mlobs.durations import speak_duration

    table = Table(box=None, pad_edge=False)
    columns = "slo, days, pages, a week, false, tickets, incidents, missed, median delay, spent a period"
    for column in columns.split(", "):
        table.add_column(column)
    for each in found:
        delays = each.delays
        table.add_row(
            each.slo, f"{(each.end - each.start) / 86400:.1f}",
            str(len(each.pages)), f"{each.pages_per_week:.2f}",
            str(each.false_pages), str(len(each.tickets)), str(len(each.incidents)), str(each.missed),
            speak_duration(delays[len(delays) // 2]) if delays else "-",
            "-" if each.spent is None else f"{each.spent:.1%}",
        )  # fmt: skip
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200).print(table)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)
