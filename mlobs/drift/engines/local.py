"""The engine of this machine: a pool of processes over files. An edge: it starts processes."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from mlobs.drift.engines.base import FileSlice, Job, Outcome
from mlobs.drift.engines.kernel import profile_slice
from mlobs.drift.engines.listing import list_slices

LONE_DEATHS = 2
"""So often may a file kill the worker that has nothing else to do before it is given up."""


class LocalEngine:
    """Profiles files in `workers` processes; with none in this one.

    A worker that dies breaks the pool whole. Then the pool is built again and the files that were being read
    are tried one at a time: the one that kills again is the culprit, and an outcome with a problem; the
    others lose nothing.
    """

    def __init__(self, workers: int, kernel: Callable[[FileSlice, Job], Outcome] = profile_slice) -> None:
        self._workers = workers
        self._kernel = kernel
        self._pool: ProcessPoolExecutor | None = None
        self.rebuilt = 0
        """Pools that broke and were built again."""

    def slices(self, sources: Sequence[str]) -> list[FileSlice]:
        return list_slices(sources)

    def profile(self, slices: Sequence[FileSlice], job: Job) -> Iterator[Outcome]:
        if not self._workers:
            yield from (self._kernel(one, job) for one in slices)
            return
        waiting, suspects = deque(slices), deque[FileSlice]()
        deaths: dict[FileSlice, int] = {}
        running: dict[Future[Outcome], FileSlice] = {}
        while waiting or suspects or running:
            # No more than are run at once: what runs when a worker dies is all that may have killed it.
            self._submit(running, waiting, suspects, job)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            lost = []
            for future in done:
                one = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    lost.append(one)
                else:
                    yield future.result()
            if not lost:
                continue
            lost += self._bury(running)
            for one in lost:
                deaths[one] = deaths.get(one, 0) + (len(lost) == 1)
                if deaths[one] < LONE_DEATHS:
                    suspects.append(one)
                else:
                    yield Outcome(one, problem=f"{one.path}: reading it killed the worker, out of memory?")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _submit(
        self,
        running: dict[Future[Outcome], FileSlice],
        waiting: deque[FileSlice],
        suspects: deque[FileSlice],
        job: Job,
    ) -> None:
        if self._pool is None:
            self._pool = self._new_pool()
        queue, most = (suspects, 1) if suspects else (waiting, self._workers)
        while queue and len(running) < most:
            one = queue.popleft()
            try:
                running[self._pool.submit(self._kernel, one, job)] = one
            except BrokenProcessPool:  # broke in between: `wait` tells of those that ran
                queue.appendleft(one)
                if running:
                    return
                self._bury(running)
                self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        # Not forked: a fork of a process with threads (Arrow's among them) may hang.
        return ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"), initializer=_deaf)

    def _bury(self, running: dict[Future[Outcome], FileSlice]) -> list[FileSlice]:
        """Drop the broken pool; returns the slices that went down with it."""
        lost = list(running.values())
        running.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self.rebuilt += 1
        return lost


def _deaf() -> None:
    """Ctrl-C in a terminal reaches every process of the group; the one that has the pool ends it in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
