"""`mlobs drift`: compare two tables; build, show and compare references."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlobs.cli.drift_aliases import AliasOption, aliases_of, aliases_of_model

if TYPE_CHECKING:
    from mlobs.drift.compare import Comparison
    from mlobs.drift.exact import Whole
    from mlobs.drift.readers import Source
    from mlobs.drift.reference import Reference
    from mlobs.drift.state import State

app = typer.Typer(name="drift", help="Compare tables with a reference.", no_args_is_help=True)
reference_app = typer.Typer(
    name="reference", help="References: built once, used often.", no_args_is_help=True
)
app.add_typer(reference_app)

Columns = Annotated[
    str | None, typer.Option("--columns", help="Comma-separated columns; default: all that both can have.")
]


@app.command()
def check(
    reference: Annotated[
        str, typer.Option("--reference", help=".mlref, Parquet, Arrow or CSV file, or s3://bucket/object.")
    ],
    current: Annotated[
        str, typer.Option("--current", help="Parquet, Arrow or CSV file, or s3://bucket/object.")
    ],
    columns: Columns = None,
    min_rows: Annotated[int, typer.Option(min=1, help="Fewer rows than these give no verdict.")] = 100,
    joint: Annotated[
        str | None, typer.Option(help="Numeric columns to score together; a table as reference.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="local or spark: for folders and many files.")
    ] = None,
    master: Annotated[str, typer.Option("--master", metavar="URL", help="Of Spark.")] = "local[2,4]",
    workers: Annotated[int, typer.Option("--workers", min=0, help="Of the local engine; 0: one a core.")] = 0,
    checks: Annotated[
        Path | None, typer.Option("--checks", help="Reviewed checks: what `build --checks` wrote.")
    ] = None,
    alias: AliasOption = None,
    score: Annotated[str | None, typer.Option(help="Column with the model's output.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="KS, Wasserstein and categories without bins; two tables.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON on stdout.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report with distributions.")] = None,
    evidently: Annotated[
        Path | None, typer.Option(help="Write evidently's report (extra [evidently]).")
    ] = None,
) -> None:
    """Has the current table drifted from the reference? Exit 0 no, 1 yes, 2 unreadable, 3 nothing judged.

    Example: mlobs drift check --reference january.parquet --current march.parquet
    """
    from mlobs.cli.drift_checks import declared_reference
    from mlobs.cli.drift_report import draw_evidently, evidently_can, html_can, write_html
    from mlobs.cli.drift_view import comparison_json, print_comparison, print_json, print_line
    from mlobs.drift.columns import lean_pool
    from mlobs.drift.compare import compare, made_exact, with_unknown
    from mlobs.errors import UsageError

    lean_pool()
    for option, given in (("--exact", exact), ("--joint", joint)):
        if given:
            _needs_table(option, reference)
    if exact and engine is not None:
        raise UsageError.of("--exact", "one file on either side", "--engine", "leave one of the two out")
    if html is not None:
        html_can(html)
    if evidently is not None:
        evidently_can(reference, current, bool(alias or score))
    chosen = _names(columns)
    aliases = aliases_of(alias, checks=checks)
    known = _open_reference(reference, chosen, aliases, score, quiet=as_json, joint=_names(joint))
    known = known if checks is None else declared_reference(known, checks)
    kept: list[State] = []
    notes: list[str] = []
    if engine is not None:
        from mlobs.cli.drift_pool import profile_whole
        from mlobs.drift.compare import compare_state

        state, types, notes = profile_whole(known, current, engine, master, workers, aliases, score)
        kept.append(state)
        result = compare_state(known, state, current, types, min_rows=min_rows)
        present = list(types)
    else:
        source = _open(current, list(known.spec.columns), aliases, score)
        batches, present = _progress(source, as_json), source.schema.names
        result = compare(known, batches, current, min_rows=min_rows, keep=kept.append)
    # Who names columns has passed over the others.
    result = with_unknown(result, known.spec, present if chosen is None else None)
    if exact:
        whole = [_columns_of(path, aliases, score) for path in (reference, current)]
        result = made_exact(result, known.spec, *whole)
    if html is not None:
        write_html(html, result, known, kept[-1])
    if evidently is not None:
        draw_evidently(reference, current, evidently, chosen)
    if as_json:
        print_json(comparison_json(result))
    else:
        print_comparison(result)
    for note in notes:
        print_line(f"warning: {note}", err=True)
    _warn(result)
    raise typer.Exit(result.exit_code)


@reference_app.command()
def build(
    table: Annotated[str, typer.Argument(help="Parquet, Arrow or CSV file, or s3://bucket/object.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .mlref file to write.")],
    columns: Columns = None,
    day: Annotated[str | None, typer.Option(help="Column that names the day of a row.")] = None,
    time: Annotated[str | None, typer.Option(help="Column with the event time, cut into --window.")] = None,
    window: Annotated[str, typer.Option(help="Slice of event time: 1d, 1h, 1m.")] = "1d",
    zone: Annotated[str, typer.Option(help="Time zone of whole days.")] = "UTC",
    segment: Annotated[str | None, typer.Option(help="Column whose values are segments.")] = None,
    score: Annotated[str | None, typer.Option(help="Column with the model's output.")] = None,
    name: Annotated[str | None, typer.Option(help="Name; default: that of the file.")] = None,
    model_version: Annotated[str, typer.Option(help="Serves this model version alone.")] = "",
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Judge repeated rows.")] = False,
    volume: Annotated[
        bool, typer.Option("--volume", help="The table holds all traffic: judge the rows of a window.")
    ] = False,
    freshness: Annotated[
        bool, typer.Option("--freshness", help="Rows come as in the log: judge how old the newest is.")
    ] = False,
    joint: Annotated[str | None, typer.Option(help="Numeric columns whose covariances are kept.")] = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="mlobs.yaml: mask the columns as its log does.")
    ] = None,
    model: Annotated[str, typer.Option(help="With --config: the model; default: its only one.")] = "",
    alias: AliasOption = None,
    checks: Annotated[
        Path | None, typer.Option("--checks", help="Write what was inferred, to be gone through and changed.")
    ] = None,
) -> None:
    """Build a reference once, to be used by `drift check` and `mlobs serve`.

    Give --day or --time, so that the worst ordinary day is known: a check then breaks only beyond it. Give
    --config when the table is raw and the feature log is masked: by the same schema and key both agree; the
    `aliases` of the model's features hold as --alias does. All other options take the names in force.

    Example: mlobs drift reference build january.parquet --day day -o january.mlref
    """
    from mlobs.cli.drift_checks import not_there, write_checks
    from mlobs.cli.drift_view import print_reference
    from mlobs.cli.mask_as import masked_as
    from mlobs.drift.aliased import aliased
    from mlobs.drift.columns import lean_pool
    from mlobs.drift.mlref import save_reference
    from mlobs.drift.readers import open_table
    from mlobs.drift.reference import Slicing, build_reference

    lean_pool()
    if checks is not None:
        not_there(checks)
    aliases = aliases_of_model(aliases_of(alias), config, model)
    source = aliased(open_table(table), aliases)
    slicing = Slicing(day, time, _seconds(window), _zone(zone), segment)
    as_logged = masked_as(config, model, (day, time, segment), score)
    built = build_reference(
        lambda: map(as_logged, _progress(source, quiet=False)),
        name or _stem(table),
        features=_names(columns),
        score_column=score,
        slicing=slicing,
        model_version=model_version,
        source=table,
        duplicates=duplicates,
        volume=volume,
        freshness=freshness,
        block=_names(joint) or (),
    )
    save_reference(built, output)
    print_reference(built)
    typer.echo(f"written: {output}")
    if checks is not None:
        write_checks(built, checks)
        typer.echo(f"written: {checks}: go through it, then name it as `checks` of the model in mlobs.yaml")


@reference_app.command()
def show(
    reference: Annotated[Path, typer.Argument(help="The .mlref file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON on stdout.")] = False,
) -> None:
    """What a reference holds: columns, limits, worst days, checks that are off.

    Example: mlobs drift reference show january.mlref
    """
    from mlobs.cli.drift_view import print_json, print_reference, reference_json
    from mlobs.drift.mlref import read_reference

    found = read_reference(reference)
    if as_json:
        print_json(reference_json(found))
    else:
        print_reference(found)


@reference_app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="The .mlref file in use.")],
    new: Annotated[Path, typer.Argument(help="The one to come.")],
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON on stdout.")] = False,
) -> None:
    """What changes from one reference to another: columns, limits, categories, slices, segments, joint
    columns, checks of rows, checks that are off, worst days by a point or more. Exit 1 if anything does.

    Example: mlobs drift reference diff january.mlref february.mlref
    """
    from mlobs.cli.drift_view import differences_json, print_json, print_line
    from mlobs.drift.mlref import read_reference
    from mlobs.drift.refdiff import differences

    found = differences(read_reference(old), read_reference(new))
    if as_json:
        print_json(differences_json(found))
    elif not found:
        typer.echo("no difference")
    else:
        for one in found:
            print_line(one.text)
    raise typer.Exit(1 if found else 0)


def _open_reference(
    path: str,
    columns: list[str] | None,
    aliases: Mapping[str, str],
    score: str | None,
    quiet: bool,
    joint: list[str] | None = None,
) -> Reference:
    """A built reference as it is, or one built now from a table; its columns under the names in force."""
    from mlobs.drift.declared import renamed_columns
    from mlobs.drift.mlref import is_reference, read_reference
    from mlobs.drift.reference import build_reference, chosen_columns

    if is_reference(path):
        found = renamed_columns(read_reference(path), aliases)
        return found if columns is None else chosen_columns(found, columns)
    source = _open(path, None if columns is None else [*columns, *([score] if score else [])], aliases)
    return build_reference(
        lambda: _progress(source, quiet),
        _stem(path),
        features=columns,
        score_column=score,
        source=path,
        block=joint or (),
    )


def _open(
    path: str, columns: list[str] | None, aliases: Mapping[str, str], score: str | None = None
) -> Source:
    """The table, its columns under the names in force; the model's output and its namesake under theirs. Of a
    file of the feature log its features."""
    from mlobs.drift.aliased import aliased, names_of_score, with_old_names
    from mlobs.drift.readers import open_table
    from mlobs.drift.rows import LOG_COLUMNS, is_log, unfolded

    own = names_of_score(score)
    wanted = None if columns is None else with_old_names(with_old_names(columns, own), aliases)
    source = open_table(path, wanted)
    if is_log(source.schema, columns or ()):
        return aliased(unfolded(open_table(path, LOG_COLUMNS)), aliases)
    return aliased(aliased(source, aliases), own)


def _stem(path: str) -> str:
    """A reference's name where none is given: that of its file, without the query of an address."""
    return Path(path.partition("?")[0] if "://" in path else path).stem


