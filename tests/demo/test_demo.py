"""`mlobs demo` whole, shortened: with its faults, without them, without paging. The longest test there is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from mlobs.demo.plan import LEAST_DAYS
from tests.servers import eventually

MLOBS_DEMO = [sys.executable, "-m", "mlobs", "demo", "--days", str(LEAST_DAYS)]


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*MLOBS_DEMO, "--dir", str(folder), "--no-stay", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    no_traceback(folder, done.stdout + done.stderr)
    return done


def no_traceback(folder: Path, printed: str) -> None:
    assert "Traceback" not in printed
    assert "Traceback" not in (folder / "serve.log").read_text() + (folder / "service.log").read_text()


def test_both_faults_are_paged_and_named_and_the_quiet_stretch_is_silent(tmp_path: Path) -> None:
    """And the page stays up until Ctrl-C, which leaves the verdict of the run as the exit code."""
    folder, out, err = tmp_path / "demo", tmp_path / "out", tmp_path / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [*MLOBS_DEMO, "--dir", str(folder), "--stay"], stdout=stdout, stderr=stderr, text=True
        )
    try:
        eventually(
            lambda: "stays up at" in out.read_text() or process.poll() is not None, "the page", timeout=600
        )
        printed = out.read_text()
        stays = re.search(r"stays up at (\S+)", printed)
        assert stays, printed + err.read_text()
        with urllib.request.urlopen(stays[1], timeout=30) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    no_traceback(folder, out.read_text() + err.read_text())
    assert code == 0, printed
    assert "2 of 2 causes paged, 2 named rightly, 0 false pages" in printed
    assert "0 dropped + 0 queued" in printed
    assert "below the training minimum" in printed
    assert "inference" in printed


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
        process.wait()
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
