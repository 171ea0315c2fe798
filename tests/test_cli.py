"""Every command: a help with a working example, errors as lines and exit codes, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from mlobs.cli import app


def mlobs(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlobs", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )


def leaves(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each command's words and its docstring."""
    for command in group.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.rstrip("_").replace("_", "-")
        yield (*path, name), command.callback.__doc__ or ""
    for part in group.registered_groups:
        assert part.typer_instance is not None
        yield from leaves(part.typer_instance, (*path, str(part.name or part.typer_instance.info.name)))


COMMANDS = dict(leaves(app))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_documents_itself_with_one_example(words: tuple[str, ...]) -> None:
    example = f"mlobs {' '.join(words)}"
    assert example in COMMANDS[words], f"the help of `{example}` shows no example"


def test_help_answers_without_any_extra(tmp_path: Path) -> None:
    """numpy, SQLAlchemy and the others are not imported for it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('numpy', 'scipy', 'pyarrow', 'sqlalchemy', 'starlette', 'uvicorn', 'jinja2'):\n"
        "    sys.modules[name] = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mlobs", "--help"],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for word in ("demo", "serve", "doctor", "drift", "slo"):
        assert word in done.stdout


def test_a_missing_extra_is_named_with_its_pip_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['numpy'] = None\n")
    (tmp_path / "a.csv").write_text("x\n1\n")
    done = subprocess.run(
        [sys.executable, "-m", "mlobs", "drift", "check", "--reference", "a.csv", "--current", "a.csv"],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "pip install '.[drift]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "-c", "missing.yaml"),
        ("doctor", "-c", "missing.yaml"),
        ("slo", "rules", "missing.yaml", "-o", "rules"),
        ("drift", "check", "--reference", "missing.parquet", "--current", "missing.parquet"),
        ("demo", "--days", "3"),
        ("nonsense",),
        ("serve", "--nonsense"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_with_a_line_and_no_traceback(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = mlobs(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_a_broken_configuration_names_every_problem_and_exits_2(tmp_path: Path) -> None:
    (tmp_path / "mlobs.yaml").write_text("service: a\nsample: 7\nslo: {objectives: [{name: x}]}\nsolo: 1\n")
    done = mlobs("serve", cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: mlobs.yaml:") for line in lines)
    assert len(lines) == 4
