"""`mlobs drift check s3://...` as a user types it: own process, a server that speaks S3, a terminal."""

from __future__ import annotations

import gzip
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from mlobs.drift.engines.listing import list_slices
from mlobs.drift.objects import unreadable_object
from tests import servers
from tests.drift.test_check_command import run
from tests.drift.traffic import day_table

ROWS = 3000


@pytest.fixture
def bucket(moto_s3: servers.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The query of an address in the test's bucket, which holds two tables and a broken one."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto_s3.secret_key)
    query = f"?scheme=http&region={moto_s3.region}&endpoint_override={moto_s3.endpoint.partition('://')[2]}"
    system, root = fs.FileSystem.from_uri(f"s3://{moto_s3.bucket}{query}")
    tables = {name: day_table(seed, ROWS) for name, seed in (("old", 1), ("new", 2))}
    for name, table in tables.items():
        for kind in ("parquet", "arrow", "arrows", "csv", "csv.gz"):
            with system.open_output_stream(f"{root}/lake/{name}.{kind}", compression=None) as out:
                out.write(encoded(table, kind))
    with system.open_output_stream(f"{root}/old") as out:
        out.write(encoded(tables["old"], "parquet"))
    for kind in ("parquet", "arrow", "arrows", "csv"):
        whole = encoded(tables["new"], kind)
        with system.open_output_stream(f"{root}/cut.{kind}") as out:
            out.write(whole[: whole.rindex(b",", 0, len(whole) * 2 // 3)])
    with system.open_output_stream(f"{root}/broken.parquet") as out:
        out.write(b"PAR1 and no more")
    return lambda name: f"s3://{moto_s3.bucket}/{name}{query}"


def encoded(table: pa.Table, kind: str) -> bytes:
    """The table as a file of this kind."""
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink, row_group_size=500)
    elif kind.startswith("csv"):
        pacsv.write_csv(table, sink)
    else:
        with (pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream)(sink, table.schema) as out:
            out.write_table(table, max_chunksize=1000)
    return gzip.compress(sink.getvalue()) if kind.endswith(".gz") else sink.getvalue()


def mlobs(*words: str) -> tuple[int, str, str]:
    """(exit status, stdout, what a terminal at stderr showed)."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mlobs", "drift", *words]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        shown += more
    os.close(ours)
    assert done.stdout is not None
    with done.stdout as out:
        text = out.read().decode()
    return done.wait(), text, shown.decode()


def test_two_objects_are_compared_and_a_terminal_sees_the_progress(bucket) -> None:
    code, output, shown = mlobs(
        "check", "--reference", bucket("lake/old.parquet"), "--current", bucket("lake/new.parquet")
    )
    assert code == 0, shown
    assert "0 of 4 columns drifted" in output
    assert "reading" in shown
    assert "%" in shown
    assert "secret" not in output + shown


def test_a_reference_is_built_from_an_object_and_kept_as_a_file(bucket, tmp_path: Path) -> None:
    kept = str(tmp_path / "r.mlref")
    assert mlobs("reference", "build", bucket("lake/old.parquet"), "-o", kept)[0] == 0
    code, output, _ = mlobs("check", "--reference", kept, "--current", bucket("lake/new.parquet"), "--json")
    assert (code, json.loads(output)["verdict"]) == (0, "ok")


@pytest.mark.parametrize("name", ["broken.parquet", "absent.parquet"])
def test_an_object_that_is_broken_or_not_there_is_unreadable(bucket, name: str) -> None:
    code, _, shown = mlobs("check", "--reference", bucket("lake/old.parquet"), "--current", bucket(name))
    assert code == 2
    expected = "a table that can be read" if name == "broken.parquet" else "an object, got none of this name"
    assert f"expected {expected}" in shown.replace("\r\n", " ")
    assert "Traceback" not in shown


@pytest.mark.parametrize("kind", ["arrow", "arrows", "csv", "csv.gz"])
def test_arrow_and_csv_objects_say_what_the_parquet_object_says(bucket, kind: str) -> None:
    """Of the same rows: equal to the last digit, through both passes that a reference takes."""
    said = []
    for ending in ("parquet", kind):
        words = ("--reference", bucket(f"lake/old.{ending}"), "--current", bucket(f"lake/new.{ending}"))
        code, output = run("check", *words, "--json")
        assert code == 0, output
        said.append([(one["name"], one["scores"], one["rows"]) for one in json.loads(output)["columns"]])
    assert said[0] == said[1]


def test_folders_and_patterns_are_read_through_an_engine_alone(bucket) -> None:
    kinds = {
        "lake": 10,
        "lake/": 10,
        "lake/**": 10,
        "la*": 10,
        "lake/*.parquet": 2,
        "**/o*.csv": 1,
        "old*": 1,
    }
    found = {pattern: len(list_slices([bucket(pattern)])) for pattern in kinds}
    assert found == kinds
    for pattern in ("lake", "lake/*.csv"):
        words = ("check", "--reference", bucket("lake/old.parquet"), "--current", bucket(pattern))
        code, output = run(*words)
        assert (code, "--engine local" in output) == (2, True), output
    code, output = run(*words, "--engine", "local", "--workers", "1", "--json")
    assert (code, json.loads(output)["rows"]["current"]) == (0, 2 * ROWS), output


@pytest.mark.parametrize("kind", ["parquet", "arrow", "arrows", "csv"])
def test_an_object_that_was_cut_in_the_middle_is_unreadable_and_not_shorter(bucket, kind: str) -> None:
    code, output = run("check", "--reference", bucket("lake/old.csv"), "--current", bucket(f"cut.{kind}"))
    assert (code, f"cut.{kind}" in output) == (2, True), output


def test_a_key_in_the_address_is_refused_and_shown_nowhere(tmp_path: Path) -> None:
    for words in (
        ("check", "--reference", "s3://AKIA:wJalr@bucket/a.csv", "--current", "b.csv"),
        ("reference", "build", "s3://AKIA:wJalr@bucket/a.csv", "-o", str(tmp_path / "r.mlref")),
    ):
        code, output = run(*words)
        assert (code, "wJalr" in output, "without a key" in output) == (2, False, True)


def test_what_a_store_says_is_told_in_short_with_a_remedy(bucket) -> None:
    code, output = run("check", "--reference", "http://host/a.csv", "--current", "b.csv")
    assert (code, "an address like s3://bucket/object" in output) == (2, True)
    denied = OSError(
        "When reading information for key 'a' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject "
        "operation: No response body."
    )
    assert "got access denied; check credentials" in str(unreadable_object("s3://b/a", denied))
    nowhere = bucket("a.csv").replace("s3://", "s3://no-such-")
    code, output = run("check", "--reference", nowhere, "--current", "b.csv")
    assert (code, "check the address" in output) == (2, True), output
