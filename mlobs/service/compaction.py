"""Compaction beside `mlobs serve`: `mlobs log compact` as a process of its own, every so often.

A process and not a thread: it takes neither the interpreter nor the memory from the ticks, and one that hangs
on its storage can be ended.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from mlobs.durations import format_duration
from mlobs.settings import Settings

LONGEST = 3600.0
"""Seconds after which a run is ended; the next one goes on where it was."""
_FINE = (0, 1)
_log = logging.getLogger("mlobs.service")


def command(settings: Settings) -> list[str]:
    """The command line of one run; empty where nothing is to be compacted."""
    lake = settings.lake
    if lake is None or settings.feature_log is None:
        return []
    options = ["--to", lake.to] if lake.to else []
    if lake.keep is not None:
        options += ["--keep", format_duration(lake.keep)]
    return [sys.executable, "-m", "mlobs", "log", "compact", settings.feature_log, "--json", *options]


class Compactor:
    """Runs the command every `lake.every` seconds; `failed("compaction")` is called for a run that failed."""

    def __init__(self, settings: Settings, failed: Callable[[str], object]) -> None:
        self._command = command(settings)
        self._every = settings.lake.every if settings.lake else 0.0
        self._failed = failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlobs-compaction", daemon=True)

    def start(self) -> None:
        """Nothing where the settings have no `lake`."""
        if self._command:
            self._thread.start()

    def stop(self) -> None:
        """End the run in hand; the next one finishes it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._once(self._command)
            except Exception:  # noqa: BLE001 - told and counted; the next run tries again
                self._failed("compaction")
                _log.exception("the compaction could not be run")
            self._stop.wait(self._every)

    def _once(self, line: Sequence[str]) -> None:
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
            waited = 0.0
            while True:
                try:
                    out, complaint = process.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    waited += 0.5
                    if self._stop.is_set() or waited > LONGEST:
                        process.terminate()
        if self._stop.is_set():
            return
        if process.returncode not in _FINE:
            self._failed("compaction")
            last = complaint.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
            _log.warning("the compaction failed, the segments stay in the spool: %s", last[0][:300])
            return
        done = json.loads(out)
        if done["records"] or done["expired"]:
            _log.info("compacted %d records, %d expired", done["records"], done["expired"])
