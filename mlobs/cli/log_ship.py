"""`mlobs log ship`: the spool goes to Kafka, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from mlobs.errors import (
    EXIT_FINDING,
    EXIT_FINE,
    EXIT_UNAVAILABLE,
    Problem,
    UnavailableError,
    UnreadableError,
)


def ship(
    source: Annotated[str, typer.Argument(help="Directory of the feature log.", metavar="DIR")],
    to: Annotated[str, typer.Option(help="kafka://host:port/topic")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until a signal.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave shipped segments to `mlobs log compact`.")
    ] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the broker, without --follow; 0 is for ever.", min=0)
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON.")] = False,
) -> None:
    """Ship records and labels to Kafka as CloudEvents, keyed by prediction id.

    What the broker has not answered for stays in the spool. Exit 0; 1 where dead letters lie in spool/dead; 2
    on wrong use; 3 where the broker does not answer or another process ships.

    Example: mlobs log ship ./featurelog --to kafka://127.0.0.1:9092/predictions --follow
    """
    from mlobs.cli.log import _progress
    from mlobs.featurelog.kafka import parse_address
    from mlobs.featurelog.ship import Shipper

    address = parse_address(to)
    if not Path(source).is_dir():
        raise UnreadableError(Problem(source, "a directory", "none", "name the `feature_log` of the service"))
    ended = _ends_by_signal()
    late = _alarm(0.0 if follow else wait)

    with Shipper(Path(source), address, os.environ, remove=not keep) as shipper:
        with _progress("shipped {task.fields[done]:,}") as progress:
            task = progress.add_task("", total=None, done=0)
            while True:
                try:
                    shipper.ship(lambda: ended.is_set() or late.is_set())
                except UnavailableError as problem:
                    if not follow:
                        raise
                    progress.console.print(f"error: {problem}", markup=False)
                progress.update(task, done=shipper.ledger().delivered)
                if not follow or ended.wait(1.0):
                    break
        ledger = shipper.ledger()
    dead = sum(ledger.dropped.values())
    if as_json:
        found = {"delivered": ledger.delivered, "dead_letters": dead, "queued": ledger.queued}
        print(json.dumps(found))  # noqa: T201 - the command's answer
    else:
        print(f"{ledger.delivered:,} events delivered since shipping began, {dead:,} dead letters")  # noqa: T201
    if late.is_set() and ledger.queued:
        raise typer.Exit(EXIT_UNAVAILABLE)
    raise typer.Exit(EXIT_FINDING if dead else EXIT_FINE)


def _ends_by_signal() -> threading.Event:
    ended = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda *_: ended.set())
    return ended


def _alarm(seconds: float) -> threading.Event:
    late = threading.Event()
    if seconds:
        timer = threading.Timer(seconds, late.set)
        timer.daemon = True
        timer.start()
    return late
