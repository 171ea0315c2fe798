"""A reference of raw text beside a log of keyed hashes: said, and nobody is woken."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from mlobs.cli.drift import app
from mlobs.config import load_settings
from mlobs.drift.loop import DriftStage
from mlobs.drift.mlref import read_reference
from mlobs.drift.profile import profile
from mlobs.drift.reference import build_reference
from mlobs.drift.state import State
from mlobs.drift.tables import SCHEMA
from mlobs.drift.unlike import unlike_columns
from mlobs.drift.verdicts import Stream, WindowVerdict, judge
from mlobs.errors import UsageError
from mlobs.featurelog.keys import Keyring
from mlobs.featurelog.maskframe import masked_table
from mlobs.featurelog.masking import Masker
from mlobs.featurelog.maskschema import logged_as, parse_schema
from mlobs.featurelog.opening import open_log
from mlobs.records import FeatureRecord
from mlobs.service.doctor import _reference as doctor_of_reference
from mlobs.store import open_store
from tests.drift.traffic import DAY, day_table, reference_table

ROWS = 400


def window(country: pa.Array, before: pa.Array | None = None) -> tuple[WindowVerdict, State]:
    table = reference_table().drop_columns("day")
    if before is not None:
        table = table.set_column(table.schema.get_field_index("country"), "country", before)
    reference = build_reference(table, "r")
    state = profile(day_table(3, ROWS, country=country), reference.spec)
    stream = Stream("m", "v1", "")
    return judge(stream, 0.0, 60.0, state, reference, reference.spec, 100, 0.05), state


def test_keyed_hashes_against_raw_text_are_masked_and_no_breach() -> None:
    words = np.random.default_rng(1).integers(0, 3, ROWS)
    found, state = window(pa.array([f"0badcafe:{word:032x}" for word in words]))
    assert found.verdict == "ok"
    assert "country" in found.detail
    assert "keyed hashes" in found.detail
    assert {one.status for one in found.verdicts if one.feature == "country"} == {"masked"}
    assert sum(stratum.bad_rows.get("unseen", 0) for stratum in state.strata.values()) == 0


def test_other_new_words_are_unseen_as_ever() -> None:
    found, state = window(pa.array([f"x{row % 3}:{row % 3:032x}" for row in range(ROWS)]))
    assert found.failed.keys() == {("country", "unseen")}
    assert state.strata[1.0].bad_rows["unseen"] == ROWS


def test_hashes_by_another_key_are_masked_too_and_the_same_keys_new_words_unseen() -> None:
    rng = np.random.default_rng(2)
    old = pa.array([f"0ddba115:{word:032x}" for word in rng.integers(0, 3, 8000)])
    rotated = pa.array([f"0badcafe:{word:032x}" for word in rng.integers(0, 3, ROWS)])
    found, state = window(rotated, old)
    assert (found.verdict, {one.status for one in found.verdicts if one.feature == "country"}) == (
        "ok",
        {"masked"},
    )
    assert sum(stratum.bad_rows.get("unseen", 0) for stratum in state.strata.values()) == 0
    news = pa.array([f"0ddba115:{word:032x}" for word in rng.integers(7, 9, ROWS)])
    assert window(news, old)[0].failed.keys() == {("country", "unseen")}


# -- what the schema tells -------------------------------------------------------------------------------

KEY = "0123456789abcdef0123456789abcdef"
MASK = """
fields:
  amount: {bucket: [10, 20, 40]}
  country: hash
  gust: clear
