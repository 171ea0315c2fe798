"""A backfill: what is not done yet goes through an engine into the ledger; then windows are judged. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mlobs.drift.arrivals import judge_volume, traffic
from mlobs.drift.engines import ledger
from mlobs.drift.engines.base import Engine, Job
from mlobs.drift.engines.ledger import Progress, Window
from mlobs.drift.reference import Reference
from mlobs.drift.verdicts import DRIFTED, Stream, WindowVerdict, judge, without_reference
from mlobs.settings import RowsSettings
from mlobs.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class Backfill:
    """A job that ran to its end."""

    job: str
    progress: Progress
    skipped: int
    """Slices that an earlier run had done."""
    windows: tuple[Window, ...]


def backfill(
    store: Store,
    engine: Engine,
    job: Job,
    reference: Reference,
    sources: Sequence[str],
    watch: Callable[[int, int], None] | None = None,
) -> Backfill:
    """Profile what is new below `sources` and bring the windows up to date. Can be stopped at any moment:
    the next call goes on. `watch(done, total)` is told of every slice."""
    name = ledger.job_id(job, sources)
    listed = engine.slices(sources)
    waiting = ledger.begin(store, name, listed)
    skipped = len(listed) - len(waiting)
    if watch is not None:
        watch(skipped, len(listed))
    for count, outcome in enumerate(engine.profile(waiting, job), start=skipped + 1):
        ledger.keep(store, name, outcome)
        if watch is not None:
            watch(count, len(listed))
    windows = ledger.settle(store, name, reference.spec.reference)
    return Backfill(name, ledger.progress(store, name), skipped, tuple(windows))


def judged(
    window: Window,
    reference: Reference,
    min_rows: float,
    margin: float,
    rows: RowsSettings = RowsSettings(),  # noqa: B008 - frozen
) -> WindowVerdict:
    """The verdict that `mlobs serve` would have given the window, persistence left out; `rows`: what was
    declared of their number. The number of rows is
    judged where windows are not kept apart by version or segment: else no key holds all traffic."""
    key = window.key
    stream = Stream(key.model, key.version, key.segment)
    if reference.model_version and key.version and key.version != reference.model_version:
        return without_reference(stream, key.start, key.end, window.rows)
    found = judge(stream, key.start, key.end, window.state, reference, reference.spec, min_rows, margin)
    if key.version or key.segment:
        return found
    seen = traffic([window.state], 1.0)
    volume = judge_volume(key.model, key.start, key.end, seen, rows, reference)
    if volume is None:
        return found
    detail = f"{found.detail}; {volume.detail}" if found.verdict == DRIFTED else volume.detail
    status = found.status if found.verdict == DRIFTED else volume.status
    return replace(found, verdict=DRIFTED, status=status, detail=detail, verdicts=(volume, *found.verdicts))
