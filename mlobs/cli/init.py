"""`mlobs init`: a first mlobs.yaml and a first masking schema, drawn from a feature log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlobs.errors import Problem, UnreadableError, UsageError

if TYPE_CHECKING:
    from mlobs.featurelog.reader import Chunk

_ROWS = 10_000


def init(
    folder: Annotated[Path, typer.Argument(help="Where the files go.", metavar="DIR")] = Path(),
    log: Annotated[str, typer.Option(help="A feature log to draw models and features from.")] = "",
    service: Annotated[str, typer.Option(help="Name of the service; else the log's, else my-service.")] = "",
) -> None:
    """Write mlobs.yaml and mask.yaml, to be gone through line by line. Never overwrites.

    Example: mlobs init --log ./featurelog
    """
    from mlobs.featurelog.maskschema import draft_schema

    files = folder / "mlobs.yaml", folder / "mask.yaml"
    there = [str(path) for path in files if path.exists()]
    if there:
        raise UsageError(Problem(", ".join(there), "no such file yet", "one", "move it away, or name a DIR"))
    services, models, features = _drawn(log) if log else ([], [], {})
    name = service or (services[0] if services else "my-service")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(files, (_settings(name, log, models, folder), draft_schema(features)), strict=True):
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    print(f"{files[0]} and {files[1]}: {len(models)} models, {len(features)} features")  # noqa: T201 - the answer


def _drawn(source: str) -> tuple[list[str], list[str], dict[str, Any]]:
    """Services, models, and a value of each feature, of the first records of a log."""
    from mlobs.featurelog.reader import LogReader

    if "://" not in source and not Path(source).is_dir():
        raise UnreadableError(Problem(source, "a feature log", "no directory", "name a `feature_log`"))
    chunk: Chunk = LogReader(source).poll(None, _ROWS)
    services: set[str] = set()
    features: dict[str, Any] = {}
    for table in chunk.records.values():
        services.update(each for each in table.column("service").unique().to_pylist() if each)
        for row in table.column("features").to_pylist():
            for name, value in (row or {}).items():
                if features.get(name) is None:
                    features[name] = value
    return sorted(services), sorted(filter(None, chunk.records)), features


def _settings(service: str, log: str, models: list[str], folder: Path) -> str:
    place = "./featurelog"
    if log:
        place = log if "://" in log else str(Path(log).absolute())
        if "://" not in log and Path(log).absolute().parent == folder.absolute():
            place = f"./{Path(log).name}"
    lines = [
        f"service: {json.dumps(service)}",
        f"feature_log: {json.dumps(place)}",
        "mask: {schema: mask.yaml}",
        "targets: []   # where /metrics is, like http://127.0.0.1:8000/metrics",
        "models:" if models else "models: []",
        *(f"  - name: {json.dumps(model)}" for model in models),
        "notify:",
        "  channels:",
        "    print: {console: }",
        "  routes:",
        "    - {to: [print]}",
    ]
    return "\n".join([*lines, ""])
