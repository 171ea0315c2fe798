"""`mlobs demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlobs.errors import Problem, UnavailableError


def demo(
    days: Annotated[int, typer.Option(help="Days of March to replay.", min=1)] = 31,
    faults: Annotated[bool, typer.Option("--faults/--no-faults", help="Cause the two faults.")] = True,
    notify: Annotated[bool, typer.Option("--notify/--no-notify", help="Send pages.")] = True,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Keep everything here; default: a temporary folder.")
    ] = None,
    stay: Annotated[
        bool | None,
        typer.Option("--stay/--no-stay", help="Leave the web page up until Ctrl-C; default: on a terminal."),
    ] = None,
) -> None:
    """The main job on real flights: serve, log, watch, break twice, page. Exit 0 if the pages were right.

    Example: mlobs demo --days 22
    """
    from mlobs.demo.run import Options, interactive, run_demo  # heavy, and an extra
    from mlobs.demo.show import terminal

    options = Options(days, faults, notify, folder, interactive() if stay is None else stay)
    try:
        code = run_demo(options, terminal())
    except KeyboardInterrupt:
        raise UnavailableError(
            Problem("demo", "to run to its end", "Ctrl-C", "run it again; nothing was left behind")
        ) from None
    raise typer.Exit(code)
