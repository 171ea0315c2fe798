"""What is taken from a call for its record: resolved once at decoration, run for kept calls alone."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from mlobs.records import BY_ENTITY, BY_RATE
from mlobs.sdk.given import refuse
from mlobs.sdk.meter import clean_label

Extractor = Callable[..., Any]
"""Takes the arguments of the observed function."""


@dataclass(frozen=True, slots=True)
class Extractors:
    """Each is called with the arguments of the function; `decision` with its result."""

    prediction_id: Extractor | None = None
    entity: Extractor | None = None
    features: Extractor | None = None
    segment: Extractor | None = None
    decision: Extractor | None = None

    def decisive(
        self, by_entity: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[str | None, str]:
        """The text that decides on keeping, and by what it does: the entity's, else the prediction's id.

        None where there is neither. Raises what an extractor raises.
        """
        if by_entity and self.entity is not None:
            entity = self.entity(*args, **kwargs)
            if entity is not None:
                return str(entity), BY_ENTITY
        ident = None if self.prediction_id is None else self.prediction_id(*args, **kwargs)
        return None if ident is None else clean_label(ident), BY_RATE


def as_extractor(given: str | Extractor | None, field: str, fn: Callable[..., Any]) -> Extractor | None:
    """A callable out of what the user gave: a callable as it is; a name is a parameter of the function or,
    where the function has no such parameter, a key or attribute of the first mapping argument.

    Raises UsageError for anything else.
    """
    if given is None or callable(given):
        return given
    if not isinstance(given, str):
        raise refuse(
            f"observe({field}=)",
            "a callable, or the name of a parameter or key",
            given,
            f"for example {field}=lambda request: request['id']",
        )
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        signature = None
    if signature is not None and given in signature.parameters:
        return _parameter(signature, given)
    return _key(given)


def as_function(given: Any, field: str, over: str) -> Extractor | None:
    """What is a callable or nothing, never a name. Raises UsageError for anything else."""
    if given is None or callable(given):
        return cast("Extractor | None", given)
    raise refuse(
        f"observe({field}=)",
        f"a callable over {over}",
        given,
        f"for example {field}=lambda given: given['x']",
    )


def _parameter(signature: inspect.Signature, name: str) -> Extractor:
    position = list(signature.parameters).index(name)
    default = signature.parameters[name].default

    def take(*args: Any, **kwargs: Any) -> Any:
        if name in kwargs:
            return kwargs[name]
        if position < len(args):
            return args[position]
        return None if default is inspect.Parameter.empty else default

    return take


def _key(name: str) -> Extractor:
    def take(*args: Any, **kwargs: Any) -> Any:
        found = first_mapping(*args, **kwargs)
        return None if found is None else found.get(name)

    return take


def first_mapping(*args: Any, **kwargs: Any) -> Mapping[str, Any] | None:
    """The first argument that is a mapping, a pydantic model or a dataclass: the default features."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Mapping):
            return value
        if not isinstance(value, type):
            if hasattr(type(value), "model_fields"):
                return {name: getattr(value, name) for name in type(value).model_fields}
            if dataclasses.is_dataclass(value):
                return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def snapshot(features: Any) -> dict[str, Any]:
    """A flat copy, so that later changes by the function do not reach the record. 0.3 us for 30 features."""
    if features is None:
        return {}
    if type(features) is dict:
        return features.copy()
    return dict(features)
