"""`mlobs notify`: try the channels."""

from __future__ import annotations

import getpass
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mlobs.cli.incidents import moment_given, opened
from mlobs.durations import parse_duration
from mlobs.errors import EXIT_FINDING, EXIT_UNAVAILABLE, UsageError, nearest
from mlobs.names import SEVERITIES

app = typer.Typer(
    name="notify",
    help="Try the channels, the routes, and write what Alertmanager needs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

routes = typer.Typer(name="routes", help="Who gets what.", no_args_is_help=True, rich_markup_mode=None)
silence = typer.Typer(
    name="silence", help="Keep quiet about what is known.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(routes)
app.add_typer(silence)

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
    # with --json stdout is the answer's alone
    channels = build_channels(settings.notify, to_stderr) if as_json else build_channels(settings.notify)
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


@routes.command("test")
def who_gets(
    config: ConfigOption = Path("mlobs.yaml"),
    severity: Annotated[str, typer.Option(help="page or ticket.")] = "page",
    model: Annotated[str, typer.Option(help="The model.")] = "",
    service: Annotated[str, typer.Option(help="Default: that of the file.")] = "",
    environment: Annotated[str, typer.Option(help="Default: that of the file.")] = "",
    cause: Annotated[str, typer.Option(help="latency, drift, ...")] = "latency",
    segment: Annotated[str, typer.Option(help="The segment hit.")] = "",
    at: Annotated[str, typer.Option(help="When, ISO 8601 with a zone. Default: now.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Say who would get such an incident, and why. Exit 1 where nobody would.

    Example: mlobs notify routes test --severity page --model fraud --at 2026-11-28T03:00:00+01:00
    """
    from mlobs.config import load_settings
    from mlobs.notify.trial import explain_route

    if severity not in SEVERITIES:
        raise UsageError.of("--severity", "a severity", repr(severity[:80]), nearest(severity, SEVERITIES))
    settings = load_settings(config)
    told = explain_route(
        settings,
        moment_given(at),
        severity=severity,
        model=model,
        service=service or settings.service,
        environment=environment or settings.environment,
        cause=cause,
        segment=segment,
    )
    if as_json:
        channels = [one.channel for one in told.to]
        who = [asdict(one) for one in told.to]
        shown = {"to": channels, "who": who, "why": told.why, "passed": told.passed, "then": told.then}
        typer.echo(json.dumps(shown))
    else:
        for line in told.passed:
            typer.echo(f"passed over: {line}")
        typer.echo(f"{told.why}")
        for one in told.to:
            typer.echo(f"told: {one}")
        if not told.to:
            typer.echo("told: nobody")
        for line in told.then:
            typer.echo(line)
    if not told.to:
        raise typer.Exit(EXIT_FINDING)


@app.command()
def alertmanager(
    config: ConfigOption = Path("mlobs.yaml"),
    url: Annotated[str, typer.Option(help="Where Alertmanager reaches mlobs.")] = "",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder. Default: print.", file_okay=False)
    ] = None,
) -> None:
    """Write alertmanager.yml and the rules of the watchdog: all to mlobs, its own death past it.

    Example: mlobs notify alertmanager -c mlobs.yaml --url http://mlobs:9464/api/alertmanager -o alertmanager/
    """
    from mlobs.config import load_settings
    from mlobs.notify.amconfig import config_text, rules_text

    settings = load_settings(config)
    address = url or f"{(settings.public_url or 'http://' + settings.listen).rstrip('/')}/api/alertmanager"
    files = {"alertmanager.yml": config_text(settings, address), "mlobs-paging.yml": rules_text(settings)}
    for name, text in files.items():
        if out is None:
            typer.echo(f"# {name}")
            typer.echo(text)
        else:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, encoding="utf-8")
            typer.echo(f"{out / name} written")


@silence.command("add")
def add_silence(
    match: Annotated[
        list[str], typer.Argument(help="name=value, all of which must match.", metavar="NAME=VALUE...")
    ],
    config: ConfigOption = Path("mlobs.yaml"),
    length: Annotated[str, typer.Option("--for", help="How long, like 2h.")] = "2h",
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who. Default: the user of this machine.")] = "",
) -> None:
    """Tell nobody of what matches, for a while. What still fires at its end is told then.

    Example: mlobs notify silence add model=fraud severity=ticket --for 4h --comment "known, mended tomorrow"
    """
    from mlobs.notify.keeping import silence as keep_silence
    from mlobs.notify.routing import Silence

    now = time.time()
    one = Silence(0, matchers(match), now, now + seconds_of(length), by or getpass.getuser(), comment)
    with opened(config) as (_, store):
        number = keep_silence(store, one)
    typer.echo(f"silence {number} for {length}: {', '.join(match)}")


@silence.command("list")
def list_silences(config: ConfigOption = Path("mlobs.yaml"), as_json: JsonOption = False) -> None:
    """Show the silences that hold.

    Example: mlobs notify silence list
    """
    from mlobs.notify import read
    from mlobs.notify.text import moment

    with opened(config) as (_, store):
        found = read.silences(store, time.time())
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(found).decode())
        return
    for one in found:
        match = ", ".join(f"{name}={value}" for name, value in one.match.items())
        typer.echo(
            f"{one.id}: {match} until {moment(one.end)} by {one.by}{': ' if one.comment else ''}{one.comment}"
        )
    if not found:
        typer.echo("no silences")


@silence.command("end")
def end_silence(
    number: Annotated[int, typer.Argument(help="Of the silence.")], config: ConfigOption = Path("mlobs.yaml")
) -> None:
    """End a silence now.

    Example: mlobs notify silence end 3
    """
    from mlobs.notify.keeping import unsilence

    with opened(config) as (_, store):
        ended = unsilence(store, number, time.time())
    if not ended:
        raise UsageError.of("NUMBER", "a silence that holds", str(number), "look: mlobs notify silence list")
    typer.echo(f"silence {number} ended")


def to_stderr(text: str) -> None:
    typer.echo(text, err=True, nl=False)


def matchers(words: list[str]) -> dict[str, str]:
    """`model=fraud` words as a mapping. Raises UsageError."""
    from mlobs.notify.routing import MATCHED

    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value or name not in MATCHED:
            known = nearest(name, MATCHED)
            raise UsageError.of(
                "NAME=VALUE", "a name that can be matched, and a value", repr(word[:80]), known
            )
        found[name] = value
    return found


def seconds_of(text: str) -> float:
    """`2h` -> 7200. Raises UsageError."""
    try:
        return float(parse_duration(text))
    except ValueError:
        raise UsageError.of("--for", "a duration", repr(text[:80]), "write one like 2h") from None
