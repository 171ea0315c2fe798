"""`mlobs init` writes files that load, and overwrites none."""

import datetime
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mlobs.cli import app
from mlobs.config import load_settings
from mlobs.errors import UsageError
from mlobs.featurelog.maskschema import load_schema
from mlobs.featurelog.proposal import of_column
from tests.featurelog.helpers import opened, record


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["init", *args])


def test_the_files_name_what_the_log_holds_and_load(tmp_path: Path) -> None:
    log = opened(tmp_path / "featurelog")
    log.offer(record(1, {"amount": None, "odd: name": "x"}))
    log.offer(record(2, {"amount": 2.5, "odd: name": "y"}))
    log.offer(record(3, model="churn"))
    assert log.close(5)
    assert run(str(tmp_path), "--log", str(tmp_path / "featurelog")).exit_code == 0
    settings = load_settings(tmp_path / "mlobs.yaml")
    assert (settings.service, [model.name for model in settings.models]) == ("fraud-api", ["churn", "fraud"])
    assert settings.feature_log == str(tmp_path / "featurelog")
    assert settings.mask.schema == str(tmp_path / "mask.yaml")
    schema = load_schema(str(tmp_path / "mask.yaml"))
    kinds = {name: getattr(schema.action("fraud", name), "kind", None) for name in ("amount", "odd: name")}
    assert kinds == {"amount": "clear", "odd: name": "hash"}


def test_without_a_log_the_files_load_too(tmp_path: Path) -> None:
    assert run(str(tmp_path / "new")).exit_code == 0
    assert load_settings(tmp_path / "new" / "mlobs.yaml").service == "my-service"
    load_schema(str(tmp_path / "new" / "mask.yaml"))


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "mask.yaml").write_text("mine")
    assert isinstance(run(str(tmp_path)).exception, UsageError)
    assert (tmp_path / "mask.yaml").read_text() == "mine"
    assert not (tmp_path / "mlobs.yaml").exists()


ROWS = 400
_rng = random.Random(7)
TABLE = pa.table(
    {
        "amount": [_rng.lognormvariate(3, 1) for _ in range(ROWS)],
        "merchant": [_rng.choice(["fuel", "food", "rent"]) for _ in range(ROWS)],
        "is_new": [_rng.random() < 0.5 for _ in range(ROWS)],
        "customerId": list(range(1_000_000, 1_000_000 + ROWS)),
        "contact": [f"jane{n}@example.org" if n % 10 == 0 else None for n in range(ROWS)],
        "blob": ["4539 5787 6362 1486" if n == 5 else f"x{n % 7}" for n in range(ROWS)],
        "pan_number": [4539578763621486] * ROWS,
        "age": [_rng.randrange(18, 90) for _ in range(ROWS)],
        "zip_code": [f"{_rng.randrange(99999):05d}" for _ in range(ROWS)],
        "dateOfBirth": [datetime.date(1980, 1, 1)] * ROWS,
        "seen_at": [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)] * ROWS,
        "remarks": ["the customer called twice and asked for a refund of it"] * ROWS,
        "reached": [f"+49 170 {n:07d}" for n in range(ROWS)],
        "embedding": [[0.1, 0.2]] * ROWS,
        "odd: name": pa.array(["a", "b"] * (ROWS // 2)).dictionary_encode(),
        "empty": pa.nulls(ROWS, pa.string()),
        "order": [f"o-{n}" for n in range(ROWS)],
        "code": [n * 7 for n in range(ROWS)],
    }
)
EXPECTED = {
    "amount": ("clear", False),
    "merchant": ("hash", False),
    "is_new": ("clear", False),
    "customerId": ("hash", True),
    "contact": ("hash", True),
    "blob": ("hash", True),
    "pan_number": ("hash", True),
    "age": ("bucket", True),
    "zip_code": ("truncate", True),
    "dateOfBirth": ("drop", True),
    "seen_at": ("drop", True),
    "remarks": ("drop", True),
    "reached": ("hash", True),
    "embedding": ("drop", True),
    "odd: name": ("hash", True),
    "empty": ("hash", True),
    "order": ("hash", True),
    "code": ("hash", True),
}


def test_training_data_gives_a_line_for_each_column_and_marks_what_looks_personal(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "fraud.parquet")
    told = run(str(tmp_path / "new"), "--reference", str(tmp_path / "fraud.parquet"))
    assert told.exit_code == 0
    assert "18 features" in told.output
    text = (tmp_path / "new" / "mask.yaml").read_text()
    schema = load_schema(str(tmp_path / "new" / "mask.yaml"))
    lines = dict(zip(TABLE.column_names, text.splitlines()[-18:], strict=True))
    found = {name: (schema.fields[name].kind, "REVIEW" in lines[name]) for name in TABLE.column_names}
    assert found == EXPECTED
    assert all(name in told.output for name, (_, review) in EXPECTED.items() if review)
    settings = load_settings(tmp_path / "new" / "mlobs.yaml")
    assert [model.name for model in settings.models] == ["fraud"]
    assert "drift reference build" in (tmp_path / "new" / "mlobs.yaml").read_text()


def test_no_value_of_the_data_stands_in_what_is_written(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "fraud.parquet")
    told = run(str(tmp_path / "new"), "--reference", str(tmp_path / "fraud.parquet"), "--model", "m")
    text = told.output + "".join(path.read_text() for path in (tmp_path / "new").iterdir())
    for value in ("fuel", "jane", "4539", "refund", "+49", "1980", "o-1"):
        assert value not in text


def test_a_table_and_a_log_are_taken_together(tmp_path: Path) -> None:
    pq.write_table(TABLE.select(["amount"]), tmp_path / "fraud.parquet")
    log = opened(tmp_path / "log")
    log.offer(record(1, {"amount": 1.0, "later": 2.5}))
    assert log.close(5)
    where = str(tmp_path / "new")
    assert (
        run(where, "--reference", str(tmp_path / "fraud.parquet"), "--log", str(tmp_path / "log")).exit_code
        == 0
    )
    assert set(load_schema(f"{where}/mask.yaml").fields) == {"amount", "later"}
    assert load_settings(Path(where) / "mlobs.yaml").service == "fraud-api"


def test_a_built_reference_is_taken_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(TABLE.select(["amount", "merchant"]), "raw.parquet")
    built = CliRunner().invoke(app, ["drift", "reference", "build", "raw.parquet", "-o", "fraud.mlref"])
    assert built.exit_code == 0, built.output
    assert run("--reference", "fraud.mlref").exit_code == 0
    kinds = {name: action.kind for name, action in load_schema("mask.yaml").fields.items()}
    assert kinds == {"amount": "clear", "merchant": "hash"}
    assert load_settings("mlobs.yaml").models[0].reference == str(tmp_path / "fraud.mlref")


@pytest.mark.parametrize(
    ("action", "names"),
    [
        ("hash", ["IPAddress", "userEmail", "first_name"]),
        ("drop", ["apiKey", "lat"]),
        ("clear", ["temp", "carrier_delay", "wind", "visits7d"]),
    ],
)
def test_names_tell(action: str, names: list[str]) -> None:
    for name in names:
        assert of_column(name, pa.array([1.5, 2.5])).action == action
