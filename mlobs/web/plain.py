"""Our values as strict JSON ones: no NaN, no infinity, no type that a parser would stumble over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Set
from decimal import Decimal
from typing import Any


def plain(value: Any) -> Any:
    """`value` out of dicts, lists, str, bool, int, finite float and None alone.

    Dataclasses and named tuples become objects, mappings keep their order with text keys, NaN and infinities
    become None, a Decimal becomes its exact text, anything else its `str`. Lone surrogates are replaced.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    return _text(str(value))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text
