"""`mlobs drift check` and `mlobs drift reference`, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mlobs.cli import drift_view
from mlobs.cli.drift import app
from mlobs.errors import MlobsError
from tests.drift.traffic import day_table, reference_table

ROWS = 3000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pq.write_table(day_table(0, ROWS, seed=1), "a.parquet")
    pq.write_table(day_table(1, ROWS, seed=1), "b.parquet")
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    """Exit code and all output; an error of ours counts with the exit code that `main` gives it."""
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, MlobsError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def check(current: str, reference: str = "a.parquet", *more: str) -> tuple[int, str]:
    return run("check", "--reference", reference, "--current", current, *more)


def report(current: str, reference: str = "a.parquet") -> dict[str, dict[str, object]]:
    _, output = check(current, reference, "--json")
    end = output.rindex("}")  # warnings follow on stderr
    parsed = json.loads(output[: end + 1], parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    return {column["name"]: column for column in parsed["columns"]}


def test_two_samples_of_one_law_exit_0(folder: Path) -> None:
    code, output = check("b.parquet")
    assert code == 0, output


def test_on_a_narrow_terminal_a_long_name_leaves_the_verdicts_readable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_view, "Console", lambda **_: Console(width=70))
    table = day_table(1, ROWS, seed=1)
    pq.write_table(table.append_column("x" * 120, table["amount"]), "long.parquet")
    _, output = check("long.parquet", "long.parquet")
    assert "…" not in output
    assert output.count(" ok ") == table.num_columns + 1
    assert "x" * 12 in output
    assert ("PSI" in output, "KS" in output) == (True, False)


def test_a_shifted_column_exits_1_and_is_named(folder: Path) -> None:
    table = day_table(1, ROWS, seed=1)
    place = table.schema.names.index("amount")
    pq.write_table(table.set_column(place, "amount", pa.array(table["amount"].to_numpy() * 1.5)), "c.parquet")
    code, _ = check("c.parquet")
    assert code == 1
    columns = report("c.parquet")
    assert columns["amount"]["verdict"] == "drifted"
    assert columns["temp"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("column", "values", "verdict", "status"),
    [
        ("temp", pa.nulls(ROWS, pa.float64()), "drifted", "null"),
        ("temp", np.where(np.arange(ROWS) % 2 == 0, np.nan, np.linspace(20, 60, ROWS)), "drifted", "null"),
        ("temp", np.full(ROWS, np.inf), "drifted", "range"),
        ("temp", pa.array(["warm"] * ROWS), "drifted", "type"),
        ("temp", np.full(ROWS, 40.0), "drifted", "constant"),
        ("country", pa.array(["de"] * (ROWS - 600) + ["xx"] * 600), "drifted", "unseen"),
        ("gust", np.full(ROWS, 7.00035), "ok", "constant_changed"),
        ("gust", np.full(ROWS, 8.0), "drifted", "range"),
        ("gust", np.full(ROWS, 7.0), "ok", "constant"),
        ("temp", pa.array([[1.0]] * ROWS), "drifted", "type"),
    ],
)
def test_awkward_columns_have_a_stated_result(
    folder: Path, column: str, values: object, verdict: str, status: str
) -> None:
    pq.write_table(day_table(1, ROWS, seed=1, **{column: values}), "c.parquet")
    columns = report("c.parquet")
    assert (columns[column]["verdict"], columns[column]["status"]) == (verdict, status)
    assert columns["amount"]["verdict"] == "ok"


def test_a_column_of_times_without_one_is_refused_and_not_one_day(folder: Path) -> None:
    code, output = run("reference", "build", "a.parquet", "-o", "r.mlref", "--time", "country")
    assert (code, "--time: expected times" in output) == (2, True), output


def test_no_warning_paints_the_terminal(folder: Path) -> None:
    table = day_table(1, ROWS, seed=1)
    pq.write_table(table.append_column("\x1b[31mred", table["amount"]), "c.parquet")
    code, output = check("c.parquet")
    assert (code, "\x1b" in output, "unknown to the reference: ?[31mred" in output) == (0, False, True)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_column_is_drift_and_a_new_one_a_warning(folder: Path, kind: str) -> None:
    table = day_table(1, ROWS, seed=1).drop_columns("temp").append_column("new", pa.array(np.zeros(ROWS)))
    (pacsv.write_csv if kind == "csv" else pq.write_table)(table, f"c.{kind}")
    code, output = check(f"c.{kind}")
    assert code == 1
    assert "no such column" in output.replace("\n", " ")
    assert "unknown to the reference: new" in output
    assert "unknown" not in check(f"c.{kind}", "a.parquet", "--columns", "amount")[1]


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_too_few_rows_exit_3(folder: Path, rows: int) -> None:
    pq.write_table(day_table(1, ROWS).slice(0, rows), "c.parquet")
    assert check("c.parquet")[0] == 3


def test_a_reference_without_rows_exits_3(folder: Path) -> None:
    pq.write_table(day_table(1, ROWS).slice(0, 0), "empty.parquet")
    assert check("a.parquet", "empty.parquet")[0] == 3


def test_some_columns_unjudged_gives_the_exit_of_the_others_and_a_warning(folder: Path) -> None:
    for name in ("a", "b"):
        table = pq.read_table(f"{name}.parquet").append_column("void", pa.nulls(ROWS, pa.float64()))
        pq.write_table(table, f"{name}.parquet")
    code, output = check("b.parquet")
    assert code == 0
    assert "warning: void was not judged" in output


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (bytes(range(256)) * 8, "a binary file"),
        (b"a,b\n1,2\n3\n", "Expected 2 columns, got 1"),
        ("a,b\nm\u00fcll,2\n".encode("latin-1"), "UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "a binary file"),
        (b"PAR1 and nothing more", "arquet"),
        (b"ARROW1\0\0 and nothing more", "a table that can be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_exit_2(folder: Path, content: bytes, says: str) -> None:
    Path("c.csv").write_bytes(content)
    code, message = check("c.csv")
    assert code == 2
    assert says in message
    assert check("a.parquet", "c.csv")[0] == 2


def test_a_csv_whose_column_changes_its_type_half_way_is_a_type_violation(folder: Path) -> None:
    numbers = "".join(f"{place % 50}\n" for place in range(300_000))
    Path("old.csv").write_text("x\n" + numbers)
    Path("new.csv").write_text("x\n" + numbers + "oops\n" * 30_000)
    assert report("new.csv", "old.csv")["x"]["status"] == "type"


def test_a_built_reference_is_reused_shown_and_compared(folder: Path) -> None:
    pq.write_table(reference_table(), "days.parquet")
    assert run("reference", "build", "days.parquet", "--day", "day", "-o", "r.mlref")[0] == 0
    code, shown = run("reference", "show", "r.mlref", "--json")
    assert code == 0
    assert json.loads(shown)["days"] == 20
    assert check("b.parquet", "r.mlref")[0] == 0
    assert run("reference", "diff", "r.mlref", "r.mlref") == (0, "no difference\n")
    run("reference", "build", "a.parquet", "-o", "s.mlref")
    code, lines = run("reference", "diff", "r.mlref", "s.mlref")
    assert code == 1
    assert "days: 20 -> 1" in lines


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:200] + b"\xff" + b[201:], lambda b: b[:6]])
def test_a_damaged_reference_is_refused(folder: Path, damage) -> None:
    run("reference", "build", "a.parquet", "-o", "r.mlref")
    Path("r.mlref").write_bytes(damage(Path("r.mlref").read_bytes()))
    code, message = check("b.parquet", "r.mlref")
    assert code == 2
    assert "build it again" in message


def test_a_reference_of_a_newer_format_is_refused_and_told_so(folder: Path) -> None:
    run("reference", "build", "a.parquet", "-o", "r.mlref")
    data = bytearray(Path("r.mlref").read_bytes())
    data[6:8] = (99).to_bytes(2, "little")
    Path("r.mlref").write_bytes(data)
    code, message = check("b.parquet", "r.mlref")
    assert code == 3
    assert "newer mlobs" in message


@pytest.mark.parametrize(
    "words",
    [
        ("--columns", "amount,nonsense"),
        ("--html", "nowhere/r.html"),
        ("--exact", "--engine", "local"),
        ("--min-rows", "0"),
    ],
)
def test_wrong_use_exits_2(folder: Path, words: tuple[str, ...]) -> None:
    assert check("b.parquet", "a.parquet", *words)[0] == 2
