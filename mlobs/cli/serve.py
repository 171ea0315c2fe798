"""`mlobs serve` and `mlobs doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path, typer.Option("-c", "--config", help="The settings.", show_default=True, dir_okay=False)
]


def serve(config: ConfigOption = Path("mlobs.yaml")) -> None:
    """Run the monitor: scrape, read the feature log, judge, page, and show it on a web page.

    Example: mlobs serve -c mlobs.yaml
    """
    from mlobs.service.serve import serve as run  # heavy: numpy, SQLAlchemy, uvicorn

    run(config)


def doctor(
    config: ConfigOption = Path("mlobs.yaml"),
    json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check a configuration against the world: files, keys, targets, store, ports, extras.

    Example: mlobs doctor -c mlobs.yaml
    """
    from mlobs.service.doctor import doctor as run

    raise typer.Exit(run(config, json))
