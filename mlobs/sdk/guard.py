"""The guard: whatever fails in us is swallowed, counted by site and logged once a minute.

Of another's exception the log has the type alone, for its text may hold what a call was about; ours are
written to be read. `BaseException` is not ours to swallow: a KeyboardInterrupt in our code is the host's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mlobs.errors import MlobsError

_LOG = logging.getLogger("mlobs")
_QUIET_S = 60.0
_WAIT_S = 0.1


class Guard:
    """Counts failures by site. `strict` raises them instead: for tests, never for a serving process."""

    def __init__(self, *, strict: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.strict = strict
        self._clock = clock
        self._next_log: dict[str, float] = {}
        self.reset()

    def reset(self) -> None:
        """From zero, with a lock of its own: at the start, and in a forked child."""
        self.counts: dict[str, int] = {}
        self._lock = threading.RLock()  # a signal handler may call within a failure of ours

    def count(self, site: str) -> None:
        """One more at `site`, exactly; where the lock is not to be had (a fork took it along), nearly so."""
        held = self._lock.acquire(timeout=_WAIT_S)
        try:
            self.counts[site] = self.counts.get(site, 0) + 1
        finally:
            if held:
                self._lock.release()

    def swallow(self, site: str, problem: Exception) -> None:
        """Call from an `except` block. Never raises unless strict; logs once a minute and site."""
        if self.strict:
            raise problem
        try:
            self.count(site)
            now = self._clock()
            if now >= self._next_log.get(site, 0.0):
                self._next_log[site] = now + _QUIET_S
                _LOG.warning(
                    "mlobs failed at %s: %s; the call went on, further failures are counted for %d s",
                    site,
                    problem if isinstance(problem, MlobsError) else type(problem).__name__,
                    _QUIET_S,
                )
        except Exception:  # noqa: BLE001, S110 - a broken log handler of the host must not become its failure
            pass
