"""`mlobs notify`: try the channels."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from mlobs.errors import EXIT_UNAVAILABLE, UsageError, nearest

app = typer.Typer(
    name="notify",
    help="Try the channels, the routes, and write what Alertmanager needs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigOption = Annotated[Path, typer.Option("-c", "--config", help="The settings.", dir_okay=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Strict JSON.")]


@app.command("test")
def try_channels(
    names: Annotated[
        list[str] | None, typer.Argument(help="Channels. Default: all.", metavar="[CHANNEL]...")
    ] = None,
    config: ConfigOption = Path("mlobs.yaml"),
    by: Annotated[str, typer.Option("--by", help="Named in the page.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Send a page that is marked as a test through one channel or all. Exit 3 where one did not take it.

    Example: mlobs notify test oncall -c mlobs.yaml
    """
    from mlobs.config import load_settings
    from mlobs.notify.channels import build_channels
    from mlobs.notify.trial import try_channel

    settings = load_settings(config)
    channels = build_channels(settings.notify)
    if not channels:
        raise UsageError.of(f"{config}: notify.channels", "a channel", "none", "add one, see docs/paging.md")
    for name in names or ():
        if name not in channels:
            raise UsageError.of("CHANNEL", "a channel of the file", repr(name[:80]), nearest(name, channels))
    now = time.time()
    results = {name: try_channel(channels[name], settings, now, by) for name in names or channels}
    if as_json:
        shown = {
            name: {"sent": one.sent, "reason": str(one.reason), "detail": one.detail}
            for name, one in results.items()
        }
        typer.echo(json.dumps(shown))
    else:
        for name, one in results.items():
            why = "" if one.sent else f": {one.reason}" + (f" ({one.detail})" if one.detail else "")
            typer.echo(f"{name}: {'sent' if one.sent else 'not sent'}{why}")
    if not all(one.sent for one in results.values()):
        raise typer.Exit(EXIT_UNAVAILABLE)