"""
CONFIG = """
service: s
feature_log: ./log
clock: driven
mask: {schema: mask.yaml, key_file: keys}
drift: {window: 1d, min_rows: 100, persistence: 1 of 1}
models: [{name: fraud, reference: fraud.mlref}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mask.yaml").write_text(MASK)
    Path("keys").write_text(KEY)
    Path("mlobs.yaml").write_text(CONFIG)
    pq.write_table(reference_table(), "raw.parquet")
    return tmp_path


def build(*more: str) -> Any:
    result = CliRunner().invoke(
        app, ["reference", "build", "raw.parquet", "--day", "day", "-o", "fraud.mlref", *more]
    )
    assert result.exit_code == 0, result.output
    return read_reference("fraud.mlref")


def logged(day: int) -> None:
    """A day of calls through the log's own writer, with the service's masking."""
    settings = load_settings("mlobs.yaml")
    log = open_log(str(settings.feature_log), service="s", mask=settings.mask, commit_interval=0.01)
    for number, row in enumerate(day_table(day, 400).to_pylist()):
        log.offer(
            FeatureRecord(
                "", f"p{number}", day * DAY + number, "s", "fraud", "1", row, 0.5, None, "ok", 0.01, {}
            )
        )
    assert log.close(10)


def stage() -> Any:
    settings = load_settings("mlobs.yaml")
    store = open_store("sqlite:///state.db", [SCHEMA])
    made = DriftStage(settings, store, CollectorRegistry(), logged_as=logged_as(settings.mask.schema))
    return made, store


def test_a_reference_built_with_the_logs_masking_is_compared_and_all_is_well(folder: Path) -> None:
    reference = build("--config", "mlobs.yaml")
    assert set(reference.spec.columns) == {"amount", "country", "gust"}  # temp is not in the schema
    assert set(reference.spec.columns["amount"].categories) == {"<10", "10..20", "20..40", ">=40"}
    logged(3)
    made, store = stage()
    (judged,) = made.tick(4 * DAY + 10).windows
    store.close()
    assert (judged.verdict, judged.detail) == ("ok", "")
    assert {one.status for one in judged.verdicts if one.feature == "country"} == {"exported"}
    assert not any(check == "masked" for _, check in made.notes("fraud"))


def test_a_raw_reference_is_told_by_the_schema_and_raises_no_false_drift(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build()
    logged(3)
    with caplog.at_level(logging.WARNING):
        made, store = stage()
    tick = made.tick(4 * DAY + 10)
    (judged,) = tick.windows
    assert (judged.verdict, tick.breaches) == ("ok", ())
    notes = {feature: text for (feature, check), text in made.notes("fraud").items() if check == "masked"}
    assert set(notes) == {"amount", "temp"}
    assert "buckets of it and the reference raw values" in notes["amount"]
    assert "mlobs drift reference build --config mlobs.yaml" in notes["amount"]
    assert "lets nothing of it leave" in notes["temp"]
    assert "feature amount is not judged" in caplog.text
    store.close()
    told = doctor_of_reference("fraud", "fraud.mlref", "mask.yaml")
    assert told.state == "warning"
    assert "2 columns are not judged" in told.text


def test_without_what_the_schema_tells_the_same_log_looks_drifted(folder: Path) -> None:
    build()
    logged(3)
    store = open_store("sqlite:///state.db", [SCHEMA])
    tick = DriftStage(load_settings("mlobs.yaml"), store, CollectorRegistry()).tick(4 * DAY + 10)
    store.close()
    assert {breach.feature for breach in tick.breaches} >= {"amount", "temp"}


@pytest.mark.parametrize(
    ("action", "judged"),
    [
        ("clear", True), ("scan", True), ("hash", True), ("tokenise", True), ("{truncate: 2}", True),
        ("{truncate: 1}", False), ("{bucket: [1, 2]}", False), ("drop", False),
    ],
)  # fmt: skip
def test_each_action_on_a_column_of_words(tmp_path: Path, action: str, judged: bool) -> None:
    (tmp_path / "mask.yaml").write_text(
        f"fields: {{country: {action}}}\nmodels: {{m: {{fields: {{temp: hash}}}}}}"
    )
    columns = build_reference(reference_table().select(["country", "temp"]), "r").spec.columns
    found = unlike_columns(columns, "m", logged_as(str(tmp_path / "mask.yaml")))
    assert set(found) == {"temp"} | (set() if judged else {"country"})


def test_a_table_is_masked_as_a_record_is() -> None:
    schema = parse_schema(
        "fields: {a: hash, b: {truncate: 1}, n: clear, mixed: hash}\nprediction: hash", "mask.yaml"
    )
    keys = Keyring([KEY.encode()])
    table = pa.table(
        {
            "a": pa.chunked_array([["x", None], ["y"]]).dictionary_encode(),
            "b": ["one", "two", None],
            "n": [1, 2, 3],
            "gone": [1, 2, 3],
            "mixed": [1.5, None, 2.5],
            "day": ["d1", "4539578763621486", "d3"],
            "score": ["p", "q", None],
            "lists": [[1], None, [2]],
        }
    )
    found = masked_table(table, Masker(schema, keys), "m", words=["day"], score="score").to_pydict()
    text = keys.active.text
    assert found == {
        "a": [text("x"), None, text("y")],
        "b": ["o", "t", None],
        "n": [1, 2, 3],
        "mixed": [text("1.5"), None, text("2.5")],
        "day": ["d1", text("4539578763621486"), "d3"],
        "score": [text("p"), text("q"), None],
    }


def test_without_a_key_or_a_model_the_build_says_what_to_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLOBS_HASH_KEY", raising=False)
    words = ["reference", "build", "raw.parquet", "-o", "x.mlref", "--config", "mlobs.yaml"]
    Path("mlobs.yaml").write_text(CONFIG.replace(", key_file: keys", ""))
    found = CliRunner().invoke(app, words).exception
    assert isinstance(found, UsageError)
    assert "mask.key_file" in str(found)
    Path("mlobs.yaml").write_text(CONFIG.replace("[{name", "[{name: other}, {name"))
    assert "--model" in str(CliRunner().invoke(app, words).exception)
