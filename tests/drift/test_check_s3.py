"""`mlobs drift check s3://...` as a user types it: own process, a server that speaks S3, a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from tests import servers
from tests.drift.traffic import day_table

ROWS = 3000


@pytest.fixture
def bucket(moto_s3: servers.S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The query of an address in the test's bucket, which holds two tables and a broken one."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto_s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto_s3.secret_key)
    query = f"?scheme=http&region={moto_s3.region}&endpoint_override={moto_s3.endpoint.partition('://')[2]}"
    system, root = fs.FileSystem.from_uri(f"s3://{moto_s3.bucket}{query}")
    for name, seed in (("old", 1), ("new", 2)):
        with system.open_output_stream(f"{root}/{name}.parquet") as out:
            pq.write_table(day_table(seed, ROWS), out, row_group_size=500)
    with system.open_output_stream(f"{root}/broken.parquet") as out:
        out.write(b"PAR1 and no more")
    return lambda name: f"s3://{moto_s3.bucket}/{name}.parquet{query}"


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
    code, output, shown = mlobs("check", "--reference", bucket("old"), "--current", bucket("new"))
    assert code == 0, shown
    assert "0 of 4 columns drifted" in output
    assert "reading" in shown
    assert "%" in shown
    assert "secret" not in output + shown


def test_a_reference_is_built_from_an_object_and_kept_as_a_file(bucket, tmp_path: Path) -> None:
    kept = str(tmp_path / "r.mlref")
    assert mlobs("reference", "build", bucket("old"), "-o", kept)[0] == 0
    code, output, _ = mlobs("check", "--reference", kept, "--current", bucket("new"), "--json")
    assert (code, json.loads(output)["verdict"]) == (0, "ok")


@pytest.mark.parametrize("name", ["broken", "absent"])
def test_an_object_that_is_broken_or_not_there_is_unreadable(bucket, name: str) -> None:
    code, _, shown = mlobs("check", "--reference", bucket("old"), "--current", bucket(name))
    assert code == 2
    assert "expected a Parquet object that can be read" in shown.replace("\r\n", " ")
    assert "Traceback" not in shown
