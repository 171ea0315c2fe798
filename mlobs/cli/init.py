"""`mlobs init`: a first mlobs.yaml and masking schema, from a feature log or training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlobs.errors import Problem, UnreadableError, UsageError

if TYPE_CHECKING:
    from mlobs.featurelog.proposal import Proposed
    from mlobs.featurelog.reader import Chunk

_ROWS = 10_000


def init(
    folder: Annotated[Path, typer.Argument(help="Where the files go.", metavar="DIR")] = Path(),
    log: Annotated[str, typer.Option(help="A feature log to draw models and features from.")] = "",
    reference: Annotated[
        str, typer.Option(help="Training data to propose the masking from: Parquet, Arrow, CSV or .mlref.")
    ] = "",
    model: Annotated[str, typer.Option(help="With --reference: the model; default: the file's name.")] = "",
    service: Annotated[str, typer.Option(help="Name of the service; else the log's, else my-service.")] = "",
) -> None:
    """Write mlobs.yaml and mask.yaml, to be gone through line by line. Never overwrites.

    With --reference every column gets a line: what looks personal by its name or its values is marked REVIEW.
    No value of the data is written.

    Example: mlobs init --reference january.parquet --model fraud
    """
    from mlobs.featurelog.proposal import draft, of_value, told

    files = folder / "mlobs.yaml", folder / "mask.yaml"
    there = [str(path) for path in files if path.exists()]
    if there:
        raise UsageError(Problem(", ".join(there), "no such file yet", "one", "move it away, or name a DIR"))
    services, models, features = _drawn(log) if log else ([], [], {})
    proposals = _proposed(reference) if reference else {}
    proposals |= {name: of_value(value) for name, value in features.items() if name not in proposals}
    if reference:
        models = list(dict.fromkeys([model or Path(reference).stem, *models]))
    name = service or (services[0] if services else "my-service")
    folder.mkdir(parents=True, exist_ok=True)
    texts = _settings(name, log, models, folder, reference), draft(proposals, reference or log)
    for path, text in zip(files, texts, strict=True):
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    typer.echo(f"{files[0]} and {files[1]}: {len(models)} models, {len(proposals)} features")
    if proposals:
        typer.echo(f"proposed: {told(proposals)}")
        typer.echo(f"go through {files[1]} line by line: it decides what leaves the process")


def _proposed(reference: str) -> dict[str, Proposed]:
    """A proposal for each column of a table, or of a built reference."""
    import pyarrow as pa

    from mlobs.drift.mlref import is_reference, read_reference
    from mlobs.drift.readers import open_table
    from mlobs.drift.spec import NUMBER
    from mlobs.featurelog.proposal import LOOKED_AT, of_column

    if "://" not in reference and is_reference(reference):
        columns = read_reference(reference).spec.columns
        return {
            name: of_column(name, pa.nulls(0, pa.float64()) if column.kind == NUMBER else pa.array(
                [*column.categories, *column.categories, *sorted(column.known)], pa.string()
            ))
            for name, column in columns.items()
        }  # fmt: skip
    source = open_table(reference)
    batch = next(iter(source.batches()), source.schema.empty_table()).slice(0, LOOKED_AT)
    found = {}
    for name in batch.column_names:
        column = batch.column(name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        found[name] = of_column(name, column)
    return found


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


def _settings(service: str, log: str, models: list[str], folder: Path, reference: str) -> str:
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
        *(
            line
            for place, model in enumerate(models)
            for line in _model(model, "" if place else reference, folder)
        ),
        "notify:",
        "  channels:",
        "    print: {console: }",
        "  routes:",
        "    - {to: [print]}",
    ]
    return "\n".join([*lines, ""])


def _model(model: str, reference: str, folder: Path) -> list[str]:
    """The model, and how its drift reference is made of the same file, or is it already."""
    from mlobs.drift.mlref import is_reference

    lines = [f"  - name: {json.dumps(model)}"]
    if reference and "://" not in reference and is_reference(reference):
        lines.append(f"    reference: {json.dumps(str(Path(reference).absolute()))}")
    elif reference:
        built = f"mlobs drift reference build {json.dumps(reference)} --config {folder / 'mlobs.yaml'}"
        built += f" --model {json.dumps(model)} -o {folder / 'reference.mlref'}"
        lines += [f"    # once mask.yaml is right: {built}", "    # reference: reference.mlref"]
    return lines
