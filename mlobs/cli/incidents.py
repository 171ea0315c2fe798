"""`mlobs incidents` and `mlobs event`: the on-call engineer's and the pipeline's side of paging."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlobs.errors import EXIT_FINDING, UsageError

if TYPE_CHECKING:  # SQLAlchemy belongs to the extra [service]
    from mlobs.notify.read import IncidentRow, IncidentStory
    from mlobs.settings import Settings
    from mlobs.store import Store

app = typer.Typer(
    name="incidents",
    help="List incidents, look at one, acknowledge or resolve it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigOption = Annotated[Path, typer.Option("-c", "--config", help="The settings.", dir_okay=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Strict JSON.")]
ByOption = Annotated[str, typer.Option("--by", help="Who does it. Default: the user of this machine.")]
Which = Annotated[str, typer.Argument(help="Id of the incident.", metavar="ID")]


class State(StrEnum):
    """What `list` shows."""

    OPEN = "open"
    RESOLVED = "resolved"
    ALL = "all"


@app.command("list")
def list_(
    config: ConfigOption = Path("mlobs.yaml"),
    state: Annotated[State, typer.Option(help="Which ones.")] = State.OPEN,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List incidents, the newest first. Exit 0 where none is open, 1 where one is.

    Example: mlobs incidents list -c mlobs.yaml
    """
    from mlobs.notify import read

    with opened(config) as (settings, store):
        rows = read.incidents(store, settings, state=None if state is State.ALL else str(state), limit=limit)
    if as_json:
        _print_json(rows)
    else:
        _print_rows(rows)
    if any(one.state != "resolved" for one in rows):
        raise typer.Exit(EXIT_FINDING)


@app.command()
def show(which: Which, config: ConfigOption = Path("mlobs.yaml"), as_json: JsonOption = False) -> None:
    """Show one incident: its page, what was sent where, and its timeline.

    Example: mlobs incidents show 3f2a9c0d1b7e
    """
    from mlobs.notify import read

    with opened(config) as (settings, store):
        story = read.incident(store, settings, which)
    if story is None:
        raise _unknown(which)
    if as_json:
        _print_json(story)
    else:
        _print_story(story)


@app.command()
def ack(
    which: Which, config: ConfigOption = Path("mlobs.yaml"), by: ByOption = "", as_json: JsonOption = False
) -> None:
    """Acknowledge an incident: everybody who was told sees who has it, and nobody else is woken.

    Example: mlobs incidents ack 3f2a9c0d1b7e --by ada
    """
    from mlobs.notify.keeping import acknowledge_by_hand

    with opened(config) as (settings, store):
        changed = acknowledge_by_hand(store, settings, which, by or getpass.getuser(), time.time())
        _answer(store, settings, which, changed is not None, as_json)


@app.command()
def resolve(
    which: Which, config: ConfigOption = Path("mlobs.yaml"), by: ByOption = "", as_json: JsonOption = False
) -> None:
    """Resolve an incident by hand. What goes on firing is left alone for an hour.

    Example: mlobs incidents resolve 3f2a9c0d1b7e --by ada
    """
    from mlobs.notify.keeping import resolve_by_hand

    with opened(config) as (settings, store):
        changed = resolve_by_hand(store, settings, which, by or getpass.getuser(), time.time())
        _answer(store, settings, which, changed is not None, as_json)


class EventKind(StrEnum):
    """What may have happened around a model."""

    DEPLOY = "deploy"
    SCHEMA = "schema"
    REFERENCE = "reference"
    CONFIG = "config"
    NOTE = "note"


def event(
    kind: Annotated[EventKind, typer.Argument(help="What happened.")],
    text: Annotated[str, typer.Argument(help="In a few words: the version, the ticket.")],
    config: ConfigOption = Path("mlobs.yaml"),
    model: Annotated[str, typer.Option(help="The model; without it the whole service.")] = "",
    at: Annotated[str, typer.Option(help="When, ISO 8601 with a zone. Default: now.")] = "",
    source: Annotated[str, typer.Option(help="Who says so.")] = "cli",
) -> None:
    """Tell mlobs of a deploy, a schema or a reference change: a page that follows suspects it.

    Example: mlobs event deploy 2026-11-02 --model fraud --source ci
    """
    from mlobs.notify.keeping import record_event
    from mlobs.records import TimelineEvent

    when = moment_given(at)
    with opened(config) as (settings, store):
        record_event(store, TimelineEvent(when, str(kind), settings.service, model, text, source))
    typer.echo(f"{kind} of {model or settings.service} noted")


@contextmanager
def opened(config: Path) -> Iterator[tuple[Settings, Store]]:
    from mlobs.config import load_settings
    from mlobs.notify.tables import SCHEMA
    from mlobs.store import open_store

    settings = load_settings(config)
    store = open_store(settings.store, [SCHEMA])
    try:
        yield settings, store
    finally:
        store.close()


def _answer(store: Store, settings: Settings, which: str, changed: bool, as_json: bool) -> None:
    from mlobs.notify import read

    story = read.incident(store, settings, which)
    if story is None:
        raise _unknown(which)
    if as_json:
        _print_json({"changed": changed, "incident": story.row})
    else:
        who = f" by {story.row.acknowledged_by}" if story.row.acknowledged_by else ""
        typer.echo(f"{which} is {story.row.state}{who}{'' if changed else ' already'}: {story.row.title}")


def _unknown(which: str) -> UsageError:
    remedy = "look it up: mlobs incidents list --state all"
    raise UsageError.of("incidents", "the id of an incident", repr(which[:80]), remedy)


def moment_given(text: str) -> float:
    """Seconds of an ISO 8601 time with a zone; now for none. Raises UsageError."""
    if not text:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        remedy = "write for example 2026-11-02T09:30:00+00:00"
        raise UsageError.of("--at", "a time with a zone", repr(text[:80]), remedy)
    return moment.timestamp()


def _print_json(value: Any) -> None:
    import msgspec

    typer.echo(json.dumps(msgspec.to_builtins(value), allow_nan=False, ensure_ascii=False))


def _print_rows(rows: tuple[IncidentRow, ...]) -> None:
    if not rows:
        typer.echo("no incidents")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("id", "state", "severity", "since", "incident"):
        table.add_column(name, no_wrap=name != "incident")
    for one in rows:
        since = datetime.fromtimestamp(one.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
        table.add_row(one.id, one.state, one.severity, since, Text(one.title))
    # a pipe has no width: a script wants a line an incident
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240).print(table)


def _print_story(story: IncidentStory) -> None:
    from mlobs.notify.read import lines_of
    from mlobs.notify.text import moment

    for line in lines_of(story.page):
        typer.echo(line)
    typer.echo("Messages")
    for sent in story.pages:
        tries = f", {sent.attempts} attempts" if sent.attempts > 1 else ""
        reason = f" ({sent.reason})" if sent.reason not in ("", "ok") else ""
        when = moment(sent.sent_at or sent.wanted_at)
        typer.echo(f"  {when} {sent.kind} to {sent.channel}: {sent.state}{reason}{tries}")
    typer.echo("Timeline")
    for row in story.timeline:
        typer.echo(f"  {moment(row.at)} {row.kind}: {row.text}")
