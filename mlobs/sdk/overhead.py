"""Our own CPU cost, `mlobs_overhead_seconds_total`.

Timing each call's overhead would cost as much as the overhead. So: calls that are not kept are counted
anyway, and priced with what an observed call of nothing cost over a bare one when the first scrape calibrated
it; kept calls measure their thread's CPU time (they are few); our background threads are read from /proc
where there is one (Linux). The price is that of a function without stages: a lower bound where many are used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_NAMES = "mlobs"


class Overhead:
    """Adds up; never goes back, though threads come and go."""

    def __init__(self, calibrate: Callable[[], float]) -> None:
        self._calibrate = calibrate
        self._price: float | None = None
        self.threads: dict[int, float] = {}

    def seconds(self, calls: float, kept: float) -> float:
        """CPU seconds for `calls` calls, `kept` of measured ones, and our threads."""
        return (calls * self.price() if calls else 0.0) + kept + self._background()

    def price(self) -> float:
        """CPU seconds of a call that is not kept; measured when it is first asked for."""
        if self._price is None:
            self._price = self._calibrate()
        return self._price

    def _background(self) -> float:
        for thread in threading.enumerate():
            if thread.name.startswith(_NAMES) and thread.native_id is not None:
                spent = _cpu_seconds(thread.native_id)
                if spent is not None:
                    self.threads[thread.native_id] = max(spent, self.threads.get(thread.native_id, 0.0))
        return sum(self.threads.values())


def _cpu_seconds(native_id: int) -> float | None:
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):  # no Linux, or the thread has just ended
        return None
