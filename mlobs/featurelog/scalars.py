"""From whatever a feature dictionary holds to a scalar that a record can hold.

| value | becomes | counted as |
|---|---|---|
| None, bool, str, float (NaN and infinities too), int of 64 bit | itself | |
| subclass of these, numpy scalar, 0-d tensor, Decimal, Fraction | the plain number or text | |
| int beyond 64 bit | the text `int:` and its hex digits: an identifier, not a measurement | `huge_int` |
| bytes | its text, undecodable bytes escaped | |
| date, time, UUID, enum, path | its text | |
| list, dict, set, array | None | `nested` |
| anything else, or a value whose methods raise | None | `unreadable` |

Lone surrogates are escaped, text beyond 4,096 characters is cut (`long_text`). Pure.
"""

from __future__ import annotations

import datetime
import enum
import os
import uuid
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

MAX_TEXT: Final = 4096
_LOW, _HIGH = -(2**63), 2**63 - 1
_SPOKEN = (datetime.date, datetime.time, datetime.timedelta, uuid.UUID, os.PathLike)


def plain(value: Any, odd: Counter[str]) -> bool | int | float | str | None:
    """The scalar that stands for `value`; what had to be given up is counted in `odd`. Never raises."""
    kind = type(value)
    if kind is float or kind is bool or value is None:
        return value  # type: ignore[no-any-return]
    if kind is int:
        return integer(value, odd)
    if kind is str:
        return text(value, odd)
    try:
        return _unusual(value, odd)
    except Exception:  # noqa: BLE001 - a user's object may raise anything, RecursionError included
        odd["unreadable"] += 1
        return None


def integer(value: int, odd: Counter[str]) -> int | str:
    if _LOW <= value <= _HIGH:
        return value
    odd["huge_int"] += 1
    return f"int:{value:x}"[:MAX_TEXT]


def text(value: str, odd: Counter[str]) -> str:
    if len(value) > MAX_TEXT:
        odd["long_text"] += 1
        value = value[:MAX_TEXT]
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        odd["surrogate"] += 1
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _unusual(value: Any, odd: Counter[str]) -> bool | int | float | str | None:
    if isinstance(value, enum.Enum):
        return plain(value.value, odd)
    if isinstance(value, str):
        return text(str.__str__(value), odd)
    if isinstance(value, int):
        return integer(int(value), odd)
    if isinstance(value, float | Decimal | Fraction):
        return float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return text(bytes(value)[: MAX_TEXT + 1].decode("utf-8", "backslashreplace"), odd)
    if isinstance(value, _SPOKEN):
        return text(str(value), odd)
    if isinstance(value, Mapping | AbstractSet | list | tuple):
        odd["nested"] += 1
        return None
    return _from_array(value, odd)


def _from_array(value: Any, odd: Counter[str]) -> bool | int | float | str | None:
    """A numpy scalar or a tensor of one value gives it by `.item()`; a larger one is nested."""
    shape = getattr(value, "shape", None)
    if shape is not None and tuple(shape) != ():
        odd["nested"] += 1
        return None
    item = getattr(value, "item", None)
    if callable(item):
        inner = item()
        if type(inner) in (bool, int, float, str, bytes):
            return plain(inner, odd)
    odd["unreadable"] += 1
    return None
