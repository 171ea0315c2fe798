"""`mlobs init` writes files that load, and overwrites none."""

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from mlobs.cli import app
from mlobs.config import load_settings
from mlobs.errors import UsageError
from mlobs.featurelog.maskschema import load_schema
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
