"""The pages on the SDK and on integrations say what is so: their blocks run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from starlette.testclient import TestClient

from mlobs.testing import capture

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "integrations.md"


def test_the_blocks_of_the_page_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    scope: dict[str, object] = {"__name__": "page"}
    with capture() as seen:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), scope)
        client = TestClient(scope["app"])  # type: ignore[arg-type]
        assert client.post("/score/acme", json={"amount": 1}).json() == 0.1
        shown = client.get("/metrics/").text
        assert "mlobs_batch_size" in scope["site"].test_client().get("/metrics").text  # type: ignore[attr-defined]
    assert len(blocks) == 6
    for metric in re.findall(
        r"`((?:mlobs|http|rpc|gen_ai)_[a-z_]+_(?:seconds|usage|per_second))`", PAGE.read_text()
    ):
        if not metric.startswith("rpc_"):
            assert f"\n{metric}" in shown, metric
    assert 'http_route="/score/{tenant}"' in shown
    assert seen.value("mlobs_cache_requests_total", result="hit") == 1
    assert seen.value("mlobs_batch_size_count") == 1
    assert seen.value("mlobs_job_rows_total") == 1000


def test_the_blocks_of_the_sdks_page_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "sdk.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
    assert (tmp_path / "featurelog").is_dir()
