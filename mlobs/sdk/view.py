"""What a scrape shows: this process alone, or all the workers of its service as one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlobs.records import Ledger
from mlobs.sdk import exemplars, merging
from mlobs.sdk.buckets import Bounds, plain_bounds
from mlobs.sdk.exemplars import Noted, Series
from mlobs.sdk.meter import (
    ERRORS,
    EXEMPLARS,
    GOOD_OK,
    GOOD_SLOW,
    INTERNAL,
    LEDGER,
    LEDGER_AGE,
    LEDGER_LAST,
    LEDGER_NOW,
    OVERFLOW,
    OVERHEAD,
    REQUEST,
    STARTED,
    Key,
)
from mlobs.sdk.runtime import Runtime

Block = tuple[Key, Sequence[float], "Bounds | None"]

_COUNTED = ("offered", "delivered", "retried", "sampled_out")
_TIMES = ("last_success", "event_time_in", "event_time_out")
_DROPPED = "dropped "


@dataclass(frozen=True, slots=True)
class View:
    """What there is to show. `started` is in seconds since the epoch, `overhead` in CPU seconds."""

    service: str
    blocks: Sequence[Block]
    served: frozenset[Key]
    """Keys of requests that a living process has."""
    started: float
    overhead: float
    errors: Mapping[str, float]
    overflow: Mapping[str, float]
    ledgers: Sequence[Ledger]
    exemplars: Mapping[Series, Sequence[Noted]]
    most: Mapping[Key, float]
    """The most that was shown so far of each GOOD_OK and GOOD_SLOW."""


def view_of(runtime: Runtime) -> View:
    """Everybody's counts; this process's alone, and the failure counted, where the others' cannot be read."""
    if runtime.crew is not None:
        try:
            publish(runtime)
            return _of_all(runtime)
        except Exception as problem:  # noqa: BLE001 - the guard's
            runtime.guard.swallow("workers_view", problem)
    everything = list(runtime.meter.read())
    blocks = [block for block in everything if block[0].family.kind != INTERNAL]
    return View(
        runtime.settings.service,
        blocks,
        frozenset(key for key, _, _ in blocks),
        runtime.started,
        runtime.overhead(),
        dict(runtime.guard.counts),
        dict(runtime.meter.overflow),
        runtime.ledgers(),
        runtime.exemplars.all(),
        _most((key, cells[0]) for key, cells, _ in everything),
    )


def _most(blocks: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    return {key: value for key, value in blocks if key.family in (GOOD_OK, GOOD_SLOW)}


def publish(runtime: Runtime) -> None:
    """Write into this process's cells what it does not count there: pipelines, failures, cost, exemplars.

    Counts are added by what they grew, so that a later runtime of this process goes on where one ended.
    """
    crew = runtime.crew
    if crew is None:
        return
    meter = runtime.meter
    with crew.publishing:
        known = crew.published.setdefault(runtime, {})
        for key, value in _accounts(runtime):
            cells = meter.block(key.family, key.values)
            if key.family.over == "sum":
                cells[0] += value - known.get(key, 0.0)
                known[key] = value
            else:
                cells[0] = value
        for series, noted in runtime.exemplars.all().items():
            edges = runtime.bounds(series[0]).classic
            cells = meter.block(EXEMPLARS, series, plain_bounds(edges))
            for place, newest in exemplars.by_bucket(noted, edges).items():
                exemplars.write(cells, place, newest)


def _accounts(runtime: Runtime) -> Iterator[tuple[Key, float]]:
    yield Key(STARTED, ()), runtime.started
    yield Key(OVERHEAD, ("measured",)), runtime.own_cost()
    for site, count in dict(runtime.guard.counts).items():
        yield Key(ERRORS, (site,)), float(count)
    for metric, count in dict(runtime.meter.overflow).items():
        yield Key(OVERFLOW, (metric,)), float(count)
    for ledger in runtime.ledgers():
        name = ledger.pipeline
        for part in _COUNTED:
            yield Key(LEDGER, (name, part)), float(getattr(ledger, part))
        for reason, count in dict(ledger.dropped).items():
            yield Key(LEDGER, (name, _DROPPED + reason)), float(count)
        for part in _TIMES:
            value = getattr(ledger, part)
            if value is not None:
                yield Key(LEDGER_LAST, (name, part)), float(value)
        yield Key(LEDGER_NOW, (name, "queued")), float(ledger.queued)
        yield Key(LEDGER_AGE, (name, "oldest_age_s")), ledger.oldest_age_s


def _of_all(runtime: Runtime) -> View:
    crew = runtime.crew
    assert crew is not None
    totals, living = crew.totals(runtime.meter.read())
    shown = [(key, total.rounded(), total.bounds) for key, total in totals.items()]
    own = [(key, cells[0]) for key, cells, _ in shown if key.family.kind == INTERNAL]
    blocks = [block for block in shown if block[0].family.kind != INTERNAL]
    calls = sum(
        merging.finished(cells, bounds)
        for key, cells, bounds in blocks
        if key.family == REQUEST and bounds is not None
    )
    by_family = {
        family: {key.values[0]: value for key, value in own if key.family == family}
        for family in (ERRORS, OVERFLOW)
    }
    return View(
        runtime.settings.service,
        blocks,
        frozenset(living),
        min((value for key, value in own if key.family == STARTED), default=runtime.started),
        calls * crew.price(runtime.price) + sum(value for key, value in own if key.family == OVERHEAD),
        by_family[ERRORS],
        by_family[OVERFLOW],
        list(_ledgers(own)),
        {key.values: list(exemplars.read(cells)) for key, cells, _ in shown if key.family == EXEMPLARS},
        _most(own),
    )


def _ledgers(own: Iterable[tuple[Key, float]]) -> Iterable[Ledger]:
    found: dict[str, Ledger] = {}
    for key, value in own:
        if key.family not in (LEDGER, LEDGER_LAST, LEDGER_NOW, LEDGER_AGE):
            continue
        name, part = key.values
        ledger = found.setdefault(name, Ledger(name, 0, 0, {}, 0))
        if part.startswith(_DROPPED):
            reason = part.removeprefix(_DROPPED)
            found[name] = replace(ledger, dropped={**ledger.dropped, reason: round(value)})
        elif math.isfinite(value):
            given: dict[str, Any] = {part: round(value) if key.family in (LEDGER, LEDGER_NOW) else value}
            found[name] = replace(ledger, **given)
    return found.values()
