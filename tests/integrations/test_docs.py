"""The page on integrations says what is so: its blocks run."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.testclient import TestClient

from mlobs.testing import capture

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"


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
