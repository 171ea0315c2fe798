"""`mlobs demo` whole, shortened: with its faults, without them, without paging. The longest test there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlobs.demo.plan import LEAST_DAYS
from tests.servers import eventually

MLOBS_DEMO = [sys.executable, "-m", "mlobs", "demo", "--days", str(LEAST_DAYS)]


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*MLOBS_DEMO, "--dir", str(folder), "--no-stay", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert "Traceback" not in done.stdout + done.stderr
    assert "Traceback" not in (folder / "serve.log").read_text() + (folder / "service.log").read_text()
    return done


def test_both_faults_are_paged_and_named_and_the_quiet_stretch_is_silent(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 causes paged, 2 named rightly, 0 false pages" in done.stdout
    assert "0 dropped + 0 queued" in done.stdout
    assert "below the training minimum" in done.stdout
    assert "inference" in done.stdout


def test_without_faults_no_page_leaves(tmp_path: Path) -> None:
    done = demo(tmp_path, "--no-faults")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no cause, 0 pages" in done.stdout


def test_without_paging_the_faults_go_unnoticed_and_that_is_a_failure(tmp_path: Path) -> None:
    done = demo(tmp_path, "--no-notify")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 of 2 causes paged" in done.stdout


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [*MLOBS_DEMO, "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: children_about(tmp_path) >= 2, "two children", timeout=120)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3
    assert "Traceback" not in errors
    eventually(lambda: children_about(tmp_path) == 0, "no children", timeout=30)


def children_about(folder: Path) -> int:
    """Processes but the demo itself whose command line names `folder`."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended
            found += b"demo" not in words and any(str(folder).encode() in word for word in words)
    return found


pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="counts processes in /proc")
