"""`mlobs log erase`: the records of one subject, out of spool and lake."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlobs.durations import parse_duration
from mlobs.errors import EXIT_FINDING, EXIT_FINE, Problem, UnreadableError, UsageError

if TYPE_CHECKING:
    from mlobs.featurelog.erase import Erased


def erase(
    source: Annotated[
        str, typer.Argument(help="Directory of the feature log, or s3://bucket/prefix.", metavar="DIR")
    ],
    subject: Annotated[
        str, typer.Option(help="The entity as the service named it; '-' reads it from standard input.")
    ],
    feature: Annotated[
        list[str] | None, typer.Option(help="A hashed feature that holds the subject too; may be repeated.")
    ] = None,
    lake: Annotated[str, typer.Option(help="Where the lake is, if not in DIR.")] = "",
    key_file: Annotated[
        str, typer.Option(help="The `mask.key_file`; else MLOBS_HASH_KEY, else hash.key in DIR.")
    ] = "",
    lost_key: Annotated[
        list[str] | None,
        typer.Option(help="Id of a key that exists no more: what it hashed is nobody's; may be repeated."),
    ] = None,
    wait: Annotated[
        str, typer.Option(help="How long to wait for segments that a service still writes to.")
    ] = "90s",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON.")] = False,
) -> None:
    """Erase a subject's records and the labels of their predictions, and look again to prove it.

    Every key of the key file is tried; rows hashed by another key are told, and spoil the proof. A run that
    was killed is finished by the next. Exit 0 when nothing of the subject was found afterwards; 1 where
    something is left or could not be read; 2 on wrong use; 3 where a compaction runs or the storage does not
    answer.

    Example: mlobs log erase ./featurelog --subject customer-42 --dry-run
    """
    from mlobs.cli.log import _progress
    from mlobs.featurelog.erase import UNREACHED, Target
    from mlobs.featurelog.erase import erase as run
    from mlobs.featurelog.storage import open_storage

    folder = None if source.startswith("s3://") else Path(source.removeprefix("file://"))
    if folder is not None and not folder.is_dir():
        raise UnreadableError(Problem(source, "a directory", "none", "name the `feature_log` of the service"))
    name = typer.get_text_stream("stdin").readline().rstrip("\n") if subject == "-" else subject
    if not name:
        raise UsageError(Problem("--subject", "an entity", "nothing", "write it as the service passes it"))
    target = Target(_hashes(name, folder, key_file), tuple(feature or ()), frozenset(lost_key or ()))
    deadline = time.monotonic() + _seconds(wait)

    def pause(_segments: list[str]) -> bool:
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        return time.monotonic() < deadline

    with _progress("looking {task.percentage:.0f} %") as progress:
        task = progress.add_task("", total=None)
        result = run(
            folder,
            open_storage(lake or source),
            target,
            dry_run=dry_run,
            pause=pause,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    found = {**dataclasses.asdict(result), "proved": result.proved and not dry_run, "dry_run": dry_run}
    if as_json:
        print(json.dumps({**found, "unreached": UNREACHED}))  # noqa: T201 - the command's answer
    else:
        _show(result, dry_run, UNREACHED)
    raise typer.Exit(EXIT_FINE if result.proved or dry_run else EXIT_FINDING)


def _hashes(subject: str, folder: Path | None, key_file: str) -> frozenset[str]:
    """By every key there is and by both algorithms: a schema may have changed since."""
    from mlobs.featurelog.keys import ALGORITHMS, KEY_FILE_NAME, configured_keys

    kept = None if folder is None else folder / KEY_FILE_NAME
    found: set[str] = set()
    for algorithm in ALGORITHMS:
        rings = [configured_keys(key_file or None, os.environ, algorithm)]
        if kept is not None and kept.exists():
            rings.append(configured_keys(str(kept), os.environ, algorithm))
        for ring in rings:
            found.update(() if ring is None else ring.hashes(subject))
    if not found:
        raise UsageError(
            Problem("hash key", "the key of the service", "none", "name it: --key-file, or MLOBS_HASH_KEY")
        )
    return frozenset(found)


def _seconds(wait: str) -> float:
    try:
        return float(parse_duration(wait))
    except ValueError:
        raise UsageError(Problem("--wait", "a duration", repr(wait[:40]), "write one like 90s")) from None


def _show(result: Erased, dry_run: bool, unreached: tuple[str, ...]) -> None:
    would = "would be erased" if dry_run else "erased"
    places = f"{result.segments} segments and {result.files} Parquet files"
    lines = [f"{result.records:,} records and {result.labels:,} labels {would}, in {places}"]
    if result.letters:
        lines.append(f"{result.letters:,} dead letters of the shipping {would}")
    if result.blanked:
        lines.append(f"{result.blanked} unreadable stretches held the subject: zeros now")
    if not dry_run:
        lines.append("looked again: nothing is left" if result.proved else "NOT all is gone:")
    if result.remains:
        lines.append(f"  {result.remains:,} rows are left" + ("" if result.waiting else ": run it again"))
    if result.unreadable:
        lines.append(f"  {result.unreadable} Parquet files cannot be opened: remove them by hand")
    if result.waiting:
        lines.append(f"  a service still writes to {', '.join(result.waiting)}: run it again in a minute")
    for key, rows in sorted(result.strange_keys.items()):
        lines.append(f"  the entity of {rows:,} rows is hashed by key {key}, which was not given:")
        lines.append(f"    add it to the key file, or say --lost-key {key} if it exists no more")
    for name, rows in sorted(result.elsewhere.items()):
        lines.append(f"  the hash stands in {name} of {rows} other rows: add --feature {name} to erase them")
    lines += ["not reached:", *(f"  {each}" for each in unreached)]
    print("\n".join(lines))  # noqa: T201 - the command's answer
