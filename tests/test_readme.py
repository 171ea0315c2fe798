"""The README's blocks run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlobs.config import load_settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

TRY_THE_SERVICE = """
import asyncio, httpx

async def main():
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for amount in range(200):
            transaction = {"id": f"r{amount}", "amount": amount, "country": "SE", "user": "Ada"}
            answer = await client.post("/score", json=transaction)
            assert answer.status_code == 200, answer.text
        text = (await client.get("/metrics/")).text
    assert 'mlobs_request_duration_seconds_count{' in text
    assert 'outcome="ok",service="fraud-api"} 200.0' in text, text
    assert mlobs.flush(5) is True

asyncio.run(main())
mlobs.close()
"""


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_quick_start_serves_counts_and_logs(tmp_path: Path) -> None:
    (service,) = blocks(README, "python")
    script = tmp_path / "service.py"
    script.write_text(service + TRY_THE_SERVICE)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    logged = b"".join(path.read_bytes() for path in (tmp_path / "featurelog").rglob("*") if path.is_file())
    assert b"amount" in logged
    assert b"Ada" not in logged  # a string leaves as a keyed hash


@pytest.mark.parametrize("page", [README, CONFIGURATION], ids=["README", "configuration"])
def test_every_settings_block_is_accepted(page: str, tmp_path: Path) -> None:
    found = blocks(page, "yaml")
    assert found
    for number, text in enumerate(found):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        assert load_settings(path).service == "fraud-api"


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 140
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
