"""Compaction beside `mlobs serve`: `mlobs log compact` as a process of its own, every so often.

A process and not a thread: it takes neither the interpreter nor the memory from the ticks, and one that hangs
on its storage can be ended. How it went is told in words, and in two gauges.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Gauge

from mlobs import names
from mlobs.durations import format_duration
from mlobs.settings import Settings

LONGEST = 3600.0
"""Seconds after which a run is ended; the next one goes on where it was."""
STAGE = "compaction"
_PATIENCE = 10.0
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
    """Runs the command every `lake.every` seconds; after each run `told("compaction", trouble)` is called,
    with "" for one that went well.
    """

    def __init__(
        self,
        settings: Settings,
        told: Callable[[str, str], object],
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._command = command(settings)
        self._every = settings.lake.every if settings.lake else 0.0
        self._told, self._clock = told, clock
        self._held = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlobs-compaction", daemon=True)
        if self._command:
            self._success = Gauge(
                names.COMPACTION_LAST_SUCCESS, "End of the last run that went well", registry=registry
            )
            self._waiting = Gauge(
                names.COMPACTION_HELD, "Segments that wait for `mlobs log ship`", registry=registry
            )

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
                trouble = self._once(self._command)
            except Exception as problem:  # noqa: BLE001 - told and counted; the next run tries again
                _log.exception("the compaction could not be run")
                trouble = f"{type(problem).__name__}: {problem}"
            if self._stop.is_set():
                return
            self._told(STAGE, trouble)
            self._stop.wait(self._every)

    def _once(self, line: Sequence[str]) -> str:
        """One run; what went wrong, or "" ."""
        out, complaint, code = self._ended(line)
        if self._stop.is_set():
            return ""
        if code not in _FINE:
            last = complaint.strip().splitlines()[-1:] or [f"exit code {code}"]
            _log.warning("the compaction failed, the segments stay in the spool: %s", last[0][:300])
            return last[0][:300]
        done = json.loads(out)
        self._success.set(self._clock())
        self._waiting.set(done["held"])
        if done["records"] or done["expired"]:
            _log.info("compacted %d records, %d expired", done["records"], done["expired"])
        if done["held"] and not self._held:
            _log.warning("compaction leaves %d segments: they wait for `mlobs log ship`", done["held"])
        self._held = done["held"]
        return ""

    def _ended(self, line: Sequence[str]) -> tuple[str, str, int]:
        """Output, complaints and exit code, once it ended or was ended."""
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
            waited = over = 0.0
            while True:
                try:
                    out, complaint = process.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    waited += 0.5
                    if not self._stop.is_set() and waited <= LONGEST:
                        continue
                    over += 0.5
                    (process.terminate if over < _PATIENCE else process.kill)()
        if waited > LONGEST:
            complaint = f"ended after {format_duration(LONGEST)} without a result"
        return out, complaint, process.returncode
