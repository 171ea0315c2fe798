"""Batch calls: one call, one duration, a record for each row that is kept.

Sampling is of rows where they have ids, the same rows in every process (or all rows of an entity), and of
whole calls where they have none; each row of a failed, slow or traced call is kept. Either way a row's
weight is one over its rate.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlobs.errors import Problem, UsageError
from mlobs.records import BY_ENTITY, BY_RATE, DRAWN, FeatureRecord
from mlobs.sdk.capture import Extractor, first_mapping, snapshot
from mlobs.sdk.given import refuse
from mlobs.sdk.guard import Guard
from mlobs.sdk.meter import clean_label
from mlobs.sdk.sampling import kept_by_id

Column = Callable[[tuple[Any, ...], Mapping[str, Any], Sequence[Any]], Sequence[Any]]
"""Arguments of the call and its rows -> one value for each row."""


@dataclass(frozen=True, slots=True)
class Batch:
    """How a batch call is taken apart."""

    rows: Extractor
    prediction_id: Column | None = None
    entity: Column | None = None
    features: Extractor | None = None
    segment: Column | None = None
    decision: Extractor | None = None


@dataclass(slots=True)
class Chosen:
    """The rows of one call: all of them, and by place what was copied of the kept ones before the call."""

    rows: Sequence[Any]
    ids: Sequence[Any] | None
    copies: dict[int, dict[str, Any]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)


def as_column(given: str | Extractor | None, field_name: str, fn: Callable[..., Any]) -> Column | None:
    """A value for each row out of what the user gave: a callable takes the row; a name is a parameter that
    holds one value a row, or else a key of each row. Raises UsageError for anything else.
    """
    if given is None:
        return None
    if callable(given):
        take = given
        return lambda _args, _kwargs, rows: [take(row) for row in rows]
    if not isinstance(given, str):
        raise refuse(
            f"observe({field_name}=)",
            "a callable over a row, or the name of a parameter or of a key",
            given,
            f"for example {field_name}='id'",
        )
    name = given
    try:
        signature: inspect.Signature | None = inspect.signature(fn)
    except (TypeError, ValueError):
        signature = None
    if signature is not None and name in signature.parameters:
        found = signature

        def parameter(args: tuple[Any, ...], kwargs: Mapping[str, Any], rows: Sequence[Any]) -> Sequence[Any]:
            bound = found.bind(*args, **kwargs).arguments.get(name)
            return [None] * len(rows) if bound is None else bound

        return parameter
    return lambda _args, _kwargs, rows: [(first_mapping(row) or {}).get(name) for row in rows]


def refuse_streams(fn: Callable[..., Any]) -> None:
    """Raises UsageError for a generator: what it gives one after the other is matched with no rows."""
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise UsageError(
            Problem(
                "observe(batch=)",
                "a function that returns one prediction a row",
                "a generator",
                "leave batch out: a stream is one call",
            )
        )


def choose(
    batch: Batch,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    rate: float,
    limit: int,
    random: Callable[[], float],
    by_entity: bool,
) -> Chosen:
    """The rows of a call and which are drawn: copied now, for the function may change them."""
    rows = as_sequence(batch.rows(*args, **kwargs))
    ids = None if batch.prediction_id is None else batch.prediction_id(args, kwargs, rows)
    chosen = Chosen(rows, ids)
    entities = batch.entity(args, kwargs, rows) if by_entity and batch.entity is not None else None
    if ids is None and entities is None:
        if random() < rate:
            add(batch, chosen, range(len(rows)), BY_RATE)
        return chosen
    drawn: dict[str, list[int]] = {BY_RATE: [], BY_ENTITY: []}
    for place in range(len(rows)):
        entity = None if entities is None else entities[place]
        ident = None if ids is None else ids[place]
        if entity is not None:
            if kept_by_id(str(entity), limit):
                drawn[BY_ENTITY].append(place)
        elif random() < rate if ident is None else kept_by_id(clean_label(ident), limit):
            drawn[BY_RATE].append(place)
    for reason, places in drawn.items():
        add(batch, chosen, places, reason)
    return chosen


def add(batch: Batch, chosen: Chosen, places: range | list[int], reason: str) -> None:
    """Keep the rows at `places`; what was copied before stays."""
    for place in places:
        chosen.reasons[place] = reason
        if place not in chosen.copies:
            row = chosen.rows[place]
            chosen.copies[place] = snapshot(
                first_mapping(row) if batch.features is None else batch.features(row)
            )


def as_sequence(values: Any) -> Sequence[Any]:
    """A list or tuple as it is; arrays and series by their `tolist`; of anything else the list.

    A text, a mapping and None are no rows: TypeError.
    """
    if isinstance(values, list | tuple):
        return values
    if isinstance(values, str | bytes | Mapping):
        raise TypeError(f"a sequence of rows, not {type(values).__name__}")
    return list(values.tolist() if hasattr(values, "tolist") else values)


def records(
    batch: Batch,
    chosen: Chosen,
    base: FeatureRecord,
    result: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    rate: float,
    guard: Guard,
) -> Iterator[FeatureRecord]:
    """A record for each kept row out of the call's own record `base`, in the rows' order."""
    rows = chosen.rows
    predictions = _column("predictions", guard, len(rows), lambda: as_sequence(result), result is not None)
    entities = _column(
        "entity",
        guard,
        len(rows),
        lambda: batch.entity and batch.entity(args, kwargs, rows),
        bool(batch.entity),
    )
    segments = _column(
        "segment", guard, len(rows), lambda: batch.segment and batch.segment(args, kwargs, rows),
        bool(batch.segment),
    )  # fmt: skip
    for place in sorted(chosen.reasons):
        ident = None if chosen.ids is None else chosen.ids[place]
        reason = chosen.reasons[place]
        yield base._replace(
            prediction_id=f"{base.prediction_id}-{place}" if ident is None else clean_label(ident),
            features=chosen.copies[place],
            prediction=predictions[place],
            decision=_decision(batch, predictions[place], base.decision, guard),
            entity_key=None if entities[place] is None else str(entities[place]),
            segment=base.segment if segments[place] is None else clean_label(segments[place]),
            sampling_reason=reason,
            weight=1.0 / rate if reason in DRAWN and rate > 0 else 1.0,
        )


def _decision(batch: Batch, prediction: Any, of_call: str | None, guard: Guard) -> str | None:
    if batch.decision is None or prediction is None:
        return of_call
    try:
        return clean_label(batch.decision(prediction))
    except Exception as problem:  # noqa: BLE001 - the guard's
        guard.swallow("decision", problem)
        return of_call


def _column(
    site: str, guard: Guard, count: int, make: Callable[[], Sequence[Any] | None], given: bool
) -> Sequence[Any]:
    """`count` values; None for each where there are none, or not `count` of them (counted)."""
    if given:
        try:
            found = make()
            if found is not None and len(found) == count:
                return found
            raise ValueError(f"{count} rows have other than {count} values")
        except Exception as problem:  # noqa: BLE001 - the guard's
            guard.swallow(site, problem)
    return [None] * count
