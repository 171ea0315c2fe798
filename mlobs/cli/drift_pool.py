"""Engines of the command line: opened by name, closed in the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlobs.errors import UsageError

if TYPE_CHECKING:
    from mlobs.drift.engines.base import Engine
    from mlobs.drift.reference import Reference
    from mlobs.drift.state import State

ENGINES = ("local", "spark")


def profile_whole(
    reference: Reference,
    source: str,
    engine: str,
    master: str,
    workers: int,
    aliases: Mapping[str, str] | None = None,
    score: str | None = None,
) -> tuple[State, dict[str, str], list[str]]:
    """(state of all files below `source` as one table, types of the columns, what of them differs from file
    to file). Raises UnreadableError for the first file that cannot be read: a table counts whole."""
    from dataclasses import replace

    from mlobs.drift.codec import load_state
    from mlobs.drift.engines.base import Job, Keying
    from mlobs.drift.engines.mixed import types_of
    from mlobs.drift.mlref import dump_reference, load_reference
    from mlobs.drift.state import merge_all
    from mlobs.errors import UnreadableError

    data = dump_reference(reference)
    known = load_reference(data, reference.name)
    with open_engine(engine, master, workers) as running:
        slices = running.slices([source])
        job = Job(data, Keying(score=score), tuple((aliases or {}).items()))
        outcomes = sorted(running.profile(slices, job), key=lambda one: one.slice.path)
    broken = next((one for one in outcomes if one.problem), None)
    if broken is not None:
        raise UnreadableError.of(broken.slice.path, "a table that can be read", broken.problem, "mend it")
    states = (load_state(state, one.slice.path) for one in outcomes for _, state in one.states)
    # What was declared on top of a reference travels in it, and makes it another one.
    whole = merge_all(states, known.spec.reference)
    return replace(whole, reference=reference.spec.reference), *types_of(outcomes, reference.spec)


@contextmanager
def open_engine(name: str, master: str, workers: int) -> Iterator[Engine]:
    """The engine of `--engine`, closed in the end. Raises UsageError for another name."""
    import os

    from mlobs.drift.engines.local import LocalEngine
    from mlobs.drift.engines.spark import SparkEngine
    from mlobs.errors import nearest

    if name not in ENGINES:
        raise UsageError.of("--engine", "local or spark", name, nearest(name, ENGINES))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    engine: Engine = SparkEngine(master) if name == "spark" else LocalEngine(workers or cores)
    try:
        yield engine
    finally:
        engine.close()
