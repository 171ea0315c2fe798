"""The kernel that every engine runs: one file -> states by key. It reads the file through `opening`."""

from __future__ import annotations

from functools import lru_cache

from mlobs.drift.codec import dump_state
from mlobs.drift.engines.base import FileSlice, Job, Key, Outcome
from mlobs.drift.engines.grouping import columns_needed, feature_types, grouped
from mlobs.drift.engines.opening import batches_of, schema_of
from mlobs.drift.mlref import load_reference
from mlobs.drift.profile import profile
from mlobs.drift.spec import Spec
from mlobs.drift.state import State, merge
from mlobs.errors import MlobsError, shown


def profile_slice(found: FileSlice, job: Job) -> Outcome:
    """Profile one file, batch by batch. Never raises for what is in the file: a problem is an outcome.

    A file counts whole or not at all. Memory: one batch, and one state a key.
    """
    try:
        spec = _spec(job.reference)
        states: dict[Key, State] = {}
        rows = used = 0
        features, aliases = frozenset(spec.columns), dict(job.aliases)
        schema = schema_of(found.path)
        wanted = columns_needed(job.keying, features, schema, aliases)
        for batch in batches_of(found.path, wanted):
            rows += batch.num_rows
            for key, part, weights in grouped(batch, job.keying, features, found.path, aliases):
                used += part.num_rows
                state = profile(part, spec, weights if job.keying.weight else None)
                states[key] = merge(states[key], state) if key in states else state
    except MlobsError as problem:
        return Outcome(found, problem=str(problem))
    except Exception as problem:  # noqa: BLE001 - one odd file must not end the work on the others
        return Outcome(found, problem=f"{found.path}: {type(problem).__name__}: {shown(str(problem))}")
    dumped = tuple((key, dump_state(states[key])) for key in sorted(states))
    return Outcome(
        found, dumped, rows, rows - used, types=feature_types(schema, job.keying, features, aliases)
    )


@lru_cache(maxsize=4)
def _spec(reference: bytes) -> Spec:
    return load_reference(reference, "the reference of the job").spec
