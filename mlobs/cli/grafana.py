"""`mlobs grafana`: the dashboard as a file, or kept in step with a running Grafana."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from mlobs import names
from mlobs.errors import EXIT_FINDING, EXIT_FINE, UnreadableError
from mlobs.grafana.changes import UNCHANGED, Change
from mlobs.grafana.dashboard import dashboard, encoded
from mlobs.secret import Secret

app = typer.Typer(
    name="grafana",
    help="The Grafana dashboard of a service.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Config = Annotated[Path, typer.Option("-c", "--config", help="Settings.", metavar="FILE")]
Url = Annotated[str, typer.Option(help="Address of Grafana.", metavar="URL")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File with a service account's token; else the variable MLOBS_GRAFANA_TOKEN.", metavar="FILE"
    ),
]
AllowHttp = Annotated[bool, typer.Option("--allow-http", help="Send the token unencrypted beyond loopback.")]
AsJson = Annotated[bool, typer.Option("--json", help="Strict JSON.")]


@app.command()
def write(
    config: Config = Path("mlobs.yaml"),
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write to.", metavar="DIR")] = Path(
        "dashboards"
    ),
) -> None:
    """Write the dashboard as JSON, to import by hand or to provision from a folder.

    Example: mlobs grafana write -c mlobs.yaml -o dashboards/
    """
    made = _wanted(config)
    target = out / f"{made['uid']}.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        partial.write_text(encoded(made), encoding="utf-8")
        os.replace(partial, target)
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise UnreadableError.of(str(target), "a place to write to", reason, "name another with -o") from None
    typer.echo(str(target))


@app.command()
def diff(
    url: Url,
    config: Config = Path("mlobs.yaml"),
    token_file: TokenFile = None,
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> None:
    """Show what `provision` would change. Exit 0: nothing; 1: something.

    Example: mlobs grafana diff --url https://grafana.example.com --token-file token
    """
    from mlobs.grafana.remote import Grafana

    planned = Grafana(url, _token(token_file), allow_http=allow_http).plan(_wanted(config))
    _say(planned, as_json, done=False)
    raise typer.Exit(EXIT_FINE if planned.kind == UNCHANGED else EXIT_FINDING)


@app.command()
def provision(
    url: Url,
    config: Config = Path("mlobs.yaml"),
    token_file: TokenFile = None,
    folder: Annotated[str, typer.Option(help="Uid of the folder; made if it is missing.")] = "mlobs",
    allow_http: AllowHttp = False,
    as_json: AsJson = False,
) -> None:
    """Create or update the dashboard in Grafana; a second time changes nothing.

    Example: mlobs grafana provision --url https://grafana.example.com --token-file token
    """
    from mlobs.grafana.remote import Grafana

    done = Grafana(url, _token(token_file), allow_http=allow_http).provision(_wanted(config), folder)
    _say(done, as_json, done=True)


def _wanted(config: Path) -> dict[str, object]:
    from mlobs.config import load_settings  # pydantic

    return dashboard(load_settings(config))


def _token(file: Path | None) -> Secret | None:
    if file is not None:
        return Secret("--token-file", file=str(file))
    if os.environ.get(names.ENV_GRAFANA_TOKEN):
        return Secret(names.ENV_GRAFANA_TOKEN, env=names.ENV_GRAFANA_TOKEN)
    return None


def _say(change: Change, as_json: bool, *, done: bool) -> None:
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(change), allow_nan=False))
        return
    word = {"create": "created", "update": "updated"}.get(change.kind, change.kind) if done else change.kind
    typer.echo(f"{word}: {change.title} ({change.uid})")
    for difference in change.differences:
        typer.echo(f"  {difference}")
