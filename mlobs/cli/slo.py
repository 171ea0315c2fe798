"""`mlobs slo`: objectives as rules, as a table before they are applied, and as they stand."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlobs.cli import slo_past
from mlobs.cli.slo_common import Config, File, Json, load, refuse, server, told_old
from mlobs.errors import EXIT_FINDING, EXIT_FINE, EXIT_UNAVAILABLE, ConfigError, Problem, UnavailableError

if TYPE_CHECKING:
    from rich.console import Console

    from mlobs.settings import Settings
    from mlobs.slo.status import SloStatus

app = typer.Typer(
    name="slo",
    help="Objectives, error budgets, burn rates.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command()(slo_past.explain)
app.command()(slo_past.backtest)
app.command()(slo_past.backfill)


@app.command()
def rules(
    file: File,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where to write.")],
) -> None:
    """Write rules for Prometheus, promtool's tests of them, and the same rules as a PrometheusRule object.

    Exit 0; 2 where an objective is refused.

    Example: mlobs slo rules slo.yaml -o rules
    """
    from mlobs.slo.rules import kubernetes_document, rules_document
    from mlobs.slo.ruletests import tests_document
    from mlobs.slo.write import to_yaml

    settings = load(file)
    refuse(settings, file)
    name = f"{settings.service}.rules.yaml"
    _write(output / name, to_yaml(rules_document(settings)))
    _write(output / f"{settings.service}.rules.test.yaml", to_yaml(tests_document(settings, name)))
    _write(
        output / "kubernetes" / f"{settings.service}.prometheusrule.yaml",
        to_yaml(kubernetes_document(settings)),
    )


@app.command()
def test(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What `mlobs slo rules` wrote.")],
) -> None:
    """Run the tests of the written rules by the promtool in PATH.

    Exit 0; 1 where a test fails; 3 where there is no promtool or no test.

    Example: mlobs slo test rules
    """
    import shutil
    import subprocess

    tool, files = shutil.which("promtool"), sorted(directory.glob("*.rules.test.yaml"))
    if tool is None:
        raise UnavailableError(
            Problem("promtool", "the program in PATH", "none", "install Prometheus, which brings it")
        )
    if not files:
        raise UnavailableError(
            Problem(
                str(directory), "*.rules.test.yaml", "none", "run `mlobs slo rules slo.yaml -o DIR` first"
            )
        )
    typer.echo(f"promtool tests {len(files)} file{'s'[: len(files) > 1]}; it may take a minute", err=True)
    done = subprocess.run([tool, "test", "rules", *map(str, files)], check=False)  # noqa: S603 - our own files
    raise typer.Exit(EXIT_FINDING if done.returncode else EXIT_FINE)


@app.command()
def validate(
    file: File,
    live: Annotated[
        str, typer.Option(metavar="URL", help="Ask this Prometheus for series and buckets.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check objectives, and say how soon each alert would speak and fall silent.

    Exit 0; 2 where an objective is refused; 3 where --live does not answer.

    Example: mlobs slo validate slo.yaml --live http://127.0.0.1:9090
    """
    from mlobs.slo.validate import times

    settings = load(file)
    refuse(settings, file)
    if live:
        _ask(settings, file, live)
    rows = times(settings)
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], allow_nan=False))  # noqa: T201
        return
    from rich.table import Table

    from mlobs.durations import speak_duration

    table = Table(
        title=f"{file}: {len(settings.slo.objectives)} objectives",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in (
        "slo",
        "objective",
        "severity",
        "windows",
        "factor",
        "fires above",
        "100 % bad",
        "10 % bad",
        "reset",
    ):
        table.add_column(column)
    for row in rows:
        spoken = ["never" if t is None else speak_duration(t) for t in (row.detect_total, row.detect_tenth)]
        quiet = "-" if row.reset_total is None else speak_duration(row.reset_total)
        table.add_row(
            row.slo, row.objective, row.severity, f"{row.long} / {row.short}", f"{row.factor:.4g}",
            f"{row.burns_above:.3%}", *spoken, quiet,
        )  # fmt: skip
    _console().print(table)


@app.command()
def openslo(file: File) -> None:
    """Print the objectives as OpenSLO v1 documents.

    Exit 0; 2 where FILE is refused.

    Example: mlobs slo openslo mlobs.yaml > openslo.yaml
    """
    from mlobs.slo.openslo import bundle_of, write_openslo

    typer.echo(write_openslo(bundle_of(load(file))), nl=False)


@app.command()
def status(config: Config = Path("mlobs.yaml"), as_json: Json = False) -> None:
    """Show every objective as `mlobs serve` last evaluated it.

    Exit 0; 1 where a budget is spent or burning; 3 where nothing has been evaluated in the last minutes, or
    data are absent.

    Example: mlobs slo status -c mlobs.yaml
    """
    from mlobs.slo import read
    from mlobs.slo.schema import SCHEMA
    from mlobs.store import open_store

    settings = load(config)
    store = open_store(settings.store, [SCHEMA])
    try:
        statuses = read.statuses(store)
    finally:
        store.close()
    if not statuses:
        raise UnavailableError(
            Problem(f"store {config}", "evaluated objectives", "none yet", "start `mlobs serve` on this file")
        )
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in statuses], allow_nan=False))  # noqa: T201
    else:
        _show(statuses)
    states = {each.state for each in statuses}
    old = told_old(statuses, settings)
    if states & {"exhausted", "burning"}:
        raise typer.Exit(EXIT_FINDING)
    raise typer.Exit(EXIT_UNAVAILABLE if old or "absent" in states else EXIT_FINE)


def _show(statuses: list[SloStatus]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("slo", "objective", "state", "budget left", "burn", "reason"):
        table.add_column(column)
    for each in statuses:
        left = "-" if each.remaining is None else f"{each.remaining:z.1%}"
        if each.remaining_minutes is not None:
            left += f" ({each.remaining_minutes:z.0f} of {each.budget_minutes:.0f} min)"
        rates = ", ".join(
            f"{window} {rate:.3g}" for window, rate in each.burn_rates.items() if rate is not None
        )
        table.add_row(each.name, each.objective, each.state, left, rates or "-", each.reason)
    _console().print(table)


def _ask(settings: Settings, file: Path, url: str) -> None:
    """Raise ConfigError where the server lacks what the objectives need."""
    import time

    from mlobs.slo.evaluate import plan
    from mlobs.slo.prometheus import live_problems, retention_problems

    asked, problems = server(url, "--live"), []
    plans = [plan(objective, settings) for objective in settings.slo.objectives]
    for number, each in enumerate(plans):
        problems += live_problems(each, asked, f"{file}: slo.objectives[{number}] ({each.name})", time.time())
    problems += retention_problems(asked, max(each.period for each in plans), url)
    if problems:
        raise ConfigError(*problems)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise UnavailableError(
            Problem(
                str(path), "a place to write", problem.strerror or "an error", "name another folder with -o"
            )
        ) from None
    typer.echo(f"wrote {path}")


def _console() -> Console:
    from rich.console import Console

    # Into a file or a pipe a table is as wide as it needs to be.
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