def _needs_table(option: str, path: str) -> None:
    from mlobs.drift.mlref import is_reference
    from mlobs.errors import UsageError

    if is_reference(path):
        raise UsageError.of(
            option, "a table as reference", "a .mlref file", "it is built already: name its table"
        )


def _columns_of(path: str, aliases: Mapping[str, str], score: str | None) -> Whole:
    """Whole columns of a table, one at a time."""
    import pyarrow as pa

    from mlobs.drift.arrays import one_array

    def column(name: str) -> Any:
        parts = [batch.column(name) for batch in _open(path, [name], aliases, score).batches()]
        return one_array(pa.chunked_array([chunk for part in parts for chunk in part.chunks]))

    return column


def _progress(source: Source, quiet: bool) -> Any:
    """The batches, with a bar on stderr where a person watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield from source.scan()
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"reading {Path(source.where.partition('?')[0]).name}", total=source.rows or None)
        for batch in source.scan():
            yield batch
            bar.advance(task, batch.num_rows)


def _warn(result: Comparison) -> None:
    from mlobs.cli.drift_view import print_line

    for column in result.unjudged if any(c.judged for c in result.columns) else ():
        print_line(f"warning: {column.name} was not judged: {column.detail}", err=True)
    if result.extra:
        print_line(f"warning: columns unknown to the reference: {', '.join(result.extra)[:300]}", err=True)
    if not any(column.judged for column in result.columns):
        typer.echo("error: nothing could be judged: see the table", err=True)


def _names(columns: str | None) -> list[str] | None:
    return None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]


def _seconds(window: str) -> float:
    from mlobs.durations import parse_duration
    from mlobs.errors import UsageError
    from mlobs.slices import slice_at

    try:
        seconds = float(parse_duration(window))
        slice_at(0.0, seconds)
    except ValueError as problem:
        raise UsageError.of("--window", "a divisor of a day or whole days", window, str(problem)) from None
    return seconds


def _zone(name: str) -> str:
    from zoneinfo import ZoneInfo

    from mlobs.errors import UsageError

    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise UsageError.of("--zone", "a time zone like Europe/Berlin", name, "correct the name") from None
    return name
